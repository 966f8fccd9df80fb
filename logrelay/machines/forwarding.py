"""Puts together what forwards the lines of a relay.

Owns: the parts of forwarding, made of the settings. It is what `app` knows of them, and what imports them when they are
asked for. It must not know what goes through. Read `line_feed` next.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

import orjson

from logrelay.config.settings import Config
from logrelay.fanout.positions import Epochs
from logrelay.journal.interface import Opening
from logrelay.machines.forwarder import Forwarder
from logrelay.machines.line_feed import LineFeed, Source
from logrelay.machines.nats_link import forwarding, load_client, tls_context


class Forwarding:
    """A feed and the forwarder that takes from it. Belongs to the relay's loop."""

    def __init__(self, feed: LineFeed, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self.start = forwarder.start
        self.committed = feed.committed

    def counters(self) -> Mapping[str, int | float]:
        """Return what is counted, by the names in `http.metrics.METRICS`."""
        return self._forwarder.counters()

    def link_shown(self) -> Mapping[str, object]:
        """Return how the connection to the servers is, as health checks are told of it."""
        return self._forwarder.link_shown()

    def stop(self, grace_s: float) -> None:
        """Send what is committed as long as that takes no longer than `grace_s`, then end. Blocks."""
        self._forwarder.stop(grace_s)


def make_forwarding(
    config: Config, *, host: str, random_text: Callable[[int], str], version: str
) -> Callable[[Opening, Source, asyncio.AbstractEventLoop], Forwarding]:
    """Return what makes the forwarding of what opening the journal has returned, once the pipeline is there.

    `host` names this machine. Raises ConfigError for what can be known
    beforehand: a file that cannot be read, a package that is not installed.
    """
    settings, edge = forwarding(config, host)
    load_client()
    tls_context(settings)

    def make(opening: Opening, source: Source, loop: asyncio.AbstractEventLoop) -> Forwarding:
        feed = LineFeed(source, head=opening.head, oldest=opening.oldest, loop=loop, clock=time.monotonic)
        forwarder = Forwarder(
            settings,
            edge,
            feed,
            noted=opening.forwarded,
            epochs=Epochs(opening.earlier, opening.epoch, opening.head + 1),
            random_text=random_text,
            random=random.random,
            version=version,
            now_us=lambda: time.time_ns() // 1000,
            is_collected=_is_collected,
        )
        return Forwarding(feed, forwarder)

    return make


def _is_collected(body: bytes) -> bool:
    """Tell whether a line came from another machine: it says from which."""
    return b'"edge":"' in body and "edge" in orjson.loads(body)
