"""B1 to B6: what becomes of values, seen from the relay's side of the socket."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pathlib
import threading
import time
import types
import uuid
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.threads import running
from tests.support.waiting import DEADLINE_S

TOKYO = dt.timezone(dt.timedelta(hours=9))


class Side(enum.Enum):
    BUY = 1


class Grade(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):  # noqa: UP042 - the old way is what is tested
    YES = "yes"


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise ValueError

    __repr__ = __str__


class Price(float):
    def __repr__(self):
        raise ValueError


@dataclasses.dataclass
class Order:
    symbol: str
    price: decimal.Decimal
    secret: str = dataclasses.field(default="x", repr=False)


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024


class NumpyFloat(float):
    __module__ = "numpy"


NumpyInt = type("int64", (), {"__module__": "numpy", "shape": (), "item": lambda self: 42})
NumpyArray = type(
    "ndarray",
    (),
    {"__module__": "numpy", "shape": (2,), "size": 2, "tolist": lambda self: [1.5, 2.5], "dtype": "f8"},
)
BigArray = type("ndarray", (), {"__module__": "numpy", "shape": (9, 9999), "size": 89991, "dtype": "float64"})

TABLE = [
    (decimal.Decimal("187.2500"), "187.2500"),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=TOKYO), "2026-01-02T03:04:05.000006+09:00"),
    (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.time(1, 2), "01:02:00"),
    (dt.timedelta(seconds=5), "0:00:05"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (pathlib.Path("/a/b"), "/a/b"),
    (Side.BUY, "Side.BUY"),
    (Grade.HIGH, 3),
    (Word.YES, "yes"),
    ({1}, [1]),
    (frozenset({1}), [1]),
    (1 + 2j, "(1+2j)"),
    (Order("A", decimal.Decimal("1.10")), {"symbol": "A", "price": "1.10"}),
    (ValueError("no"), "ValueError: no"),
    (KeyError(), "KeyError"),
    (range(3), "range(0, 3)"),
    (int, "<class 'int'>"),
    (collections.deque([1, 2]), [1, 2]),
    (types.MappingProxyType({"a": 1}), {"a": 1}),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.Counter("aa"), {"a": 2}),
    (collections.ChainMap({"a": 1}), {"a": 1}),
    ({"a": 1}.keys(), ["a"]),
    (Point(1, 2), [1, 2]),
    ((1, (2,)), [1, [2]]),
    (Text("t"), "t"),
    (Price(1.5), 1.5),
    (NumpyFloat(2.5), 2.5),
    (NumpyInt(), 42),
    (NumpyArray(), [1.5, 2.5]),
    (BigArray(), "<ndarray shape (9, 9999) float64>"),
    (math.inf, math.inf),
    (b"\x00\xff", b"\x00\xff"),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"abc"), b"abc"),
    (memoryview(b"abcd")[::2], b"ac"),
    (2**64 - 1, 2**64 - 1),
    (-(2**63), -(2**63)),
    (2**64, str(2**64)),
    (-(2**63) - 1, str(-(2**63) - 1)),
    (True, True),
    (None, None),
    ("\ud800x", "\\ud800x"),
    ({"\udc80": "\udc81"}, {"\\udc80": "\\udc81"}),
    ({1: "a", "1": "b", (1, 2): "c", None: "d"}, {"1": "a", "1#2": "b", "[1, 2]": "c", "None": "d"}),
]


@pytest.mark.parametrize(("value", "shown"), TABLE, ids=lambda v: type(v).__name__)
def test_b1_table(ship, peer, value, shown, balanced):
    """Each kind of value, at the top and inside a list, arrives as the documentation says; no fault is
    counted."""
    processor = ship()
    processor(None, "info", {"event": "v", "v": value, "l": [value]})
    assert processor.flush(DEADLINE_S)
    (event,) = peer.events()
    assert event["v"] == shown
    assert type(event["v"]) is type(shown)
    assert event["l"] == [shown]
    assert balanced(processor)["degraded"] == 0


def test_b1_nan_and_hidden_keys(ship, peer):
    """NaN stays NaN, a generator is not consumed, and ProcessorFormatter's keys never leave the process."""
    generator = (x for x in (1, 2))
    processor = ship()
    event = {"event": "v", "nan": math.nan, "g": generator, "_record": object(), "_from_structlog": False}
    processor(None, "info", event)
    assert processor.flush(DEADLINE_S)
    (seen,) = peer.events()
    assert math.isnan(seen["nan"])
    assert seen["g"].startswith("<generator object")
    assert list(generator) == [1, 2]
    assert seen.keys() == {"event", "nan", "g"}


def test_b1_exc_info(ship, peer):
    """exc_info in all its forms becomes a traceback under `exception`; an exception that is text already
    stays."""
    processor = ship()
    try:
        raise ValueError("boom")
    except ValueError as error:
        kept = error
        for form in (True, error, (type(error), error, error.__traceback__)):
            processor(None, "error", {"event": "e", "exc_info": form})
        processor(None, "error", {"event": "e", "exc_info": True, "exception": "was here"})
    for form in (True, False, None, (None, None, None)):
        processor(None, "error", {"event": "e", "exc_info": form})
    processor(None, "error", {"event": "later", "exc_info": kept})
    assert processor.flush(DEADLINE_S)
    events = peer.events()
    assert all("exc_info" not in e for e in events)
    for event in (*events[:3], events[-1]):
        assert event["exception"].startswith("Traceback (most recent call last)")
        assert event["exception"].endswith("ValueError: boom")
    assert events[3]["exception"] == "was here"
    assert all("exception" not in e for e in events[4:8])


def test_b1_levels(ship, peer):
    """Every method name and level word ends as one of the five words; unknown ones are info, numbers find
    theirs."""
    record = types.SimpleNamespace(levelno=35)
    calls = [
        ("debug", {}, "debug"),
        ("warn", {}, "warning"),
        ("exception", {}, "error"),
        ("aexception", {}, "error"),
        ("ainfo", {}, "info"),
        ("fatal", {}, "critical"),
        ("msg", {}, "info"),
        ("err", {}, "error"),
        ("failure", {}, "error"),
        ("notice", {}, "info"),
        ("whatever", {}, "info"),
        ("INFO", {}, "info"),
        ("info", {"level": "error"}, "error"),
        ("info", {"level": 3}, "info"),
        ("error", {"level": "tier-1"}, "error"),
        ("error", {"level": []}, "error"),
        ("info", {"level": "CRITICAL"}, "critical"),
        ("level 17", {"level": "level 17"}, "debug"),
        ("level 41", {}, "error"),
        ("trade", {"_record": record}, "warning"),
        ("trade", {"level_number": 50}, "critical"),
        (None, {}, "info"),
        (5, {}, "info"),
    ]
    processor = ship()
    for method, extra, _ in calls:
        processor(None, method, {"event": "l", **extra})
    assert processor.flush(DEADLINE_S)
    (lines,) = peer.lines.values()
    assert [line[2] for line in lines] == [expected for _, _, expected in calls]


def test_b1_threshold_and_exclusion(ship, peer, balanced):
    """Lines below the level and lines of excluded loggers and their children are not shipped."""
    processor = ship(level="warning", exclude=["audit", "security"])
    for name in (
        "audit",
        "audit.trail",
        "security.login",
        "auditor",
        "x.audit",
        "",
        None,
        5,
        Text("audit.x"),
    ):
        processor(None, "info", {"event": "low", "logger": name})
        processor(None, "error", {"event": "high", "logger": name})
        processor(None, "error", {"event": "high", "logger": name, "list": []})
    assert processor.flush(DEADLINE_S)
    assert [e.get("logger") for e in peer.events()][::2] == ["auditor", "", None, 5]
    assert balanced(processor)["excluded"] == 10


def test_b2_exact_numbers(ship, peer):
    """Decimals, integers of any size and aware datetimes come back exactly."""
    values = {
        "d": decimal.Decimal("-0.000000001230"),
        "e": decimal.Decimal("1E+1000000"),
        "big": 10**4000,
        "huge": 10**5000,
        "neg": -(10**30),
        "when": dt.datetime(2026, 3, 29, 2, 30, tzinfo=TOKYO),
    }
    processor = ship()
    processor(None, "info", {"event": "n", **values})
    assert processor.flush(DEADLINE_S)
    (event,) = peer.events()
    for key in ("d", "e"):
        assert decimal.Decimal(event[key]) == values[key]
    assert event["d"] == "-1.230E-9"
    for key in ("big", "huge", "neg"):
        assert int(event[key], 0) == values[key]
    assert dt.datetime.fromisoformat(event["when"]) == values["when"]
    assert event["when"].endswith("+09:00")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.just(TOKYO))
    | st.uuids()
    | st.complex_numbers()
    | st.just(object()),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=())) | st.integers(), inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=30,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(event=st.dictionaries(st.text(st.characters(exclude_categories=())), ANYTHING))
def test_b3_any_value(ship, peer, event):
    """Any nested value is one decodable frame with the whole of its top-level keys."""
    processor = ship()
    before = peer.count()
    assert processor(None, "info", event) is event
    assert processor.flush(DEADLINE_S)
    assert peer.count() == before + 1
    assert peer.complaints == []
    processor.close(DEADLINE_S)


def test_b4_mutation_after_the_call(ship, make_peer, wait_for):
    """What is in the frame is what the value was during the call, however late the frame leaves the
    process."""
    processor = ship()
    values = {"list": [1], "dict": {"a": 1}, "set": {1}, "bytes": bytearray(b"a")}
    processor(None, "info", {"event": "m", **values})
    values["list"].append(2)
    values["dict"]["b"] = 2
    values["set"].add(2)
    values["bytes"] += b"b"
    peer = make_peer().start()
    assert processor.flush(DEADLINE_S)
    assert peer.events() == [{"event": "m", "list": [1], "dict": {"a": 1}, "set": [1], "bytes": b"a"}]


def test_b4_mutation_during_the_call(ship, peer, scale):
    """Another thread changes the containers all the time: every frame decodes and keeps its other keys."""
    shared = {"list": list(range(50)), "dict": {str(i): i for i in range(50)}, "set": set(range(50))}
    stop = threading.Event()

    def disturb():
        n = 0
        while not stop.is_set():
            n += 1
            shared["list"][n % 40 :] = list(range(n % 60))
            shared["dict"].pop(str(n % 50), None)
            shared["dict"][f"x{n % 70}"] = [n]
            shared["set"] ^= {n % 64}

    processor = ship()
    with running(disturb, stop=stop.set):
        for i in range(1000 * scale):
            processor(None, "info", {"event": "m", "i": i, **shared})
    assert processor.flush(DEADLINE_S)
    assert [e["i"] for e in peer.events()] == list(range(1000 * scale))


def test_b5_depth_and_circles(ship, peer, balanced):
    """Depth 10,000 and circular values are cut at the protocol's depth, marked, and decodable."""
    deep = []
    for _ in range(10_000):
        deep = [deep]
    circle = {}
    circle["self"] = circle
    ring = []
    ring.append({"ring": ring})
    exact = "bottom"
    for _ in range(15):
        exact = [exact]
    processor = ship()
    processor(None, "info", {"event": "d", "deep": deep, "fine": 1})
    processor(None, "info", {"event": "d", "circle": circle, "ring": ring})
    processor(None, "info", {"event": "d", "exact": exact})
    event = {"event": "self"}
    event["me"] = event
    processor(None, "info", event)
    assert processor.flush(DEADLINE_S)
    events = peer.events()
    assert events[0]["fine"] == 1
    assert events[0]["_truncated"] == ["deep"]
    assert sorted(events[1]["_truncated"]) == ["circle", "ring"]
    assert "_truncated" not in events[2]
    assert "bottom" in str(events[2]["exact"])
    assert events[3]["_truncated"] == ["me"]
    assert balanced(processor)["truncated"] == 3


def test_b6_reentrant_yielding_encoders(ship, peer, balanced, scale):
    """Eight threads log values whose repr logs and gives the processor to others: every frame decodes."""
    processor = ship()

    class Chatty:
        def __init__(self, name):
            self.name = name

        def __repr__(self):
            time.sleep(0)
            processor(None, "info", {"event": "inner", "name": self.name, "me": self, "list": [1, 2]})
            return f"chatty {self.name}"

    count = 250 * scale

    def work(n):
        for i in range(count):
            processor(None, "info", {"event": "outer", "name": f"{n}-{i}", "v": Chatty(f"{n}-{i}"), "t": "x" * 50})

    with running(*(partial(work, n) for n in range(8))):
        pass
    assert processor.flush(DEADLINE_S)
    outer = [e for e in peer.events() if e["event"] == "outer"]
    inner = [e for e in peer.events() if e["event"] == "inner"]
    assert len(outer) == len(inner) == 8 * count
    assert all(e["v"] == f"chatty {e['name']}" for e in outer)
    assert all(e["me"] == "<Chatty>" for e in inner)
    assert balanced(processor)["pending"] == 0
