"""When an alert that was not delivered is tried again, and when it is given up.

Owns: these times. Pure. Read `alerts/delivery` next.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

FIRST_S, LONGEST_S = 5.0, 600.0
"""Between two attempts: a service that restarts is back in seconds; one that is down for an hour is asked ten times."""

MAX_AGE_S = 86_400.0
"""After a day an alert is history; the log has it anyway. One in doubt has the time besides that it waits for."""

MAX_DOUBTS = 3
"""Attempts that nobody answered after which an alert is given up: the first and two more. A service that takes each
message and never says so would otherwise ring for a day."""

MAX_WAITING = 200
"""Alerts that wait for one service, half a kilobyte each: ten hours of a rule at its most."""

MAX_RETRY_AFTER_S = 6 * 3600.0
"""A service that wants to be left alone for longer is asked all the same."""


CLOCK_S = 60.0
"""An alert that was made so far in the future was made before the clock was set back; less is a correction of it."""


def due_at(due: float, made_at: float, tries: int, cooldown_s: float, now: float) -> float:
    """Return when an alert is due; at once where the clock was set back and the time it has waits for nothing."""
    longest_s = max(cooldown_s, MAX_RETRY_AFTER_S) if tries else 0.0
    return now if made_at > now + CLOCK_S and due > now + longest_s else due


def delay_s(tries: int, retry_after_s: float | None, jitter: float) -> float:
    """Return how long to wait after so many attempts; `jitter` from 0 to 1 spreads those of many relays.

    What the service asks for (Retry-After) is the least.
    """
    wait_s = min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 20)) * (1.0 + jitter / 4)
    return max(wait_s, min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))


def retry_after_s(value: str | None, now: float) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None: there is none."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now)
