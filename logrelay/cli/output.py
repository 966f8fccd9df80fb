"""How the commands write to a person.

Owns: the form of every line on stderr, errors and warnings alike: one line that begins with the program's name. stdout
is for data, and each command prints its own; and how a list of commands looks on a help page. It must not know any
command. Read `cli/group` next.
"""

from __future__ import annotations

import click


def print_stderr(text: str) -> None:
    """Print one line for a person on stderr."""
    click.echo(f"logrelay: {text}", err=True)


WHOLE_CHARS = 1_000
"""Characters of what is said of a command in a list: more than any has, so that none is cut."""


class ListedCommands(click.Group):
    """A group whose help page says of each command what it does, in as many lines as that takes; click cuts it."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(WHOLE_CHARS)) for name, one in found if one and not one.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
