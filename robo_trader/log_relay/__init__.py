"""Ships every log line to the relay; self-contained, and the bot cannot feel it.

Owns: nothing but the public name. Imports only the standard library, structlog's protocol (a callable) and
msgpack. Read `processor` next, then `plain`, `wire`, `outbox`, `link`.
"""

from .processor import LogRelayProcessor

__all__ = ["LogRelayProcessor"]
