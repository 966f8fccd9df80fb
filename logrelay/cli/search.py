"""`logrelay search`: finds lines in the whole history.

Owns: the command. It must not know how a journal is searched. Read `cli/export` next.
"""

from __future__ import annotations

import re
from typing import Any

import click

from logrelay.cli.line_options import colour_option, filter_options, reading, source_options
from logrelay.cli.output import print_stderr
from logrelay.errors import ConfigError

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

    TEXT may be left out: a last argument that begins with ws://, wss://, http:// or https://, or is a journal's file,
    says where to search. Reads from where `logrelay tail` reads; the journal's file
    itself where it is that of the running relay, which is not disturbed by it.

    Exit codes: those of `logrelay tail`.
    """
    from logrelay.terminal.history import newest  # noqa: PLC0415
    from logrelay.terminal.output import Output, Progress  # noqa: PLC0415

    if given["place"] is None and _is_place(given["text"]):
        given["place"], given["text"] = given["text"], None
    given["text"] = given["text"] or None  # '' is no condition, so that what a script searches for may be empty
    if around is not None:
        _refuse_times(given["since"], given["until"])
    progress = Progress("searching")
    with reading(given, history=True) as asked:
        if around is not None:
            _refuse_times(asked.selection.since, asked.selection.until)
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
        if not output.lines:
            begin, end = _moment(selection.since, "its oldest line"), _moment(selection.until, "its newest")
            print_stderr(
                f"nothing found in {source.name}, from {begin} to {end}; conditions go together, so leave one out, or "
                "give another --since and --until"
            )
        if limit is None and around is None and output.lines >= most:
            print_stderr(f"these are the newest {most:,}; --limit shows more, logrelay export all of them")


def _moment(given: str | None, otherwise: str) -> str:
    """Return a time as it was given, an age (`7d`) as one."""
    return f"{given} ago" if given and re.fullmatch(r"[0-9.]+[a-z]", given) else given or otherwise


def _is_place(argument: str) -> bool:
    """Tell whether the only argument names a relay or a journal, and not a text."""
    from logrelay.journal.journal_file import is_journal  # noqa: PLC0415
    from logrelay.terminal.relay import is_url  # noqa: PLC0415

    return is_url(argument) or is_journal(argument)


def _refuse_times(since: str | None, until: str | None) -> None:
    for option, given in (("--since", since), ("--until", until)):
        if given:
            raise ConfigError(
                f"{option} cannot go with --around, which shows the lines around one whenever they were logged: leave "
                "one of the two out"
            )
