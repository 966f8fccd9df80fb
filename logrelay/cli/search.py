"""`logrelay search`: finds lines in the whole history.

Owns: the command. It must not know how a journal is searched. Read `cli/export` next.
"""

from __future__ import annotations

from typing import Any

import click

from logrelay.cli.line_options import colour_option, filter_options, reading, source_options
from logrelay.cli.output import print_stderr

DEFAULT_LIMIT = 1000
"""Lines that a person scrolls through; it is said when there may be more."""

AROUND_LINES = 20
"""Lines shown around one: half a screen before it and half a screen behind it."""


@click.command()
@click.argument("text", required=False, default="")
@filter_options(text=False)
@click.option("--around", metavar="ID", help="Show the line with this id, and the lines around it.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help=f"At most so many lines, the newest ones.  [default: {DEFAULT_LIMIT}; with --around: {AROUND_LINES}]",
)
@click.option("--json", "as_json", is_flag=True, help="Print each line as JSON, as viewers get it.")
@colour_option
@source_options
def search(around: str | None, limit: int | None, as_json: bool, colour: str, **given: Any) -> None:
    """Find the lines with TEXT in the message or in a value, oldest first.

    TEXT may be left out where other conditions are given. Reads from where `logrelay tail` reads; the journal's file
    itself where it is that of the running relay, which is not disturbed by it.

    Exit codes: those of `logrelay tail`.
    """
    from logrelay.terminal.history import newest  # noqa: PLC0415
    from logrelay.terminal.output import Output, Progress  # noqa: PLC0415

    progress = Progress("searching")
    with reading(given, history=True) as asked:
        output = Output(colour=colour, as_json=as_json, before_write=progress.clear)
        source, selection = asked.found.source, asked.selection
        most = limit or (AROUND_LINES if around else DEFAULT_LIMIT)

        def show_progress(share: float | None) -> None:
            progress(share, output.lines)

        more = {} if around is None else {"around": around}
        try:
            _, lines = newest(source, selection, most, show_progress, **more)
            for line in lines:
                if line.get("type") == "log":
                    output.write_line(line)
                else:
                    progress.clear()
                    print_stderr(str(line.get("message")))
            output.flush()
        finally:
            progress.clear()
        if limit is None and around is None and output.lines >= most:
            print_stderr(f"these are the newest {most:,}; --limit shows more, logrelay export all of them")
