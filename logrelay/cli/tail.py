"""`logrelay tail`: shows lines as they come.

Owns: the command, and the order of its steps: what there is, then what comes. It must not know how lines look or
travel. Read `cli/search` next.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from logrelay.cli.line_options import Reading, colour_option, filter_options, reading, source_options
from logrelay.cli.output import print_stderr
from logrelay.errors import JournalError

if TYPE_CHECKING:
    from logrelay.terminal.output import Output

DEFAULT_LINES = 10
"""What tail(1) shows, too."""

MOST_LINES = 100_000
"""As many as a viewer may begin with."""

POLL_S = 0.5
"""How often a journal's file is looked at for new lines, where no relay tells of them."""


@click.command()
@click.option(
    "-n",
    "--lines",
    "number",
    type=click.IntRange(0, MOST_LINES),
    metavar="N",
    help=f"Begin with the newest N lines.  [default: {DEFAULT_LINES}; with --since: all since then]",
)
@filter_options()
@click.option("--no-follow", is_flag=True, help="End behind the newest line; --until does that, too.")
@click.option("--json", "as_json", is_flag=True, help="Print each line as JSON, as viewers get it.")
@colour_option
@source_options
def tail(number: int | None, no_follow: bool, as_json: bool, colour: str, **given: Any) -> None:
    """Show the newest lines, then every new one, through restarts of the relay: none is missing, none comes twice.

    Reads from the relay at URL or from the journal in FILE; without either, from the relay of this machine's settings,
    and where none runs from its journal.

    Exit codes: 0 the end was reached or nobody reads any more, 130 Ctrl-C, 2 the command line is wrong, 4 the journal
    cannot be read, 5 there is neither relay nor journal, or the relay lets nobody in without a token.
    """
    from logrelay.terminal.output import Output  # noqa: PLC0415

    with reading(given) as asked:
        output = Output(colour=colour, as_json=as_json)
        after = _show_past(asked, output, number)
        if no_follow or asked.selection.until:
            return
        for line in _new_lines(asked, output, after):
            _show(line, output)
            output.flush()


def _show_past(asked: Reading, output: Output, number: int | None) -> str:
    """Show what there is; returns the id up to which was looked."""
    from logrelay.http.log_query import MAX_LIMIT  # noqa: PLC0415
    from logrelay.terminal.history import newest  # noqa: PLC0415

    limit = number if number is not None else (MAX_LIMIT if asked.selection.since else DEFAULT_LINES)
    head, lines = newest(asked.found.source, asked.selection, limit)
    for line in lines:
        _show(line, output)
    output.flush()
    return head


def _new_lines(asked: Reading, output: Output, after: str) -> Iterator[dict[str, object]]:
    from logrelay.terminal.relay import Follower, RelaySource  # noqa: PLC0415

    selection, source = asked.selection, asked.found.source
    if isinstance(source, RelaySource):
        follower = Follower(
            source.address,
            selection.live_query(),
            after,
            on_state=print_stderr,
            on_traders=_show_traders,
            is_over=output.is_gone,
        )
        yield from follower.lines()
        return
    if asked.found.note:  # the file was not asked for
        print_stderr("new lines are shown when a relay writes them into it; Ctrl-C ends this")
    trouble = ""
    while not output.is_gone():
        try:
            answer = source.get(f"/logs?{selection.query(after=after, limit=MOST_LINES)}")
            answer.check()
            count = 0
            for line in answer.objects():
                count += 1
                after = str(line.get("id", after))
                yield line
            if count < MOST_LINES:
                after = answer.head
            trouble = ""
        except JournalError as error:  # a relay may be writing a new file in its place
            if str(error) != trouble:
                trouble = str(error)
                print_stderr(f"{trouble}; trying again")
        time.sleep(POLL_S)


def _show(line: Mapping[str, object], output: Output) -> None:
    if line.get("type") == "log":
        output.write_line(line)
    else:
        output.flush()
        print_stderr(str(line.get("message")))


def _show_traders(traders: list[Mapping[str, object]]) -> None:
    """Say on a terminal how the bots are; a bot's newest run counts."""
    from logrelay.http.summary import states_of  # noqa: PLC0415
    from logrelay.visible_text import visible  # noqa: PLC0415

    if not sys.stderr.isatty():
        return
    shown = ", ".join(f"{visible(app)} {visible(str(state))}" for app, state in states_of(traders).items())
    print_stderr(f"bots: {shown or 'none is known'}")
