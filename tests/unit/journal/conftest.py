"""Lines, clocks and journals."""

from __future__ import annotations

from tests.support.journals import clock, fill, journal_at, line, lines, run, until

__all__ = ["clock", "fill", "journal_at", "line", "lines", "run", "until"]
