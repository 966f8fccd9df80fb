"""logrelay: every log line of an unattended trading bot on its owner's phone.

This package is the relay daemon. It never imports the trader (`robo_trader`), and the trader never
imports it: what they share is `docs/protocol.md`. Read `ingest` next to follow a line through the relay.
"""

__version__ = "0.1.0"
