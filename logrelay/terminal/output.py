"""Where a command's lines go: a terminal, a pipe or a file.

Owns: what stdout can show (colours, width), writing whole lines to it, noticing that nobody reads any more, and the
progress of long work on stderr. It must not know what a line says. Read `terminal/rendering` next.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO

import orjson

from logrelay.terminal.rendering import DIM, RESET, Form, day_of, render

PROGRESS_AFTER_S = 1.0
"""Work that is done sooner shows no progress: it would only flicker."""

PROGRESS_EVERY_S = 0.1
BAR_COLUMNS = 24


class Output:
    """Writes lines to stdout. A reader that is gone is noticed, not an error."""

    def __init__(
        self,
        *,
        colour: str = "auto",
        as_json: bool = False,
        stream: IO[bytes] | None = None,
        environ: Mapping[str, str] = os.environ,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        """`colour` is auto, always or never; `before_write` is called before something is written to a terminal."""
        self._stream = sys.stdout.buffer if stream is None else stream
        self._as_json = as_json
        self._terminal = self._stream.isatty()
        wanted = self._terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        self._colours = wanted if colour == "auto" else colour == "always"
        self._before_write = before_write if self._terminal else lambda: None
        self._day = ""
        self.lines = 0
        """How many lines were written."""

    def form(self) -> Form:
        """Return what can be shown now; a window may change its width at any time."""
        if not self._terminal:
            return Form(colours=self._colours)
        zone = datetime.now(UTC).astimezone().tzinfo or UTC
        return Form(self._colours, shutil.get_terminal_size().columns, zone)

    def write_line(self, line: Mapping[str, object]) -> None:
        """Write one line of the log, on a terminal with its day before it where that is another one.

        Raises BrokenPipeError when nobody reads any more, as every method that writes does.
        """
        self.lines += 1
        if self._as_json:
            self.write(orjson.dumps(line) + b"\n")
            return
        form, head = self.form(), ""
        if form.columns:
            day = day_of(line, form.zone)
            if day and day != self._day:
                self._day = day
                head = f"{DIM}-- {day}{RESET}\n" if form.colours else f"-- {day}\n"
        self.write_text(head + render(line, form))

    def write_text(self, text: str) -> None:
        """Write a text and a line break."""
        self.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._before_write()
        self._stream.write(data)

    def flush(self) -> None:
        """Have what was written arrive."""
        self._stream.flush()

    def is_gone(self) -> bool:
        """Tell whether nobody reads any more, without writing anything."""
        try:
            looked = select.poll()
            looked.register(self._stream.fileno(), 0)
            return any(events & (select.POLLERR | select.POLLNVAL) for _, events in looked.poll(0))
        except (OSError, ValueError, AttributeError):  # no descriptor, or none that can be asked
            return False


def discard_stdout() -> None:
    """Have what is left in stdout's buffer go nowhere: at the end it would fail once more, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)


class Progress:
    """How far a long work is, on stderr where that is a terminal, and only once it takes long."""

    def __init__(self, what: str, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`what` is done, in a word; `clock` counts seconds."""
        self._what, self._clock = what, clock
        self._stream = sys.stderr if stream is None else stream
        self._shown = False
        self._next = clock() + PROGRESS_AFTER_S if self._stream.isatty() else float("inf")

    def __call__(self, share: float | None, count: int) -> None:
        """Show that `share` (0 to 1; None: it cannot be known) of the work is done, and `count` lines were found."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + PROGRESS_EVERY_S
        found = f"{count:,} lines"
        if share is None:
            text = f"{self._what} ... {found}"
        else:
            filled = round(BAR_COLUMNS * share)
            text = f"{self._what} [{'#' * filled}{'-' * (BAR_COLUMNS - filled)}] {share:4.0%}  {found}"
        width = shutil.get_terminal_size().columns
        self._stream.write(f"\r\x1b[K{text[: width - 1]}")
        self._stream.flush()
        self._shown = True

    def clear(self) -> None:
        """Take away what is shown."""
        if self._shown:
            self._shown = False
            self._stream.write("\r\x1b[K")
            self._stream.flush()
