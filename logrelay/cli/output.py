"""How the commands write to a person.

Owns: the form of every line on stderr, errors and warnings alike: one line that begins with the program's name. stdout
is for data, and each command prints its own. It must not know any command. Read `cli/group` next.
"""

from __future__ import annotations

import click


def print_stderr(text: str) -> None:
    """Print one line for a person on stderr."""
    click.echo(f"logrelay: {text}", err=True)
