"""Puts together what collects the lines of other machines.

Owns: the parts of collecting, made of the settings. It is what `app` knows of them, and what imports them when they are
asked for. It must not know what goes through. Read `collector` next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from logrelay.config.settings import Config
from logrelay.machines.collection import Collection
from logrelay.machines.collector import Collector, Sink
from logrelay.machines.edges import Edges
from logrelay.machines.nats_link import HUB_INBOX, forwarding, load_client, nats_settings, tls_context
from logrelay.machines.overview import LinkCounters, Overview
from logrelay.model import CollectedRow


class Collecting:
    """A collection, and the collector that feeds it. Belongs to the relay's loop."""

    def __init__(self, overview: Overview, make_collector: Callable[[Sink], Collector]) -> None:
        self.overview = overview
        """What is shown of the machines."""
        self._make_collector = make_collector
        self._collector: Collector | None = None

    def start(self, sink: Sink) -> None:
        """Begin; lines go to `sink`."""
        self._collector = self._make_collector(sink)
        self._collector.start()

    async def stop(self) -> None:
        """Collect no more."""
        if self._collector is not None:
            await self._collector.stop()


def make_collecting(
    config: Config, *, host: str
) -> Callable[[Sequence[CollectedRow], asyncio.AbstractEventLoop], Collecting]:
    """Return what makes the collecting, of what opening the journal has returned.

    `host` names this machine, whose own lines are not collected where it forwards them. Raises ConfigError for what can
    be known beforehand: a file that cannot be read, a package that is not installed.
    """
    settings = nats_settings(config, config.collect)
    own_edge = forwarding(config, host)[1] if config.forward else None
    load_client()
    tls_context(settings)

    def make(rows: Sequence[CollectedRow], loop: asyncio.AbstractEventLoop) -> Collecting:
        collection, link = Collection(rows), LinkCounters()
        edges = Edges(collection.edges(), mono=loop.time())

        def make_collector(sink: Sink) -> Collector:
            return Collector(
                settings,
                sink,
                collection,
                edges,
                link,
                loop=loop,
                inbox=HUB_INBOX,
                random=random.random,
                own_edge=own_edge,
            )

        return Collecting(Overview(collection, edges, link), make_collector)

    return make
