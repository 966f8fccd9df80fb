"""Real relays for HTTP and the browser."""

from __future__ import annotations

from tests.support.browser import chromium, open_phone, phone, tall
from tests.support.http import relay, start

__all__ = ["chromium", "open_phone", "phone", "relay", "start", "tall"]
