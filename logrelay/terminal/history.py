"""Lines of the past, asked for in parts where there are many.

Owns: how often to ask and where to go on. It must not know what becomes of the lines. Read `cli/line_options` next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from logrelay.http.log_query import MAX_LIMIT
from logrelay.terminal.finding import Source
from logrelay.terminal.selection import Selection

PART_LINES = 100_000
"""Lines of one answer when all are wanted: a minute of reading at most, after which the next part is asked for anew."""

BEGINNING = "0"
"""As a time: `since=0` makes an answer begin with the oldest line."""


def newest(
    source: Source,
    selection: Selection,
    limit: int,
    progress: Callable[[float | None], None] = lambda _share: None,
    **more: str,
) -> tuple[str, Iterator[dict[str, object]]]:
    """Return up to where was looked, and the newest `limit` lines, oldest first; errors among them as they are.

    `more` are other parameters of the request. Raises RelayError.
    """
    # Behind a time an answer begins with the oldest line, so which are the newest is known at its end.
    asked = MAX_LIMIT if selection.since else max(1, limit)
    answer = source.get(f"/logs?{selection.query(limit=asked, **more)}", progress)
    answer.check()
    lines = answer.objects()
    if not limit or selection.since:
        lines = iter(deque(lines, maxlen=limit))
    return answer.head, lines


def all_lines(
    source: Source, selection: Selection, progress: Callable[[float | None], None]
) -> Iterator[dict[str, object]]:
    """Give every line that passes, oldest first; errors among them as they are. Raises RelayError."""
    after = ""
    while True:
        whole = selection if selection.since else replace(selection, since=BEGINNING)
        answer = source.get(f"/logs?{whole.query(limit=PART_LINES, after=after)}", progress)
        answer.check()
        count = 0
        for line in answer.objects():
            if line.get("type") == "log":
                count += 1
                after = str(line["id"])
            yield line
        if count < PART_LINES:
            return
