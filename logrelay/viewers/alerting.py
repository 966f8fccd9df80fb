"""What the viewers' side needs of the alerts, and nothing else.

Owns: `AlertFacts`, the interface that the alerts offer, what stands for them where there are none, what goes on when
they begin or end, and what a holder of a limited token gets. It must not know who implements it. Read
`viewers/session` next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import NoReturn, Protocol

from logrelay.budgets import SILENCES_AT_ONCE, SILENCES_PER_S
from logrelay.errors import RequestError
from logrelay.ingest.token_bucket import TokenBucket


class AlertFacts(Protocol):
    """What is known of the alerts, and the silencing of bots. Called on the event loop."""

    def shown(self) -> Mapping[str, object]:
        """Return what /alerts answers, JSON-safe."""

    async def silence(self, app: str, for_s: float) -> None:
        """Send no alerts about bots that match a glob for so long, 0: end that; returns when it is written down.

        Raises RequestError. Cancelling ends the wait only.
        """

    def counters(self) -> Mapping[str, int | float]:
        """Return what is counted, by the names of `http.metrics.METRICS`."""


class NoAlerts:
    """Stands for the alerts where none are set up."""

    def shown(self) -> Mapping[str, object]:
        """Return that there are none."""
        return {
            "type": "alerts",
            "enabled": False,
            "running": False,
            "active": [],
            "silences": [],
            "services": [],
            "heartbeat": None,
        }

    async def silence(self, app: str, for_s: float) -> NoReturn:  # noqa: ARG002  (there is nothing to silence)
        """Say that there are none."""
        raise RequestError("alerts", "no alerts are set up here; --alert URL does that, see docs/alerts.md")

    def counters(self) -> Mapping[str, int | float]:
        """Return nothing: a metric without a value is left out."""
        return {}


class CurrentAlerts:
    """The alerts that there are now: reading the settings again may begin and end them.

    `mono` is a clock that never steps, in seconds.
    """

    def __init__(self, mono: Callable[[], float]) -> None:
        self._facts: AlertFacts = NoAlerts()
        self._mono = mono
        self._changes = TokenBucket(SILENCES_AT_ONCE, SILENCES_PER_S, mono())

    def use(self, facts: AlertFacts | None) -> None:
        """Ask these from now on; None: there are none."""
        self._facts = NoAlerts() if facts is None else facts

    def shown(self) -> Mapping[str, object]:
        """Return what /alerts answers, JSON-safe."""
        return self._facts.shown()

    async def silence(self, app: str, for_s: float) -> None:
        """See `AlertFacts`; raises RequestError also when it was asked for too often by all together."""
        wait_s = self._changes.wait_s(self._mono())
        if wait_s > 0:
            what = f"bots were silenced {SILENCES_AT_ONCE} times in a short time"
            raise RequestError("busy", f"{what}; ask again in {ceil(wait_s)} s")
        self._changes.take()
        await self._facts.silence(app, for_s)

    def counters(self) -> Mapping[str, int | float]:
        """See `AlertFacts`."""
        return self._facts.counters()


class LimitedAlerts(NoAlerts):
    """Stands for the alerts where the token has limits."""

    async def silence(self, app: str, for_s: float) -> NoReturn:  # noqa: ARG002
        """Say that this token may not."""
        raise RequestError("limited", "silencing a bot concerns everybody: it needs a token without limits")
