"""What Tab completes besides commands and options: levels, files, the names of tokens.

Owns: these functions, which click calls while a command line is typed. They never fail, and print nothing: a shell that
completes has no place for errors. Read `cli/line_options` next.
"""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

LEVELS = ("debug", "info", "warning", "error", "critical")
"""As the options take them."""


def complete_level(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Give the levels that begin with what was typed."""
    return [CompletionItem(level) for level in LEVELS if level.startswith(incomplete.lower())]


def complete_file(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete the names of files, as it does elsewhere."""
    return [CompletionItem(incomplete, type="file")]


def completer(metavar: str | None) -> Completer | None:
    """Return what completes a value that `--help` calls so; None: anything may stand there."""
    if metavar == "PATH":
        return complete_file
    words = (metavar or "").split("|")
    if len(words) == 1 or metavar != (metavar or "").lower():
        return None
    return lambda _context, _parameter, incomplete: [CompletionItem(one) for one in words if one.startswith(incomplete)]
