"""The redaction as a step of the chain.

Owns: the names under which the chain and a bot import the redactor. The redactor itself is part of `log_relay`, which
can be copied into another bot and has to bring it. Read `tracebacks` next.
"""

from __future__ import annotations

from robo_trader.log_relay.redaction import MAX_NODES, MAX_TEXT, Redactor
from robo_trader.log_relay.secret_rules import MARK, Rules, from_environment

__all__ = ["MARK", "MAX_NODES", "MAX_TEXT", "Redactor", "Rules", "from_environment"]
