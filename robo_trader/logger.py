"""What a bot imports: `setup_structlog()` once at its start, `get_logger(name)` wherever it logs.

Owns: these names, and nothing else. Everything behind them may move; this import path does not. Nothing happens at
import: no thread, no socket, no configuration. A line's way begins here. Read `logging/chain` next.
"""

from __future__ import annotations

from robo_trader.log_relay import LogRelayProcessor
from robo_trader.logging.chain import EXCLUDED, get_logger, reset_structlog, setup_structlog

__all__ = ["EXCLUDED", "LogRelayProcessor", "get_logger", "reset_structlog", "setup_structlog"]
