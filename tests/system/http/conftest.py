"""Real relays for HTTP and the browser."""

from __future__ import annotations

from tests.support.http import relay, start

__all__ = ["relay", "start"]
