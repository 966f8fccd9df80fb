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
        read=read, resolve=lambda id_: {"x": 4}[id_],
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


class Recorder:
    """Answers everything by its name, and keeps what it was called with; `values` are attributes, the rest methods."""

    def __init__(self, *values):
        self.values, self.calls = values, []

    def __getattr__(self, name):
        if name in self.values:
            return f"value of {name}"

        def call(*given, **named):
            self.calls.append((name, given, named))
            return f"answer of {name}"

        return call


def test_what_has_no_filter_goes_through_as_it_is():
    """With every argument, and with its answer."""
    values = [name for name, kind in vars(NarrowedStream).items() if isinstance(kind, property) and name != "trouble"]
    stream = Recorder(*values)
    narrowed = NarrowedStream(stream, LIMIT)
    assert {name: getattr(narrowed, name) for name in values} == {name: f"value of {name}" for name in values}
    assert len(values) == 8, "all but trouble"
    gap, seq = object(), object()
    narrowed.start_after("viewer", 5, gap)
    narrowed.start_after("viewer", 6)
    narrowed.start_tail("viewer", 7, 8)
    narrowed.start_tail("viewer", 9)
    narrowed.keep_device(1, "owner", "name", seq, connected=True, sure=4)
    narrowed.keep_device(2, "owner", "name", seq, connected=False)
    narrowed.leave("viewer")
    narrowed.drained("viewer")
    assert stream.calls == [
        ("start_after", ("viewer", 5, gap), {}),
        ("start_after", ("viewer", 6, None), {}),
        ("start_tail", ("viewer", 7, 8), {}),
        ("start_tail", ("viewer", 9, None), {}),
        ("keep_device", (1, "owner", "name", seq), {"connected": True, "sure": 4}),
        ("keep_device", (2, "owner", "name", seq), {"connected": False, "sure": 0}),
        ("leave", ("viewer",), {}),
        ("drained", ("viewer",), {}),
    ]
    stream.calls.clear()
    for name, given in (
        ("received", "viewer"),
        ("id_of", 5),
        ("resolve", "id"),
        ("render_gap", gap),
        ("lines_at", [1]),
    ):
        assert getattr(narrowed, name)(given) == f"answer of {name}"
        assert stream.calls.pop() == (name, (given,), {})
    assert narrowed.app_samples() == {}


def test_a_viewer_joins_as_it_asked_but_for_what_it_may_see():
    """And counts are of what it may see."""
    stream = Recorder()
    narrowed = NarrowedStream(stream, LIMIT)
    assert narrowed.join("sink", ASKED, "batch", deflate=True) == "answer of join"
    narrowed.join("sink", ASKED, "single")
    assert narrowed.summarize(Query(0, 9, 1, ASKED)) == "answer of summarize"
    inside = ASKED.within(LIMIT)
    assert stream.calls == [
        ("join", ("sink", inside, "batch"), {"deflate": True}),
        ("join", ("sink", inside, "single"), {"deflate": False}),
        ("summarize", (Query(0, 9, 1, inside),), {}),
    ]


def test_of_the_facts_too_what_has_no_filter_goes_through():
    """Alerts and numbers with labels are about everybody's bots: there are none."""
    facts = Recorder("oldest")
    asked = []

    async def answer(given):
        asked.append(given)
        return "answer"

    facts.summarize = facts.lines_at = answer
    narrowed = NarrowedFacts(facts, LIMIT)
    assert narrowed.oldest == "value of oldest"
    assert (narrowed.alerts(), narrowed.labelled()) == (None, {})
    assert asyncio.run(narrowed.summarize(Query(0, 9, 1, ASKED))) == "answer"
    assert asyncio.run(narrowed.lines_at([1, 2])) == "answer"
    assert asked == [Query(0, 9, 1, ASKED.within(LIMIT)), [1, 2]]


def test_a_status_without_lists_is_cut_as_well():
    """Whatever a relay leaves out of it."""
    status = {"journal": "?", "traders": "?", "edges": "?"}
    assert NarrowedFacts(SimpleNamespace(status=lambda: status), LIMIT).status() == {
        "journal": {"trouble": None},
        "traders": [],
    }
    assert NarrowedFacts(SimpleNamespace(status=dict), LIMIT).status() == {"journal": {"trouble": None}, "traders": []}


def test_a_trader_without_a_name_is_nobodys_bot():
    """It is shown to whoever may see bots without one, and not to whoever may see any that has one."""
    facts = SimpleNamespace(status=lambda: {"traders": TRADERS})
    for apps, shown in ((("?*",), TRADERS[:2]), (("*",), TRADERS)):
        assert NarrowedStream(Everything(), Limit(apps=apps)).traders_shown() == shown
        assert NarrowedFacts(facts, Limit(apps=apps)).status()["traders"] == shown


def test_of_trouble_no_more_is_said_than_that_there_is_some():
    """The reason names files and disks of the machine."""
    assert NarrowedStream(Everything(trouble="/var/secret is full"), LIMIT).trouble == "it cannot be written"
