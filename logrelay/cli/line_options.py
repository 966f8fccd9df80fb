"""What the commands that show lines have in common: filters as options, the source, and how such a command ends.

Owns: these options, and `reading`, which opens what a command reads from and sees to its end at a closed pipe. It must
not know how lines look or travel: that is in `terminal`, which is loaded when a command is called. Read `cli/tail`
next.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from logrelay.cli.completion import complete_file, complete_level
from logrelay.cli.output import print_stderr
from logrelay.cli.place_options import journal_path, place_options
from logrelay.cli.setting_options import read_settings
from logrelay.errors import ConfigError

if TYPE_CHECKING:
    from logrelay.terminal.finding import Found
    from logrelay.terminal.selection import Selection

MOST_TOKEN_BYTES = 4096
"""Of a file with a token; a token has 256 characters at most."""

_FILTERS = (
    click.option(
        "--level",
        metavar="LEVEL",
        help="Lowest level: debug, info, warning, error, critical.",
        shell_complete=complete_level,
    ),
    click.option("--app", "apps", multiple=True, metavar="GLOB", help="Bots; repeatable, any of them."),
    click.option("--run", "runs", multiple=True, metavar="GLOB", help="Runs by name; repeatable, any of them."),
    click.option("--edge", "edges", multiple=True, metavar="GLOB", help="Machines that a hub collects; repeatable."),
    click.option("--source", "sources", multiple=True, metavar="GLOB", help="Loggers; repeatable, any of them."),
    click.option("--where", multiple=True, metavar="FIELD=VALUE", help="Context fields; repeatable, all of them."),
    click.option("--since", metavar="TIME", help="From this time on: 2026-01-23T10:00:00Z, 15m, 2h, 7d."),
    click.option("--until", metavar="TIME", help="Up to this time, in the same forms."),
)
_TEXT = click.option("--grep", "text", metavar="TEXT", help="Text in the message or in a value.")
_NOTICES = click.option(
    "--notices",
    type=click.Choice(["no", "all"], case_sensitive=False),
    help="Notices of the relay.  [default: those that concern the lines]",
)


_A_GLOB = "a name, or a glob such as 'scalper*'"
_A_TIME = "an age (90s, 15m, 2h, 7d) or 2026-01-23T10:00:00Z"
_ALLOWED = {
    "level": ("--level", "debug, info, warning, error, critical"),
    "apps": ("--app", _A_GLOB),
    "runs": ("--run", _A_GLOB),
    "edges": ("--edge", _A_GLOB),
    "sources": ("--source", _A_GLOB),
    "where": ("--where", "FIELD=VALUE, such as symbol=AAPL"),
    "since": ("--since", _A_TIME),
    "until": ("--until", _A_TIME),
    "text": ("--grep", "a text of one character or more"),
}
"""The options that are conditions, and what each takes."""

_GLOBS = ("apps", "runs", "edges", "sources")
"""They may hold several, with commas between them, and spaces around them do not count."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a command that reads lines was asked for."""

    selection: Selection
    found: Found


def filter_options(*, text: bool = True, notices: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the filters; without `text` it takes that one in another way."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*_FILTERS, *((_TEXT,) if text else ()), *((_NOTICES,) if notices else ()))):
            command = option(command)
        return command

    return add


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument PLACE, and the options that say which relay or file is meant without one."""
    command = place_options("config", "host", "port", "journal")(command)
    command = click.option(
        "--token-file",
        metavar="PATH",
        help="File that holds the token to show, and nothing else.",
        shell_complete=complete_file,
    )(command)
    return click.argument("place", required=False, metavar="[URL|FILE]", shell_complete=complete_file)(command)


def colour_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option --color."""
    return click.option(
        "--color",
        "colour",
        type=click.Choice(["auto", "always", "never"], case_sensitive=False),
        default="auto",
        show_default=True,
        help="Colours; auto: on a terminal, unless NO_COLOR is set.",
    )(command)


def selection_of(given: dict[str, Any], *, until_name: str = "until") -> Selection:
    """Take the filters out of what was given, and check them. Raises ConfigError.

    An option that is empty is refused, not passed over: most often it is a variable of a script that is not set, and
    without the condition much more would be shown, or deleted, than was meant.
    """
    from logrelay.terminal.selection import Selection  # noqa: PLC0415

    for name, (option, allowed) in _ALLOWED.items():
        value = given.get(name)
        for one in value if isinstance(value, tuple) else () if value is None else (value,):
            if not (one.replace(",", " ").strip() if name in _GLOBS else one):
                said = until_name if name == "until" and until_name.startswith("--") else option
                raise ConfigError(f"{said} is empty; allowed: {allowed}")
    names = ("level", "apps", "runs", "edges", "sources", "text", "where", "since", "until", "notices")
    chosen: dict[str, Any] = {name: value for name in names if (value := given.pop(name, None))}
    selection = Selection(**chosen)
    selection.check(time.time_ns() // 1000, until_name=until_name)
    return selection


@contextmanager
def reading(given: dict[str, Any], *, history: bool = False) -> Iterator[Reading]:
    """Find what a command reads from; `given` are the values of its filter and source options.

    Ends the process with 0 when nobody reads its output any more. Raises RelayError.
    """
    selection = selection_of(given)
    place, token_file = given.pop("place"), given.pop("token_file")
    effective = read_settings(given, serving=False)
    from logrelay.terminal.finding import find  # noqa: PLC0415
    from logrelay.terminal.output import discard_stdout  # noqa: PLC0415

    token = effective.config.token if token_file is None else read_token(token_file)
    try:
        found = find(place, effective.config, journal_path(effective), token, history=history)
        if found.note:
            print_stderr(found.note)
        selection = selection.or_else(found.given)
        selection.check(time.time_ns() // 1000)
        yield Reading(selection, found)
    except BrokenPipeError:
        discard_stdout()
        sys.exit(0)


def read_token(path: str) -> str:
    """Return the token in a file. Raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is not a text in ASCII"
        raise ConfigError(
            f"the token file {path} cannot be read: {why}; --token-file takes the path of a file with a token and "
            "nothing else, which logrelay token add NAME prints"
        ) from None
    if not text or any(c.isspace() for c in text):
        raise ConfigError(f"{path} does not hold a token and nothing else; logrelay token add NAME prints one")
    return text
