"""A recorder in the relay's place, and a real socket."""

from __future__ import annotations

from tests.support.chains import _clean, chain, python, relay

__all__ = ["_clean", "chain", "python", "relay"]
