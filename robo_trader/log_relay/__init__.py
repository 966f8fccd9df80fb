"""Ships every log line to the relay; self-contained, and the bot cannot feel it.

Owns: nothing but the public name. The package imports only the standard library and msgpack; a structlog processor is
a callable, so structlog itself is not needed. Read `processor` next.
"""

from .processor import LogRelayProcessor

__all__ = ["LogRelayProcessor"]
