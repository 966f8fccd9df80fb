"""A service over a list of lines."""

from __future__ import annotations

from tests.support.http import api, facts, lines

__all__ = ["api", "facts", "lines"]
