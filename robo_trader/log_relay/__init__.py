"""Ships every log line to the relay; self-contained, and the bot cannot feel it.

Owns: nothing but the public names. The package imports only the standard library and msgpack; a structlog processor is
a callable, so structlog itself is not needed. `LogRelayHandler` is imported when it is asked for: a bot that does not
use the logging module gets none of it. Read `handler` next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .processor import LogRelayProcessor
from .redaction import Redactor

if TYPE_CHECKING:
    from .handler import LogRelayHandler

__all__ = ["LogRelayHandler", "LogRelayProcessor", "Redactor"]


def __getattr__(name: str) -> Any:
    if name != "LogRelayHandler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .handler import LogRelayHandler  # noqa: PLC0415 - see the docstring

    globals()[name] = LogRelayHandler
    return LogRelayHandler
