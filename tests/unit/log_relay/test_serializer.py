"""The serializer by itself: what becomes of each kind of value, and where each bound cuts."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import math
import pathlib
import sys
import types
import uuid
from itertools import pairwise

import pytest

from robo_trader.log_relay import serializer
from robo_trader.log_relay.frames import MAX_DEPTH
from robo_trader.log_relay.serializer import ARRAYS, CUT, ROUNDS, Bounds

WIDE = Bounds(text=100, items=10, nodes=100, room=1000)


def copied(event, **bounds):
    return serializer.copy(event, WIDE._replace(**bounds))


def shown(value, **bounds):
    """Return what becomes of one value that is shown whole and without a fault."""
    made = copied({"v": value}, **bounds)
    assert (made.cut, made.faults) == ([], 0)
    return made.event["v"]


def cut(value, **bounds):
    """Return what is left of one value that is cut."""
    made = copied({"v": value}, **bounds)
    assert (made.cut, made.faults) == (["v"], 0)
    return made.event["v"]


# --- kinds of values --------------------------------------------------------------------------------------------------


class Side(enum.Enum):
    BUY = 1


class Grade(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise ValueError

    __repr__ = __str__


class Whole(int):
    def __repr__(self):
        raise ValueError

    __str__ = __int__ = __index__ = __repr__


class Price(float):
    def __repr__(self):
        raise ValueError

    __str__ = __float__ = __repr__


class Rows(list):
    def __iter__(self):
        raise ValueError


class Fields(dict):
    def items(self):
        raise ValueError

    __iter__ = __getitem__ = get = items


@dataclasses.dataclass
class Order:
    symbol: str
    price: decimal.Decimal
    secret: str = dataclasses.field(default="x", repr=False)


class Plain:
    def __repr__(self):
        return "plain"


class Failing:
    def __repr__(self):
        raise KeyError("no")


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024
TOKYO = dt.timezone(dt.timedelta(hours=9))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (Text("t"), "t"),
        (1.5, 1.5),
        (True, True),
        (False, False),
        (None, None),
        (7, 7),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (Whole(5), 5),
        (Whole(2**70), str(2**70)),
        (Price(1.5), 1.5),
        (Grade.HIGH, 3),
        (Side.BUY, "Side.BUY"),
        ([1, "a"], [1, "a"]),
        (Rows([1]), [1]),
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        ({1}, [1]),
        (frozenset({1}), [1]),
        (collections.deque([1, 2]), [1, 2]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        (Fields(a=1), {"a": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (collections.UserDict(a=1), {"a": 1}),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"abc"), b"abc"),
        (memoryview(b"abcd")[::2], b"ac"),
        (memoryview(b"abcdabcd").cast("I"), b"abcdabcd"),
        (decimal.Decimal("1.50"), "1.50"),
        (dt.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=TOKYO), "2026-01-02T03:04:05.000006+09:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.time(1, 2), "01:02:00"),
        (dt.timedelta(seconds=5), "0:00:05"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (Order("A", decimal.Decimal("1.10")), {"symbol": "A", "price": "1.10"}),
        (Plain(), "plain"),
        (Order, repr(Order)),
        (1 + 2j, "(1+2j)"),
        ("\ud800x", "\\ud800x"),
        ("\u00e9", "\u00e9"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_kind_of_value(value, expected):
    """At the top and inside a list; the type is exactly the one shown."""
    for made in (shown(value), shown([value])[0], shown({"k": value})["k"]):
        assert made == expected
        assert type(made) is type(expected)


def test_not_a_number_stays():
    """msgpack has it."""
    assert math.isnan(shown(math.nan))


def test_a_copy_shares_nothing_with_the_event():
    """Whatever happens to the values afterwards."""
    event = {"l": [[1]], "d": {"k": {}}, "b": bytearray(b"a")}
    made = copied(event).event
    event["l"][0].append(2)
    event["d"]["k"]["x"] = 1
    event["b"] += b"b"
    assert made == {"l": [[1]], "d": {"k": {}}, "b": b"a"}


def test_a_value_whose_code_fails_is_a_placeholder():
    """Which names both types, and is counted; the others are shown."""
    made = copied({"v": Failing(), "l": [Failing(), 1], "w": 2})
    assert made.event == {"v": "<Failing (KeyError)>", "l": ["<Failing (KeyError)>", 1], "w": 2}
    assert (made.cut, made.faults) == ([], 2)
    nested = []

    class Asking:
        def __repr__(self):
            nested.append(copied({"a": Plain(), "b": Plain(), "c": [Plain()]}))
            return "asked"

    assert shown(Asking()) == "asked"
    assert nested[0].faults == 3


class Chatty:
    """Logs itself when it is shown."""

    def __init__(self):
        self.inner = []

    def __repr__(self):
        self.inner.append(copied({"v": self, "e": ValueError(Plain()), "t": "x"}))
        return "chatty"


def test_a_value_that_logs_itself_is_a_placeholder_in_its_own_line():
    """Its code runs one level deep, also again afterwards."""
    chatty = Chatty()
    for number in (1, 2):
        assert shown(chatty) == "chatty"
        inner = chatty.inner[-1]
        assert inner.event == {"v": "<Chatty>", "e": "ValueError", "t": "x"}
        assert (inner.faults, len(chatty.inner)) == (1, number)


def test_an_exception_may_say_a_text_of_its_own():
    """The base's text is taken."""

    class Said(Exception):
        def __str__(self):
            return Text("said")

    assert shown(Said()) == "Said: said"


# --- arrays -----------------------------------------------------------------------------------------------------------


def array(**attributes):
    """Make a value of a library whose objects are large."""
    name = attributes.pop("name", "ndarray")
    module = attributes.pop("module", "numpy.core")
    return type(name, (), {"__module__": module, "__repr__": lambda self: "shown"} | attributes)()


def test_an_array_is_shown_by_its_shape():
    """A small one whole, a number as the number it is, anything else as it shows itself."""
    small = {"shape": (2,), "size": 2, "tolist": lambda self: [1.5, 2.5], "dtype": "f8"}
    assert shown(array(**small)) == [1.5, 2.5]
    assert shown(array(**small | {"size": 10})) == [1.5, 2.5]
    assert cut(array(**small | {"size": 11})) == "<ndarray shape (2,) f8>"
    assert cut(array(**small | {"size": "2"})) == "<ndarray shape (2,) f8>"
    assert cut(array(shape=(9, 99), size=3)) == "<ndarray shape (9, 99)>"
    assert cut(array(shape=(9, 99), tolist=lambda self: [1])) == "<ndarray shape (9, 99)>"
    assert shown(array(shape=(), item=lambda self: 42)) == 42
    assert shown(array(shape=(), item=lambda self: [[1]])) == [[1]]
    assert cut(array(shape=())) == "<ndarray shape ()>"
    assert shown(array(shape=(), item=lambda self: self)) == "shown"
    assert shown(array(shape=[2])) == "shown"
    assert shown(array()) == "shown"


LIBRARIES = "cudf dask jax jaxlib modin numpy pandas polars pyarrow tensorflow torch xarray".split()


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_of_arrays(library):
    """The module's first word decides, and nothing else."""
    assert set(LIBRARIES) == ARRAYS
    made = {"shape": (9, 99), "size": 891}
    assert cut(array(module=library, **made)) == "<ndarray shape (9, 99)>"
    assert cut(array(module=f"{library}.core.array", **made)) == "<ndarray shape (9, 99)>"
    assert shown(array(module=f"my.{library}", **made)) == "shown"
    assert shown(array(module=None, **made)) == "shown"


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_become_text_and_none_vanishes():
    """Two that would become one are told apart."""
    odd = {1: "a", "1": "b", (1, 2): "c", None: "d", Text("t"): "e", 1.5: "f", "\ud800": "g", b"x": "h"}
    odd[decimal.Decimal("2.50")] = "i"
    expected = {
        "2.50": "i",
        "1": "a",
        "1#2": "b",
        "[1, 2]": "c",
        "None": "d",
        "t": "e",
        "1.5": "f",
        "\\ud800": "g",
        "b'x'": "h",
    }
    assert shown(odd) == expected
    assert copied(odd).event == expected


def test_keys_cut_at_the_same_place_are_told_apart():
    """As many as may stand in one container."""
    keys = {f"kkkk{n}": n for n in range(4)}
    assert sorted(copied({f"kkkk{n}": n for n in range(10)}, text=4).event.values()) == list(range(10))
    made = copied(keys, text=4)
    assert made.event == {f"kkkk{CUT}": 0, f"kkkk{CUT}#2": 1, f"kkkk{CUT}#3": 2, f"kkkk{CUT}#4": 3}
    made = copied({"v": keys}, text=4)
    assert list(made.event["v"]) == list(copied(keys, text=4).event)
    assert made.cut == ["v"]
    assert made.event["v"] == {f"kkkk{CUT}": 0, f"kkkk{CUT}#2": 1, f"kkkk{CUT}#3": 2, f"kkkk{CUT}#4": 3}


def test_hidden_keys_and_the_order_of_keys():
    """What ProcessorFormatter adds is not shown; event, logger and exception come first."""
    event = {"z": 1, "_record": object(), "exception": "x", "_from_structlog": True, "logger": "l", "event": "e"}
    made = copied(event)
    assert list(made.event.items()) == [("event", "e"), ("logger", "l"), ("exception", "x"), ("z", 1)]
    assert serializer.HIDDEN == {"_record", "_from_structlog"}
    many = {f"k{n}": n for n in range(20)} | {"event": "e"}
    made = copied(many)
    assert list(made.event) == ["event", *(f"k{n}" for n in range(10))]
    assert made.cut == [CUT]


def test_the_names_of_what_is_cut_are_bounded():
    """In number and length."""
    long = {f"k{n}" + "y" * 90: "x" * 200 for n in range(10)}
    made = copied(long, room=10_000)
    assert made.cut == [f"k{n}" + "y" * 62 for n in range(8)]
    assert len(made.event) == 10
    assert copied({"a": 1, "b": "x" * 101, "c": 2}).cut == ["b"]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_a_text_of_the_bound_is_whole():
    """One more character, and its end is replaced."""
    assert shown("x" * 100) == "x" * 100
    assert cut("x" * 101) == "x" * 100 + CUT
    assert shown(b"x" * 100) == b"x" * 100
    assert cut(b"x" * 101) == b"x" * 100
    assert cut(memoryview(bytes(202))[::2]) == bytes(100)
    assert cut(memoryview(bytes(104)).cast("I")) == bytes(100)
    assert cut(bytearray(101)) == bytes(100)


def test_the_room_of_an_event_is_shared():
    """What one value takes another has no more; keys take some of it as well."""
    event = {"a": "x" * 50, "b": b"y" * 40, "c": "z" * 6, "d": "w"}
    made = copied(event, room=100)
    assert made.event == {"a": "x" * 50, "b": b"y" * 40, "c": "z" * 6, "d": CUT}
    assert made.cut == ["d"]
    made = copied({"a": "x" * 50, "b": "y" * 60, "c": b"w"}, room=100)
    assert made.event == {"a": "x" * 50, "b": "y" * 48 + CUT, CUT: b""}
    assert made.cut == ["b", CUT]


def test_containers_of_the_bound_are_whole():
    """One more item, and the rest is left out and marked."""
    assert shown(list(range(10))) == list(range(10))
    assert cut(list(range(11))) == [*range(10), CUT]
    assert shown({str(n): n for n in range(10)}) == {str(n): n for n in range(10)}
    assert cut({str(n): n for n in range(11)}) == {str(n): n for n in range(10)} | {CUT: CUT}
    assert copied({str(n): n for n in range(10)}).cut == []
    assert copied({str(n): n for n in range(11)}).cut == [CUT]


def test_a_mapping_without_end_is_cut():
    """Nobody asks it for more than is shown."""

    class Endless(collections.UserDict):
        def items(self):
            return ((str(n), n) for n in itertools.count())

    assert cut(Endless()) == {str(n): n for n in range(10)} | {CUT: CUT}


def test_the_values_of_an_event_are_counted():
    """Beyond the bound text and numbers that were reached are shown, and nothing is opened any more."""
    made = copied({"v": [[1, 2], [3, 4], [5]]}, nodes=6)
    assert made.event == {"v": [[1, 2], [3, 4], CUT]} or made.cut == ["v"]
    assert str(made.event).count("[") <= 4
    assert cut([1, 2, 3, 4], nodes=3) == [1, 2, 3, CUT]
    assert shown([1, 2, 3], nodes=4) == [1, 2, 3]
    assert cut({"a": 1, "b": 2, "c": 3}, nodes=2) == {"a": 1, "b": 2, CUT: CUT}
    assert copied({"a": [], "b": []}, nodes=1).event == {"a": [], "b": CUT}
    made = copied({"a": 1, "b": [1], "c": 2, "d": "t", "e": None}, nodes=1)
    assert made.event == {"a": 1, "b": CUT, "c": 2, "d": "t", "e": None}
    assert made.cut == ["b"]


def nested(depth, wrap):
    value = "bottom"
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,)], ids=["list", "dict", "tuple"])
def test_depth_is_that_of_the_protocol(wrap):
    """The event itself is the first level; what is deeper is cut."""
    assert "bottom" in str(shown(nested(MAX_DEPTH - 1, wrap), room=10_000))
    made = cut(nested(MAX_DEPTH, wrap), room=10_000)
    assert "bottom" not in str(made)
    assert str(made).count(CUT) == 1


def test_long_numbers():
    """In decimal as far as Python goes, then in hex, then by their size."""
    room = {"text": 10_000, "room": 100_000}
    assert shown(10**3998, **room) == str(10**3998)
    assert shown(1 << 13_286, **room) == str(1 << 13_286)
    assert shown(1 << 13_287, **room) == hex(1 << 13_287)
    assert shown(-(1 << 20_000), **room) == hex(-(1 << 20_000))
    assert shown((1 << 40_000) - 1, text=10_002, room=100_000) == hex((1 << 40_000) - 1)
    assert cut((1 << 40_000) - 1, text=10_000, room=100_000) == "0x" + "f" * 9_998 + CUT
    assert cut(1 << 40_007, text=10_001, room=100_000) == "<int of 40008 bits>"
    assert cut(10**5000) == f"<int of {(10**5000).bit_length()} bits>"


def test_the_rounds_get_smaller():
    """Each takes less of everything, and the last one always fits in a frame."""
    for one, other in pairwise(ROUNDS):
        assert all(a > b for a, b in zip(one, other, strict=True))
    assert ROUNDS[-1].room * 6 + ROUNDS[-1].nodes * 16 < 65_536


# --- exceptions -------------------------------------------------------------------------------------------------------


def raised(error):
    try:
        raise error
    except type(error) as kept:
        return kept


def test_exc_info_in_all_its_forms():
    """Becomes a traceback under `exception`; false ones become nothing."""
    error = raised(ValueError("boom"))
    for form in (error, (type(error), error, error.__traceback__)):
        text = serializer.traceback_text(form)
        assert text.startswith("Traceback (most recent call last):\n")
        assert text.endswith("\nValueError: boom")
        assert "raise error" in text
        made = copied({"exc_info": form, "event": "e"}, text=5_000, room=50_000)
        assert made.event == {"event": "e", "exception": text}
        assert (made.cut, made.faults) == ([], 0)
    try:
        raise error
    except ValueError:
        assert serializer.traceback_text(True).endswith("ValueError: boom")
        assert serializer.traceback_text(1).endswith("ValueError: boom")
        for form in (False, None, 0, "", (), (1, 2), (None, None, None), (1, error)):
            assert serializer.traceback_text(form) is None
            assert copied({"exc_info": form}).event == {}
    assert serializer.traceback_text(True) is None
    assert serializer.traceback_text(ValueError("blank ")) == "ValueError: blank "
    assert serializer.MARK == "_truncated"


def test_an_exception_that_is_text_already_stays():
    """It is not made twice."""
    assert copied({"exc_info": raised(ValueError()), "exception": "was here"}).event == {"exception": "was here"}


def test_of_a_long_traceback_the_end_is_kept():
    """It says what happened; it takes room as any text does."""
    error = raised(ValueError("x" * 300 + "END"))
    made = copied({"exc_info": error, "w": "y" * 60}, room=150)
    assert made.event["exception"] == CUT + "x" * 97 + "END"
    assert made.cut == ["exception", "w"]
    assert made.event["w"] == "y" * 48 + CUT
    made = copied({"event": "z" * 90, "exc_info": error}, room=100)
    assert made.event["exception"] == CUT + "x" * 7 + "END"
    whole = serializer.traceback_text(error)
    made = copied({"exc_info": error}, text=len(whole), room=10_000)
    assert made.event["exception"] == whole
    made = copied({"exc_info": error}, text=len(whole) - 1, room=10_000)
    assert made.event["exception"] == CUT + whole[1:]
    made = copied({"event": "z" * 100, "exc_info": error}, room=90)
    assert made.event["exception"] == CUT + "D"


def test_a_runaway_recursion_is_short():
    """The innermost entries say it."""

    def deeper(n):
        if n:
            deeper(n - 1)
        raise ValueError("deep")

    try:
        deeper(300)
    except ValueError as error:
        text = serializer.traceback_text(error)
    assert text.count("in deeper") <= serializer.TRACEBACK_ENTRIES
    assert "Previous line repeated" in text or text.count("in deeper") > 90
    assert "in test_a_runaway_recursion_is_short" not in text


def test_a_traceback_that_cannot_be_made_is_a_placeholder(monkeypatch):
    """It is counted."""

    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr(serializer.traceback, "format_exception", fail)
    made = copied({"event": Failing(), "exc_info": raised(ValueError())})
    assert made.event == {"event": "<Failing (KeyError)>", "exception": "<traceback (RuntimeError)>"}
    assert made.faults == 2


def test_surrogates_in_a_traceback():
    """Are escaped, as everywhere."""
    made = copied({"exc_info": raised(ValueError("\ud800"))}, text=5_000, room=50_000)
    assert made.event["exception"].endswith("ValueError: \\ud800")
    assert sys.exc_info()[1] is None


# --- lines that are no event ------------------------------------------------------------------------------------------


def test_a_rendered_line_is_text():
    """Bytes are decoded; what is neither is named."""
    most = ROUNDS[0].text
    assert serializer.text_of("t\ud800") == "t\\ud800"
    assert serializer.text_of(Text("t")) == "t"
    assert serializer.text_of("x" * (most + 1)) == "x" * most
    assert serializer.text_of(b"a\xff") == "a\\xff"
    assert serializer.text_of(b"x" * (most + 1)) == "x" * most
    assert serializer.text_of(5) == "<int>"
    assert serializer.text_of(type("n" * 100, (), {})()) == f"<{'n' * 80}>"
