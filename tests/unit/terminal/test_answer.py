"""An answer, cut anywhere, line by line; and what its status means."""

from __future__ import annotations

from itertools import repeat

import pytest

from logrelay.errors import ConfigError, JournalError, NoRelayError
from logrelay.terminal.answer import Answer, is_anothers, refusal


def test_lines_are_whole_wherever_the_answer_was_cut():
    """Also the last one, which may lack its line break."""
    body = b'{"id":"a"}\n{"id":"b"}\n\n{"id":"c"}'
    for size in range(1, len(body) + 1):
        chunks = iter([body[at : at + size] for at in range(0, len(body), size)])
        assert [one["id"] for one in Answer(200, {}, chunks).objects()] == ["a", "b", "c"]


def test_a_journal_that_cannot_be_read_on_is_an_error():
    """Not a short answer; other errors among the lines are for who reads them."""
    rows = [
        b'{"type":"error","code":"expired","message":"m"}\n',
        b'{"type":"error","code":"journal","message":"disk"}\n',
    ]

    found = Answer(200, {"Logrelay-Head": "k-9"}, iter(rows))
    assert found.head == "k-9"
    with pytest.raises(JournalError, match="disk"):
        assert [one["code"] for one in found.objects()] == ["expired"]


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (400, b'{"type":"error","code":"bad_level","message":"level x"}', ConfigError, "level x"),
        (410, b'{"message":"another journal"}', ConfigError, "another journal"),
        (401, b"a token is needed\n", NoRelayError, "a token is needed; give one with --token-file"),
        (503, b"[]", NoRelayError, "HTTP 503"),
    ],
)
def test_a_refusal_says_why(status, body, kind, said):
    """In the relay's own words, and with what to do."""
    with pytest.raises(kind, match=said):
        Answer(status, {}, iter([body])).check()
    assert isinstance(refusal(status, body), kind)


@pytest.mark.parametrize(
    ("status", "body", "is_no_relay"),
    [
        (200, b'{"status":"ok","version":"1","epoch":"a"}', False),
        (503, b'{"status":"trouble","version":"1","epoch":"a"}', False),
        (200, b'{"status":"ok","journal":{"trouble":null},"traders":[]}', False),
        (200, b'{"status":"ok"}', True),
        (200, b"<html>", True),
        (200, b"[1]", True),
        (200, b'{"version":"2"}', True),
        (301, b"", True),
        (404, b"no such page", True),
        (501, b"", True),
        (401, b"a token is needed", False),
        (403, b"", False),
        (429, b"", False),
        (502, b"the proxy's", False),
    ],
)
def test_a_relay_is_known_by_what_it_says_of_itself(status, body, is_no_relay):
    """Whoever lets nobody in may be one, and to a token with limits it says little."""
    assert is_anothers(status, body) == is_no_relay


def test_an_answer_without_end_is_read_up_to_a_bound():
    """In bytes and in time."""
    assert Answer(200, {}, repeat(b"ab")).beginning(5, 60.0) == b"ababab"
    assert Answer(200, {}, repeat(b"ab")).beginning(5, 0.0) == b"ab"
    assert Answer(200, {}, iter([b"a", b"b"])).beginning(5, 60.0) == b"ab"
