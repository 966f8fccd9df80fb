"""What a viewer asked to see: one line at a time, and as a question to a batch."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.errors import RequestError
from logrelay.fanout.filters import Filter, ascii_lower, field_text, name_matches, parse_filter
from logrelay.model import CRITICAL, DEBUG, ERROR, INFO, RELAY_RUN, WARNING, Line


def line(level=INFO, source="app.one", message="", context=None, run=1, app="", name="", edge=""):
    return Line(1, 1, level, source, run, b"{}", message, context or {}, app, run_name=name, edge=edge)


@pytest.mark.parametrize(
    ("wanted", "yes", "no"),
    [
        (Filter(WARNING), line(WARNING), line(INFO)),
        (Filter(CRITICAL), line(CRITICAL), line(ERROR)),
        (Filter(sources=("app.*",)), line(source="app.one"), line(source="xapp.one")),
        (Filter(sources=("app.*",)), line(source="app."), line(source="app")),
        (Filter(sources=("one", "t?o")), line(source="two"), line(source="One")),
        (Filter(sources=("[ab]x",)), line(source="bx"), line(source="cx")),
        (Filter(sources=("[!ab]x",)), line(source="cx"), line(source="bx")),
        (Filter(sources=("a\nb",)), line(source="a\nb"), line(source="a\nb\n")),
        (Filter(apps=("bot", "b?")), line(app="b2"), line(app="bot3")),
        (Filter(apps=("",)), line(app=""), line(app="bot")),
        (Filter(text="Hit"), line(message="a hIT!"), line(message="h it")),
        (Filter(text="ä"), line(message="xä"), line(message="Ä")),
        (Filter(text="\ufb01"), line(message="\ufb01"), line(message="fi")),
        (Filter(text="AbC"), line(context={"k": "xaBc"}), line(context={"abc": "x"})),
        (Filter(text="4711"), line(context={"order": 4711}), line(context={"order": 471, "n": 1})),
        (Filter(text='{"a":1}'), line(context={"k": {"a": 1}}), line(context={"k": {"a": 10}})),
        (Filter(text="null"), line(context={"k": None}), line(context={"k": ""})),
        (Filter(text="Error: x"), line(context={"exception": "Traceback\nError: X"}), line(context={"e": "Error:"})),
        (Filter(text="ab"), line(context={"k": "ab"}), line(message="a", context={"k": "b"})),
        (Filter(text="k=x1"), line(context={"k": "X12"}), line(context={"k": "2x1"})),
        (Filter(text="k=x1"), line(message="ok=x1"), line(message="k", context={"j": "x1"})),
        (Filter(text="n=1.5"), line(context={"n": 1.5}), line(context={"n": 1.6})),
        (Filter(text="a=b"), line(context={"k": "url?a=b"}), line(context={"b": "a"})),
        (Filter(runs=("74*", "x")), line(name="744b"), line(name="4744b")),
        (Filter(runs=("*",)), line(name="x"), line(name="")),
        (Filter(edges=("ber*", "x")), line(edge="berlin"), line(edge="paris")),
        (Filter(edges=("*",)), line(edge="x"), line(edge="")),
        (Filter(where=(("k", "x"),)), line(context={"k": "x"}), line(context={"k": "X"})),
        (Filter(where=(("k", "1"),)), line(context={"k": 1}), line(context={"k": 1.0})),
        (Filter(where=(("k", "1"),)), line(context={"k": "1"}), line(context={})),
        (Filter(where=(("k", "null"),)), line(context={"k": None}), line(context={})),
        (Filter(where=(("k", "true"),)), line(context={"k": True}), line(context={"k": 1})),
        (Filter(where=(("k", '{"a":[1]}'),)), line(context={"k": {"a": [1]}}), line(context={"k": {"a": [2]}})),
        (Filter(where=(("k", ""),)), line(context={"k": ""}), line(context={"k": None})),
        (Filter(where=(("a", "1"), ("b", "2"))), line(context={"a": 1, "b": 2}), line(context={"a": 1})),
        (Filter(where=(("a.b", "1"),)), line(context={"a.b": 1}), line(context={"a": {"b": 1}})),
    ],
    ids=repr,
)
def test_matches(wanted, yes, no):
    """Each field of a filter lets its own lines through and no others, but every notice where all were asked for."""
    assert wanted.matches(yes)
    assert not wanted.matches(no)
    assert replace(wanted, notices="all").matches(no._replace(run=RELAY_RUN))
    assert not replace(wanted, notices="no").matches(yes._replace(run=RELAY_RUN))
    assert not wanted.everything


def test_everything():
    """The filter that was not given lets everything through."""
    assert Filter().everything
    assert Filter().matches(line(DEBUG))


@settings(max_examples=150, deadline=None)
@given(st.text("ab.*?[]!-\\^", max_size=8), st.text("ab.*?[]\\^-\n", max_size=8))
def test_globs_are_those_of_fnmatch(glob, source):
    """`*`, `?` and `[...]` mean what they mean in a shell, case-sensitively, on the whole source."""
    assert name_matches((glob,), source) == fnmatchcase(source, glob)


def test_a_glob_that_would_take_for_ever_in_a_naive_matcher():
    """Many stars on a long source are answered at once (a time-out fails this test)."""
    for _ in range(20):
        assert not name_matches(("*a" * 100 + "b",), "a" * 5000)


@given(st.text())
def test_ascii_lower_touches_ascii_only(text):
    """A to Z are lowered, every other character stays: SQLite's rule."""
    assert ascii_lower(text).decode() == "".join(c.lower() if "A" <= c <= "Z" else c for c in text)


def test_field_text():
    """Strings as they are, the rest as compact JSON."""
    assert [field_text(v) for v in ("x", 1, 1.5, None, True, [1, "a"], {"k": 1})] == [
        "x",
        "1",
        "1.5",
        "null",
        "true",
        '[1,"a"]',
        '{"k":1}',
    ]


def test_equal_wishes_make_equal_filters():
    """Order and repetition do not matter, so that such viewers share their bytes."""
    one = parse_filter({"source": ["b", "a,b"], "where": ["y=1", "x=2", "y=1"], "level": ["WARN"], "text": ["t"]})
    two = parse_filter(
        {"source": ["a , b,,"], "where": ["x=2", "y=1"], "level": ["debug", "warning"], "text": ["s", "t"]}
    )
    assert one == two == Filter(WARNING, ("a", "b"), "t", (("x", "2"), ("y", "1")))
    assert hash(one) == hash(two)
    assert parse_filter({}) == Filter()


@pytest.mark.parametrize(
    ("params", "code", "allowed"),
    [
        ({"level": ["chatty"]}, "bad_level", "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ({"source": ["x"] + [f"s{n}" for n in range(32)]}, "bad_source", "at most 32"),
        ({"source": ["x" * 257]}, "bad_source", "at most 256"),
        ({"source": ["x\0"]}, "bad_source", "at most 256"),
        ({"app": [",".join(f"s{n}" for n in range(33))]}, "bad_app", "33 app globs given; at most 32"),
        ({"app": ["x" * 257]}, "bad_app", "at most 256"),
        ({"text": ["x" * 257]}, "bad_text", "at most 256"),
        ({"where": ["x"]}, "bad_where", "field=value"),
        ({"where": ["=x"]}, "bad_where", "field=value"),
        ({"where": ['a"b=x']}, "bad_where", "no quote"),
        ({"where": [f"k{n}=1" for n in range(17)]}, "bad_where", "at most 16"),
        ({"where": ["k=" + "v" * 256]}, "bad_where", "at most 256"),
    ],
    ids=lambda v: repr(v)[:40],
)
def test_refused(params, code, allowed):
    """A wrong field is named by its code, and the message says what is allowed, without repeating all of it."""
    with pytest.raises(RequestError) as refusal:
        parse_filter(params)
    assert refusal.value.code == code
    assert allowed in str(refusal.value)
    assert len(str(refusal.value)) < 200
    json.dumps(str(refusal.value))


def test_the_largest_filter_is_accepted():
    """What the limits allow is allowed."""
    wanted = parse_filter(
        {
            "source": [f"{n:0256d}" for n in range(32)],
            "text": ["t" * 256],
            "where": [f"{n:02d}={'v' * 254}" for n in range(16)],
        }
    )
    assert len(wanted.sources) == 32
    assert len(wanted.where) == 16
