"""Each kind of value accepts what its help says, at both ends, and nothing else, from text and from TOML."""

from __future__ import annotations

import math

import pytest

from logrelay.config.value_types import address, choice, number, several, size, size_text, text, whole


def refuses(read, *values):
    for value in values:
        with pytest.raises(ValueError):
            read(value)


def test_whole_numbers():
    """Decimal digits between the bounds; a bool is no number."""
    kind = whole(2, 70)
    assert [kind.from_text("2"), kind.from_text("070"), kind.from_toml(2), kind.from_toml(70)] == [2, 70, 2, 70]
    refuses(kind.from_text, "1", "71", "-5", "+5", "5.0", " 5", "5 ", "", "x", "\u0665", "1" * 21)
    refuses(kind.from_toml, 1, 71, True, 5.0, "5", None)
    refuses(whole(0, 1).from_toml, True, False)
    assert (kind.metavar, kind.allowed, kind.show(7)) == ("N", "a whole number from 2 to 70", "7")
    assert whole(0, 10**21).from_text("9" * 20) == 10**20 - 1


def test_numbers():
    """With or without a fraction, or 0 for never."""
    kind = number(0.5, 60, "seconds")
    for given, read in (("0", 0.0), ("0.5", 0.5), ("60", 60.0), ("59.999", 59.999), ("0.0", 0.0)):
        assert kind.from_text(given) == read
        assert type(kind.from_text(given)) is float
    assert [kind.from_toml(0), kind.from_toml(0.5), kind.from_toml(60)] == [0.0, 0.5, 60.0]
    assert type(kind.from_toml(60)) is float
    refuses(kind.from_text, "0.4", "60.1", "-1", "1e1", "nan", "inf", ".5", "5.", "", "1,5", "1" * 16, "1." + "1" * 16)
    refuses(kind.from_toml, 0.4, 60.1, -1, math.nan, math.inf, True, False, "5", None)
    assert number(0.5, 10**16, "s").from_text("9" * 15 + "." + "9" * 15) == pytest.approx(1e15)
    assert (kind.metavar, kind.allowed) == ("NUMBER", "0, or a number of seconds from 0.5 to 60")
    assert [kind.show(0.5), kind.show(60.0)] == ["0.5", "60"]


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("2000", 2000),
        ("2000b", 2000),
        ("2kB", 2000),
        ("2 KIB", 2048),
        ("3MB", 3_000_000),
        ("3 MiB", 3 << 20),
        ("4gb", 4_000_000_000),
        ("4GiB", 4 << 30),
        ("5TB", 5_000_000_000_000),
        ("5tib", 5 << 40),
    ],
)
def test_sizes(given, count):
    """Plain or with a unit, decimal or binary, in any case; in TOML also as a number."""
    kind = size(1000, 6 << 40)
    assert kind.from_text(given) == kind.from_toml(given) == kind.from_toml(count) == count


def test_sizes_out_of_bounds_or_malformed():
    """Both bounds are allowed; a refusal says what is."""
    kind = size(1024, 1 << 20)
    assert [kind.from_text("1KiB"), kind.from_text("1MiB"), kind.from_toml(1024)] == [1024, 1 << 20, 1024]
    refuses(kind.from_text, "1023", "1048577", "2MiB", "2XB", "MiB", "-2KiB", "1.5KiB", "2  KiB", "2KiBs", "", "9" * 21)
    refuses(kind.from_text, "\u0665KiB")
    refuses(kind.from_toml, 1023, 1048577, True, 2000.0, None, "2XB")
    assert (kind.metavar, kind.allowed) == ("SIZE", "bytes from 1KiB to 1MiB, plain or like 512MiB")
    assert kind.show(2048) == "2KiB"
    assert size(0, 10**21).from_text("9" * 20) == 10**20 - 1
    refuses(size(0, 1).from_toml, True)


def test_choices():
    """One of the words, in any case; the value is in lower case."""
    kind = choice("normal", "full")
    assert kind.from_text("full") == kind.from_toml("normal").replace("normal", "full") == "full"
    assert kind.from_text("Full") == kind.from_toml("FULL") == "full"
    refuses(kind.from_text, "", "normal|full", " full", "\u212aull")
    refuses(kind.from_toml, None, 1, True)
    assert (kind.metavar, kind.allowed, kind.show("full")) == ("normal|full", "normal or full", "full")


def test_texts():
    """The pattern fits the whole value, and its letters and digits are ASCII."""
    kind = text(r"\w{1,4}", "up to four letters", "NAME")
    assert kind.from_text("ab_1") == kind.from_toml("ab_1") == "ab_1"
    refuses(kind.from_text, "", "abcde", "a b", "ä", "ab\n")
    refuses(kind.from_toml, 1, None, b"ab")
    assert (kind.metavar, kind.allowed, kind.show("ab")) == ("NAME", "up to four letters", "ab")


def test_several():
    """With commas in text, where blanks and empty parts do not count; an array in TOML."""
    kind = several(text(r"[a-z]+", "small letters", "WORD"), 3)
    assert kind.from_text("a, b,,c ,") == ("a", "b", "c")
    assert kind.from_text("") == kind.from_toml([]) == ()
    assert kind.from_toml(["a", "b", "c"]) == ("a", "b", "c")
    refuses(kind.from_text, "a,b,c,d", "a;b", "A")
    refuses(kind.from_toml, ["a", "b", "c", "d"], ["a", 1], "a,b", ("a",), None)
    assert (kind.metavar, kind.allowed) == ("WORD,...", "at most 3, each small letters")
    assert (kind.show(("a", "b")), kind.show(())) == ("a,b", "")
    assert (kind.show("ab"), kind.show(5)) == ("ab", "5")


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"),
        (1, "1"),
        (1000, "1000"),
        (1023, "1023"),
        (1024, "1KiB"),
        (1536, "1536"),
        (3 << 20, "3MiB"),
        ((1 << 20) + 1024, "1025KiB"),
        (5 << 30, "5GiB"),
        (7 << 40, "7TiB"),
        (None, "None"),
    ],
)
def test_sizes_are_shown_as_they_are_read(count, shown):
    """With the largest unit that says it exactly."""
    assert size_text(count) == shown


def test_addresses():
    """An IPv6 address may stand in brackets, as it does in a URL; the value has none."""
    kind = address()
    assert kind.from_text("[::]") == kind.from_toml("::") == "::"
    assert kind.from_text("[fe80::1%eth0]") == "fe80::1%eth0"
    assert [kind.from_text(host) for host in ("127.0.0.1", "my_host-1")] == ["127.0.0.1", "my_host-1"]
    refuses(kind.from_text, "", "[127.0.0.1]", "[::", "::]", "[[::]]", "http://x", "a b", "\u0661.1.1.1")
    refuses(kind.from_toml, None, 1, ["::"])
    assert (kind.metavar, kind.allowed) == ("ADDRESS", "an IP address or a host name")
