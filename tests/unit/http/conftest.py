"""A service over a list of lines."""

from __future__ import annotations

from tests.support.http import desk, lines, pages

__all__ = ["desk", "lines", "pages"]
