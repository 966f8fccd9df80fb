"""Reading one value: what each type takes from text and from TOML, what it refuses, and how it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.config.value_types import (
    GIB,
    KIB,
    MIB,
    TIB,
    choice,
    network,
    number,
    several,
    size,
    size_text,
    text,
    whole,
)

WHOLE = whole(1, 100)
NUMBER = number(0.5, 90, "days")
SIZE = size(KIB, 2 * TIB)
CHOICE = choice("normal", "full")
TEXT = text(r"[a-z]+", "letters", "WORD")
SEVERAL = several(TEXT, 3)


@pytest.mark.parametrize(
    ("value_type", "given", "value"),
    [
        (WHOLE, "1", 1),
        (WHOLE, "0100", 100),
        (NUMBER, "0", 0.0),
        (NUMBER, "0.5", 0.5),
        (NUMBER, "90", 90.0),
        (SIZE, "1024", KIB),
        (SIZE, "1024b", KIB),
        (SIZE, "2 tib", 2 * TIB),
        (SIZE, "3Mb", 3_000_000),
        (CHOICE, "full", "full"),
        (TEXT, "abc", "abc"),
        (SEVERAL, "a, b,,c", ("a", "b", "c")),
        (SEVERAL, "", ()),
    ],
)
def test_text_is_read(value_type, given, value):
    """A flag or a variable gives the value in its own type."""
    read = value_type.from_text(given)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value_type", "given"),
    [
        *[(WHOLE, bad) for bad in ("0", "101", "-1", "1.0", " 1", "1_0", "٣", "", "9" * 21)],
        *[(NUMBER, bad) for bad in ("0.4", "90.1", "nan", "inf", "1e1", "-1", ".5", "5.", "")],
        *[(SIZE, bad) for bad in ("1023", "3TiB", "1 parsec", "1.5MiB", "-1024", "MiB", "1  KiB", "")],
        *[(CHOICE, bad) for bad in ("fulls", "", "normal ")],
        *[(TEXT, bad) for bad in ("", "a1", "a\n", "ä")],
        *[(SEVERAL, bad) for bad in ("a,b,c,d", "a,1")],
    ],
)
def test_text_that_is_not_allowed_is_refused(value_type, given):
    """Out of range, of another form or in other digits: ValueError, whose words are the caller's."""
    with pytest.raises(ValueError):
        value_type.from_text(given)


@pytest.mark.parametrize(
    ("value_type", "given", "value"),
    [
        (WHOLE, 100, 100),
        (NUMBER, 1, 1.0),
        (NUMBER, 0, 0.0),
        (SIZE, 4096, 4096),
        (SIZE, "1GiB", GIB),
        (CHOICE, "normal", "normal"),
        (TEXT, "abc", "abc"),
        (SEVERAL, ["a", "b"], ("a", "b")),
    ],
)
def test_toml_is_read(value_type, given, value):
    """A key of the file gives the same value as a flag does."""
    read = value_type.from_toml(given)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("value_type", "given"),
    [
        *[(WHOLE, bad) for bad in ("1", 1.0, True, 0, 101, None)],
        *[(NUMBER, bad) for bad in ("1", True, float("nan"), float("inf"), -1, [])],
        *[(SIZE, bad) for bad in (True, 1.5, 1023, "1 parsec", [])],
        *[(CHOICE, bad) for bad in (1, "other", None)],
        *[(TEXT, bad) for bad in (1, "A", None)],
        *[(SEVERAL, bad) for bad in ("a", ["a", 1], ["a"] * 4, None)],
    ],
)
def test_toml_of_another_type_is_refused(value_type, given):
    """A number has to be a number in the file, not a string, and true is not 1."""
    with pytest.raises(ValueError):
        value_type.from_toml(given)


@given(st.integers(KIB, 2 * TIB))
def test_a_size_is_shown_as_it_is_read(count):
    """The text of a size, given as an option, is the size."""
    assert SIZE.from_text(size_text(count)) == count


def test_a_size_is_shown_in_the_largest_unit_that_fits():
    """Nobody has to count digits."""
    assert [size_text(n) for n in (0, 1000, KIB, 1536, 512 * MIB, GIB, 3 * TIB)] == [
        "0", "1000", "1KiB", "1536", "512MiB", "1GiB", "3TiB",
    ]  # fmt: skip


def test_several_and_fractions_are_shown_as_they_are_typed():
    """What `check` prints can be given again."""
    assert SEVERAL.show(("a", "b")) == "a,b"
    assert NUMBER.show(7.0) == "7"
    assert NUMBER.show(0.25) == "0.25"


def test_what_is_allowed_is_said_with_its_bounds():
    """The words that follow "allowed: " in an error."""
    assert WHOLE.allowed == "a whole number from 1 to 100"
    assert NUMBER.allowed == "0, or a number of days from 0.5 to 90"
    assert SIZE.allowed == "bytes from 1KiB to 2TiB, plain or like 512MiB"
    assert CHOICE.allowed == "normal or full"
    assert SEVERAL.allowed == "at most 3, each letters"
    assert [t.metavar for t in (WHOLE, NUMBER, SIZE, CHOICE, TEXT, SEVERAL)] == [
        "N", "NUMBER", "SIZE", "normal|full", "WORD", "WORD,...",
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["10.0.0.2", "10.0.0.0/8", "10.1.2.3/8", "::1", "fd00::/8"])
def test_an_address_or_a_network(given):
    """A host's bits behind the mask do no harm."""
    assert network().from_text(given) == given


@pytest.mark.parametrize("given", ["", "relay", "10.0.0.0/33", "10.0.0", "fe80::1%eth0", 10, None])
def test_what_is_no_network(given):
    """A name could mean another address tomorrow."""
    with pytest.raises(ValueError):
        network().from_toml(given)
