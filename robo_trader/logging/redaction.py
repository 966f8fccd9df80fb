"""The redaction as steps of the chain.

Owns: which steps the chain takes for the redactor that a bot asked for, and the names under which a bot imports it.
The redactor itself is part of `log_relay`, which can be copied into another bot and has to bring it.
Read `tracebacks` next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from robo_trader.log_relay.known_secrets import from_environment
from robo_trader.log_relay.redaction import MAX_NODES, MAX_TEXT, Redactor
from robo_trader.log_relay.secret_rules import Rules
from robo_trader.log_relay.secret_shapes import MARK

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = [
    "MARK",
    "MAX_NODES",
    "MAX_TEXT",
    "Redactor",
    "Rules",
    "from_environment",
    "redaction_of_reports",
    "redaction_steps",
    "text_redaction",
]


def redaction_steps(redactor: Processor | None) -> list[Processor]:
    """Return the steps that take the secrets out of an event: the default redactor if None is given.

    Behind a processor of the bot's own comes one that hides the secrets of the environment wherever they are left: they
    are known for certain, whatever rules the bot prefers for the rest.
    """
    if redactor is None:
        return [Redactor()]
    if isinstance(redactor, Redactor):
        return [redactor]
    return [redactor, Redactor(known_only=True)]


def redaction_of_reports(steps: list[Processor], logger: Any) -> Redactor | Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what does to the report of an exception, which passes no chain, what `steps` do to the lines of one.

    `logger` is what a processor of the bot's own is given as the logger.
    """
    first = steps[0]
    if isinstance(first, Redactor):
        return first

    def redact(event: dict[str, Any]) -> Any:
        line = {"level": "critical", "logger": logger.name, **event}
        try:
            return first(logger, "critical", line)
        except structlog.DropEvent:
            return {}

    return redact


def text_redaction(redactor: Processor | None) -> Callable[[str], str]:
    """Return what takes the secrets out of a text that is no event, such as a traceback on stderr."""
    return redactor.text if isinstance(redactor, Redactor) else Redactor().text
