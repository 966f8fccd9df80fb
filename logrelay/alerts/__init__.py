"""Alerts: what is worth waking somebody for, and its way to a phone. Read `alerts/engine` next."""
