"""Whoever has a limited token gets what it allows, whatever is asked for and by whatever way."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace

from logrelay.fanout.filters import Filter, Limit
from logrelay.http.api import RelayFacts
from logrelay.journal.interface import Page, Query
from logrelay.viewers.narrowed import TROUBLE, NarrowedFacts, NarrowedStream
from logrelay.viewers.stream import Stream
from tests.support.streams import FakeStream

LIMIT = Limit(30, ("x.*",), ("bot*",))
ASKED = Filter(20, ("y",), "text", (("a", "b"),), ("other",))
TRADERS = [{"app": "bot1"}, {"app": "other"}, {}]


class Everything(FakeStream):
    def traders_shown(self):
        return TRADERS


EDGES = [
    {"edge": "berlin", "state": "reachable", "since": None, "version": "1", "trouble": "/var is full"},
    {"edge": "paris", "state": "reachable", "since": None},
]


def test_of_machines_those_are_shown_that_have_a_bot_which_may_be_seen():
    """And of them no more than whether they are heard; a relay that collects nothing shows no list at all."""
    stream = Everything()
    stream.edges = EDGES
    stream.traders_shown = lambda: [{"app": "bot1", "edge": "berlin"}, {"app": "other", "edge": "paris"}]
    shown = [{"edge": "berlin", "state": "reachable", "since": None}]

    assert NarrowedStream(stream, LIMIT).edges_shown() == shown
    assert NarrowedStream(Everything(), LIMIT).edges_shown() is None
    facts = SimpleNamespace(status=lambda: {"traders": stream.traders_shown(), "edges": EDGES, "journal": {}})
    assert NarrowedFacts(facts, LIMIT).status()["edges"] == shown


def test_every_way_of_the_stream_is_narrowed():
    """A filter that goes in is narrowed; what has no filter is cut or the same for everybody."""
    stream = Everything(trouble="/var/secret is full")
    narrowed = NarrowedStream(stream, LIMIT)
    viewer = narrowed.join(None, ASKED, "single")
    narrowed.change(viewer, Filter())
    narrowed.resubscribe(viewer, ASKED)
    asyncio.run(_read(narrowed))
    filters = [value for call in stream.calls for value in call if isinstance(value, Filter)]
    filters += [query.filter for query in stream.queries]
    assert filters == [ASKED.within(LIMIT), Filter().within(LIMIT), ASKED.within(LIMIT), ASKED.within(LIMIT)]
    assert narrowed.traders_shown() == TRADERS[:1]
    assert (narrowed.trouble, narrowed.counters()) == (TROUBLE, {})
    assert NarrowedStream(Everything(), LIMIT).trouble is None


async def _read(narrowed):
    await narrowed.read(Query(0, 10, 10, ASKED))


def test_nothing_of_the_stream_is_forgotten():
    """A way that is added to the stream, or to the facts, has to be narrowed as well: none goes through by itself."""
    for interface, narrowed in ((Stream, NarrowedStream), (RelayFacts, NarrowedFacts)):
        names = {name for name, _ in inspect.getmembers(interface) if not name.startswith("_")}
        assert len(names) > 5
        assert names - vars(narrowed).keys() == set()
        assert not hasattr(narrowed, "__getattr__")


def test_the_facts_are_cut():
    """Of the status the traders that may be seen, and whether there is trouble; of the numbers nothing."""
    queries = []

    async def read(query):
        queries.append(query)
        return Page([], [], 0, complete=True, oldest=1)

    status = {"version": "1", "viewers": 3, "journal": {"trouble": "/var/secret", "bytes": 5}, "traders": TRADERS}
    facts = SimpleNamespace(
        id_of=lambda seq: f"k3f9ab-{seq}", head=7,
        status=lambda: status, ready=lambda: True, counters=lambda: {"lines_total": 7},
        read=read, resolve=lambda id_: 4,
    )  # fmt: skip
    narrowed = NarrowedFacts(facts, LIMIT)
    assert narrowed.status() == {"journal": {"trouble": TROUBLE}, "traders": TRADERS[:1]}
    assert narrowed.counters() == {}
    assert narrowed.limited
    assert (narrowed.id_of(5), narrowed.head, narrowed.ready(), narrowed.resolve("x")) == ("k3f9ab-5", 7, True, 4)
    asyncio.run(narrowed.read(Query(0, 7, 3, ASKED)))
    assert queries == [Query(0, 7, 3, ASKED.within(LIMIT))]
    status |= {"journal": {"trouble": None}}
    assert narrowed.status()["journal"] == {"trouble": None}


def test_a_filter_is_narrowed_once():
    """The same limit again changes nothing, and equal wishes of two tokens with equal limits are equal."""
    once = ASKED.within(LIMIT)
    assert once.within(Limit(30, ("x.*",), ("bot*",))) is once
    assert once == ASKED.within(Limit(30, ("x.*",), ("bot*",)))
    assert hash(once) == hash(ASKED.within(LIMIT))
    assert once.level == 30
    assert Filter(50).within(LIMIT).level == 50
    assert ASKED.within(Limit()) is ASKED
    assert not Filter().within(LIMIT).everything
    assert not Filter().within(Limit(apps=("a",))).everything
