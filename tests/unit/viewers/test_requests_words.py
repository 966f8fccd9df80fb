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
        ('{"type":"log"}', "type 'log' is not one of subscribe, history, ping"),
        ("{}", "type None is not one of subscribe, history, ping"),
        ('{"type":"subscribe","channel":"trades"}', "channel 'trades' is unknown; the only one is 'logs'"),
        ('{"type":"subscribe","level":true}', "level True is not a string"),
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


@pytest.mark.parametrize("chars", [SHOWN_CHARS - 2, SHOWN_CHARS - 1])
def test_a_wrong_value_is_repeated_up_to_a_bound(chars):
    """With its quotes it takes at most that many characters; a longer one ends in dots."""
    value = "x" * chars
    shown = repr(value) if chars == SHOWN_CHARS - 2 else "'" + "x" * (SHOWN_CHARS - 4) + "..."
    assert len(shown) == SHOWN_CHARS

    assert refusal(json.dumps({"type": value})) == f"type {shown} is not one of subscribe, history, ping"


def test_one_line_is_the_least_history():
    """And 200 are asked for when nothing is said."""
    assert parse_request('{"type":"history","before":"e-1","limit":1}') == History("e-1", 1)
    assert History("e-1") == History("e-1", 200)


def test_the_same_words_for_a_subscription_in_the_url():
    """Of a parameter that is repeated the last one counts."""
    with pytest.raises(RequestError) as caught:
        parse_target("/?tail=5&tail=many")
    assert str(caught.value) == "tail 'many' is not a whole number from 0 to 100000"
