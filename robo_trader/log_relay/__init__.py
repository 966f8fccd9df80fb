"""Ships every log line to the relay; self-contained, and the bot cannot feel it.

Owns: nothing but the public names. The package imports only the standard library and msgpack; a structlog processor is
a callable, so structlog itself is not needed. Read `processor` next.
"""

from .processor import LogRelayProcessor
from .redaction import Redactor

__all__ = ["LogRelayProcessor", "Redactor"]
