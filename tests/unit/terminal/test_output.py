"""What goes to stdout, and the progress on stderr."""

from __future__ import annotations

import io
import json
import os

from logrelay.terminal.output import Output, Progress

LINE = {"type": "log", "id": "k-1", "level": "INFO", "source": "a", "message": "m", "context": {}, "timestamp":
        "2026-01-23T10:00:00.123456Z"}  # fmt: skip


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_colours_are_for_terminals_unless_they_are_asked_for():
    """NO_COLOR has the last word where nothing was said."""
    for colour, expected in (("auto", False), ("never", False), ("always", True)):
        stream = io.BytesIO()
        Output(colour=colour, stream=stream, environ={}).write_line(LINE)
        assert (b"\x1b[" in stream.getvalue()) == expected


def test_json_is_one_object_in_a_line():
    """As viewers get it."""
    stream = io.BytesIO()
    Output(as_json=True, colour="always", stream=stream, environ={}).write_line(LINE)
    assert stream.getvalue().endswith(b"}\n")
    assert json.loads(stream.getvalue()) == LINE


def test_it_is_noticed_that_nobody_reads_any_more():
    """Without writing anything: a quiet bot should not keep a command alive whose reader has ended."""
    read, write = os.pipe()
    with os.fdopen(write, "wb") as stream:
        output = Output(stream=stream, environ={})
        assert not output.is_gone()
        os.close(read)
        assert output.is_gone()
    assert not Output(stream=io.BytesIO(), environ={}).is_gone()


def test_progress_is_shown_late_and_taken_away_again():
    """Quick work shows nothing, nor does any work where stderr is a file."""
    now = [0.0]
    screen, file = Screen(), io.StringIO()
    progress, silent = (Progress("searching", stream, lambda: now[0]) for stream in (screen, file))
    progress(0.1, 5)
    assert screen.getvalue() == ""
    for now[0], share in ((2.0, 0.5), (2.01, 0.6), (3.0, None)):
        progress(share, 1234)
        silent(share, 1234)
    progress.clear()
    progress.clear()

    assert screen.getvalue() == (
        "\r\x1b[Ksearching [############------------]  50%  1,234 lines\r\x1b[Ksearching ... 1,234 lines\r\x1b[K"
    )
    assert file.getvalue() == ""
