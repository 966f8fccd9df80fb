"""Values of the libraries that bots compute with: nothing is rounded, and no time becomes an integer."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import math
import subprocess
import sys
import uuid
import warnings

import pytest

from robo_trader.log_relay import serializer
from robo_trader.log_relay.serializer import ROUNDS

np = pytest.importorskip("numpy", reason="numpy is not installed")
pd = pytest.importorskip("pandas", reason="pandas is not installed")

WHEN = "2026-01-23T10:00:00.123456789"


def shown(value):
    """Return what becomes of a value that is shown whole and without a fault, alone, in a list and under a key."""
    made = serializer.copy({"v": value, "l": [value], "d": {"k": value}}, ROUNDS[0])
    assert (made.cut, made.faults) == ([], 0)
    assert made.event["l"] == [made.event["v"]]
    assert made.event["d"] == {"k": made.event["v"]}
    return made.event["v"]


# --- numpy ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("Y", "2026"),
        ("M", "2026-01"),
        ("W", "2026-01-22"),
        ("D", "2026-01-23"),
        ("h", "2026-01-23T10"),
        ("m", "2026-01-23T10:00"),
        ("s", "2026-01-23T10:00:00"),
        ("ms", "2026-01-23T10:00:00.123"),
        ("us", "2026-01-23T10:00:00.123456"),
        ("ns", WHEN),
    ],
)
def test_a_numpy_time_of_every_unit(unit, expected):
    """It is ISO 8601, as exact as its unit; not a time is the word."""
    value = np.datetime64(WHEN, "ns").astype(f"datetime64[{unit}]")
    assert shown(value) == expected
    assert shown(np.array([value, np.datetime64("NaT", unit)])) == [expected, "NaT"]
    assert shown(np.array([[value]])) == [[expected]]
    assert shown(np.array(value)) == expected
    assert shown(np.datetime64("NaT", unit)) == "NaT"


@pytest.mark.parametrize(
    ("count", "unit", "expected"),
    [
        (5, "Y", "P5Y"),
        (-5, "M", "-P5M"),
        (1, "W", "P7D"),
        (5, "D", "P5D"),
        (25, "h", "P1DT1H"),
        (61, "m", "PT1H1M"),
        (3_661, "s", "PT1H1M1S"),
        (86_400, "s", "P1D"),
        (5, "ms", "PT0.005S"),
        (-1_500_000, "us", "-PT1.5S"),
        (5, "ns", "PT0.000000005S"),
        (10**9, "ns", "PT1S"),
        (5, "ps", "PT0.000000000005S"),
        (5, "fs", "PT0.000000000000005S"),
        (5, "as", "PT0.000000000000000005S"),
        (0, "ns", "PT0S"),
        (0, "D", "PT0S"),
        (2, "25s", "PT50S"),
    ],
)
def test_a_numpy_duration_of_every_unit(count, unit, expected):
    """It is ISO 8601, with the sign in front."""
    value = np.timedelta64(count, unit if unit.isalpha() else (unit[-1], int(unit[:-1])))
    assert shown(value) == expected
    assert shown(np.array([value])) == [expected]
    assert shown(np.array(value)) == expected


def test_a_numpy_duration_without_a_unit_is_a_number():
    """Nobody knows what it counts; newer versions of numpy say so when it is made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        number, never, nothing = np.timedelta64(5), np.datetime64("NaT"), np.timedelta64("NaT")
    assert (shown(number), shown(never), shown(nothing)) == (5, "NaT", "NaT")
    assert shown(np.timedelta64("NaT", "ns")) == "NaT"


INTEGERS = "int8 int16 int32 int64 uint8 uint16 uint32 uint64 longlong ulonglong".split()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((getattr(np, name)(7), 7) for name in INTEGERS),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.float16(1.5), 1.5),
        (np.float32(1.5), 1.5),
        (np.float64(0.1), 0.1),
        (np.float64("inf"), math.inf),
        (np.longdouble("1.25"), "1.25"),
        (np.complex64(1 + 2j), "(1+2j)"),
        (np.complex128(1 + 2j), "(1+2j)"),
        (np.clongdouble(1 + 2j), "(1+2j)"),
        (np.str_("x"), "x"),
        (np.bytes_(b"x"), b"x"),
        (np.void(b"abc"), b"abc"),
        (np.array([(1, "x", "2026-01-23")], dtype="i4, U2, M8[ns]")[0], [1, "x", "2026-01-23T00:00:00.000000000"]),
        (np.array([(1, 5)], dtype="i4, m8[ns]"), [[1, "PT0.000000005S"]]),
        (np.array([1, 2]), [1, 2]),
        (np.ma.masked, None),
        (np.ma.array([1, 2], mask=[False, True]), [1, None]),
        (np.array([[1.5], [2.5]]), [[1.5], [2.5]]),
        (np.array(7), 7),
        (np.array([decimal.Decimal("1.10"), None], dtype=object), ["1.10", None]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_numpy_value(value, expected):
    """Numbers stay numbers, unless no plain number is as exact."""
    assert shown(value) == expected
    assert type(shown(value)) is type(expected)


def test_not_a_number_of_numpy_stays():
    """msgpack has it."""
    assert math.isnan(shown_alone(np.float32("nan")))


def shown_alone(value):
    return serializer.copy({"v": value}, ROUNDS[0]).event["v"]


# --- pandas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pd.NaT, "NaT"),
        (pd.Timestamp(WHEN), WHEN),
        (pd.Timestamp(WHEN, tz="UTC"), WHEN + "+00:00"),
        (pd.Timestamp("2026-07-01 12:00", tz="Europe/Berlin"), "2026-07-01T12:00:00+02:00"),
        (pd.Timedelta(5, "ns"), "PT0.000000005S"),
        (pd.Timedelta("1 days 02:03:04.5"), "P1DT2H3M4.5S"),
        (pd.Timedelta("-1s"), "-PT1S"),
        (pd.Period("2026-01", "M"), "2026-01"),
        (pd.Interval(1, 2), "(1, 2]"),
        (pd.NA, "<NA>"),
        (pd.Series([1.5, 2.5]), [1.5, 2.5]),
        (pd.Series(pd.to_datetime([WHEN, None])), [WHEN, "NaT"]),
        (pd.Series(pd.to_timedelta(["1s", None])), ["PT1S", "NaT"]),
        (pd.DatetimeIndex(["2026-01-23", None]), ["2026-01-23T00:00:00", "NaT"]),
        (pd.Categorical(["a"]), ["a"]),
        (pd.Index([1, 2]), [1, 2]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_pandas_value(value, expected):
    """NaT is a datetime of the year 1 to the standard library; nanoseconds are none of its business either."""
    assert shown(value) == expected


def test_a_table_is_shown_by_its_shape():
    """A table is for files."""
    made = serializer.copy({"v": pd.DataFrame({"a": [1, 2]})}, ROUNDS[0])
    assert (made.event["v"], made.cut, made.faults) == ("<DataFrame shape (2, 1)>", ["v"], 0)


def test_a_subclass_of_ones_own_is_what_it_is_derived_from():
    """The nearest base that is known decides."""

    class Bar(pd.Timestamp):
        pass

    class Timestamp(dt.datetime):
        """Called like the one of pandas."""

    assert shown(Bar(WHEN)).startswith(WHEN)
    assert shown(Timestamp(2026, 1, 23)) == "2026-01-23T00:00:00"


# --- Arrow and Polars -------------------------------------------------------------------------------------------------


def arrow_values():
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    ns = 1_769_162_400_123_456_789
    return [
        (pa.scalar(5), 5),
        (pa.scalar(1.5), 1.5),
        (pa.scalar(1.5, pa.float16()), 1.5),
        (pa.scalar(True), True),
        (pa.scalar("x"), "x"),
        (pa.scalar(b"x"), b"x"),
        (pa.scalar(None), None),
        (pa.scalar(None, pa.timestamp("ns")), None),
        (pa.scalar(decimal.Decimal("1.10")), "1.10"),
        (pa.scalar(dt.date(2026, 1, 2)), "2026-01-02"),
        (pa.scalar(5, pa.time64("ns")), "00:00:00.000000005"),
        (pa.scalar(5, pa.time32("s")), "00:00:05"),
        (pa.scalar(ns, pa.timestamp("ns")), WHEN),
        (pa.scalar(ns, pa.timestamp("ns", tz="Europe/Berlin")), WHEN + "+00:00"),
        (pa.scalar(-1, pa.timestamp("ns")), "1969-12-31T23:59:59.999999999"),
        (pa.scalar(ns // 10**9, pa.timestamp("s")), "2026-01-23T10:00:00"),
        (pa.scalar(5, pa.duration("ns")), "PT0.000000005S"),
        (pa.scalar(-90, pa.duration("s")), "-PT1M30S"),
        (pa.scalar([5, None], pa.list_(pa.duration("ns"))), ["PT0.000000005S", None]),
        (pa.scalar({"a": 5}, pa.struct([("a", pa.timestamp("ns"))])), {"a": "1970-01-01T00:00:00.000000005"}),
        (pa.DictionaryArray.from_arrays([0], ["a"])[0], "a"),
        (pa.DictionaryArray.from_arrays([0], pa.array([5], pa.duration("ns")))[0], "PT0.000000005S"),
        (pa.array([1, 2]), [1, 2]),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
        (pa.chunked_array([[1], [2]]), [1, 2]),
    ]


def test_every_kind_of_arrow_value():
    """Arrow's own conversion knows no nanoseconds, or makes objects of pandas of them."""
    for value, expected in arrow_values():
        assert (type(value), shown(value)) == (type(value), expected)


def test_a_long_array_of_arrow_is_shown_by_its_shape():
    """So is a long text of it."""
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    made = serializer.copy({"a": pa.array(range(5_000)), "t": pa.scalar("x" * 100_000)}, ROUNDS[0])
    assert made.event == {"a": "<Int64Array shape (5000,) int64>", "t": "<StringScalar of 100000 bytes>"}
    assert (made.cut, made.faults) == (["a", "t"], 0)


def test_values_of_polars():
    """A short series is a list, a long one its shape; what it holds are values of the standard library."""
    pl = pytest.importorskip("polars", reason="polars is not installed")
    assert shown(pl.Series([1, 2])) == [1, 2]
    assert shown(pl.Series([dt.datetime(2026, 1, 23)])) == ["2026-01-23T00:00:00"]
    assert shown(pl.Series([dt.datetime(2026, 1, 23)])[0]) == "2026-01-23T00:00:00"
    made = serializer.copy({"s": pl.Series(range(5_000)), "t": pl.DataFrame({"a": [1]})}, ROUNDS[0])
    assert made.event == {"s": "<Series shape (5000,) Int64>", "t": "<DataFrame shape (1, 1)>"}


# --- stand-ins, for what is not installed -----------------------------------------------------------------------------


def of(library, name="Scalar", **attributes):
    return type(name, (), {"__module__": f"{library}.lib", "__repr__": lambda self: "shown"} | attributes)()


class Kind:
    """The type of an Arrow value."""

    def __init__(self, unit=None, tz=None):
        self.unit, self.tz = unit, tz


@pytest.mark.parametrize(
    ("name", "kind", "value", "expected"),
    [
        ("DurationScalar", Kind("us"), 5, "PT0.000005S"),
        ("TimestampScalar", Kind("ms", "UTC"), 5, "1970-01-01T00:00:00.005+00:00"),
        ("TimestampScalar", Kind("s"), 5, "1970-01-01T00:00:05"),
        ("Time32Scalar", Kind("ms"), 5, "00:00:00.005"),
    ],
)
def test_arrow_scalars_by_their_shape(name, kind, value, expected):
    """Names, units and counts decide; nothing is imported."""
    base = type("Scalar", (), {"__module__": "pyarrow.lib"})
    made = type(name, (base,), {"__module__": "pyarrow.lib", "type": kind, "value": value, "is_valid": True})()
    assert shown(made) == expected


def test_a_scalar_of_another_library_is_no_scalar_of_arrow():
    """The name alone says nothing."""
    assert shown(of("mine")) == "shown"
    assert shown(of("polars")) == "shown"


def test_torch_tells_its_size_by_a_method_and_its_shape_by_a_tuple_of_its_own():
    """A small tensor is a list all the same, a large one its shape."""
    size = type("Size", (tuple,), {})
    small = of("torch", "Tensor", shape=size((2,)), size=lambda self: (2,), tolist=lambda self: [1, 2])
    assert shown(small) == [1, 2]
    assert shown(of("torch", "Tensor", shape=size(), item=lambda self: 1.5)) == 1.5
    made = serializer.copy({"v": of("torch", "Tensor", shape=size((9, 99)), size=lambda self: 0)}, ROUNDS[0])
    assert made.event == {"v": "<Tensor shape (9, 99)>"}


# --- the standard library ---------------------------------------------------------------------------------------------


class Side(enum.Flag):
    BUY = 1
    SELL = 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (fractions.Fraction(1, 3), "1/3"),
        (ipaddress.ip_address("1.2.3.4"), "1.2.3.4"),
        (ipaddress.ip_address("::1"), "::1"),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (ipaddress.ip_network("::/64"), "::/64"),
        (Side.BUY, "Side.BUY"),
        (Side(0), "Side(0)"),
        (decimal.Decimal("NaN"), "NaN"),
        (decimal.Decimal("-Infinity"), "-Infinity"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    ],
    ids=repr,
)
def test_more_of_the_standard_library(value, expected):
    """Text says what the value is, not how it was made."""
    assert shown(value) == expected


def test_none_of_the_libraries_is_imported():
    """A bot without them does not pay for them."""
    code = (
        "import sys; from robo_trader.log_relay import LogRelayProcessor;"
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'polars'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- names ------------------------------------------------------------------------------------------------------------


def test_a_name_that_is_ours_gets_underscores_until_it_is_free():
    """One rule for all names."""
    event = {"level": 1, "level_": 2}
    serializer.set_aside(event, "level", {"level__"})
    assert event == {"level_": 2, "level___": 1}
    serializer.set_aside(event, "level")
    assert event == {"level_": 2, "level___": 1}


def test_names_of_the_serializer_do_not_swallow_the_callers():
    """`_truncated` is set aside where we write it; `_record` without its companion is a field like any other."""
    made = serializer.copy({"_truncated": "mine", "long": "x" * 20_000}, ROUNDS[0])
    assert (made.event["_truncated_"], made.cut) == ("mine", ["long"])
    assert "_truncated" not in made.event
    assert serializer.copy({"_truncated": "mine"}, ROUNDS[0]).event == {"_truncated": "mine"}
    assert serializer.copy({"_record": "mine"}, ROUNDS[0]).event == {"_record": "mine"}
    assert serializer.copy({"_from_structlog": "mine"}, ROUNDS[0]).event == {"_from_structlog": "mine"}
    assert serializer.copy({"_record": 1, "_from_structlog": True, "a": 2}, ROUNDS[0]).event == {"a": 2}
