"""What a viewer with a wrong request is told, word for word, and how much of the request is repeated."""

from __future__ import annotations

import json

import pytest

from logrelay.errors import RequestError
from logrelay.viewers.requests import SHOWN_CHARS, History, parse_request, parse_target

NESTED = '{"type":"subscribe","where":{"a":' + "[" * 500 + "]" * 500 + "}}"


def refusal(text):
    with pytest.raises(RequestError) as caught:
        parse_request(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", '\'{\' is not JSON; send an object such as {"type":"subscribe","channel":"logs"}'),
        ("[1]", "'[1]' is not a JSON object"),
        ('{"type":"log"}', "type 'log' is not one of subscribe, history, ping, silence, unsilence"),
        ("{}", "type is missing; it is one of subscribe, history, ping, silence, unsilence"),
        (b"[1]", "'[1]' is not a JSON object"),
        (b"\xff", '\'\\\\xff\' is not JSON; send an object such as {"type":"subscribe","channel":"logs"}'),
        (
            '{"type":{"a":[true,null]}}',
            'type {"a":[true,null]} is not one of subscribe, history, ping, silence, unsilence',
        ),
        ('{"type":"history"}', "before is missing; it is an id such as 'k3f9ab-1042'"),
        ('{"type":"subscribe","channel":"trades"}', "channel 'trades' is unknown; the only one is 'logs'"),
        ('{"type":"subscribe","level":true}', "level true is not a string"),
        ('{"type":"subscribe","text":1.5}', "text 1.5 is not a string"),
        (NESTED, "where is nested too deep"),
        ('{"type":"subscribe","tail":-1}', "tail '-1' is not a whole number from 0 to 100000"),
        ('{"type":"subscribe","after":"42"}', "after '42' is not an id such as 'k3f9ab-1042'"),
        ('{"type":"history","before":7}', "before 7 is not an id such as 'k3f9ab-1042'"),
        ('{"type":"history","before":"e-1","limit":"x"}', "limit 'x' is not a whole number from 1 to 1000"),
    ],
    ids=lambda text: text[:40],
)
def test_a_refusal_says_what_was_wrong_and_what_is_allowed(text, said):
    """The wrong value is repeated as the relay understood it."""
    assert refusal(text) == said


@pytest.mark.parametrize("chars", [SHOWN_CHARS, SHOWN_CHARS + 1])
def test_a_wrong_value_is_repeated_up_to_a_bound(chars):
    """A longer one ends in dots, within its quotes."""
    value = "x" * chars
    shown = repr(value) if chars == SHOWN_CHARS else "'" + "x" * (SHOWN_CHARS - 3) + "...'"

    assert (
        refusal(json.dumps({"type": value}))
        == f"type {shown} is not one of subscribe, history, ping, silence, unsilence"
    )


def test_one_line_is_the_least_history():
    """And 200 are asked for when nothing is said."""
    assert parse_request('{"type":"history","before":"e-1","limit":1}') == History("e-1", 1)
    assert History("e-1") == History("e-1", 200)


def test_the_same_words_for_a_subscription_in_the_url():
    """Of a parameter that is repeated the last one counts."""
    with pytest.raises(RequestError) as caught:
        parse_target("/?tail=5&tail=many")
    assert str(caught.value) == "tail 'many' is not a whole number from 0 to 100000"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ('{"type":"subscribe","channel":"logs","tail":3}', ""),
        (
            '{"type":"subscribe","tial":3}',
            "field 'tial' means nothing here and changes nothing; there is type, channel",
        ),
        ('{"type":"subscribe","device":"tablet"}', "field 'device' means nothing here and changes nothing; there is"),
        ('{"type":"history","before":"e-1","limt":3}', "field 'limt' means nothing here and changes nothing; there is"),
        ('{"type":"history","before":"e-1","limit":3,"notices":"no"}', ""),
        (
            '{"type":"subscribe","a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1}',
            "fields 'a', 'b', 'c', 'd', 'e' and 2 more mean nothing here and change nothing; there is type, channel",
        ),
    ],
    ids=lambda text: text[:40],
)
def test_what_means_nothing_is_noted(text, note):
    """A name that was misspelt changes nothing, and is not passed over in silence."""
    noted = parse_request(text).note
    assert noted.startswith(note) if note else noted == ""


def test_what_means_nothing_in_the_url_is_noted():
    """All parameters are named, but for the one that is a secret."""
    assert parse_target("/?tail=3&level=error&device=tablet&token=secret").note == ""
    assert parse_target("/?tial=3&token=secret").note == (
        "parameter 'tial' means nothing here and changes nothing; there is level, source, app, run, edge, text, where, "
        "notices, tail, after, device"
    )
