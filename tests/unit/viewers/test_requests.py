"""What a viewer may say: every request of docs/protocol.md, section 2, and every way to get one wrong."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logrelay.errors import RequestError
from logrelay.fanout.filters import Filter
from logrelay.model import CRITICAL, ERROR, WARNING
from logrelay.viewers import messages
from logrelay.viewers.messages import ERROR_CODES
from logrelay.viewers.requests import History, Ping, Silence, Subscribe, parse_request, parse_target, query_tokens


def test_a_subscription_reads_back_what_subscribed_says():
    """The filter in `subscribed`, sent as a subscribe request, is the same filter."""
    wanted = Filter(WARNING, ("a", "b.*"), "Ä b", (("k", "1"), ("l", "x=y")))
    shape = json.loads(messages.subscribed(wanted, "e-1"))["filter"]
    assert parse_request(json.dumps({"type": "subscribe", **shape})) == Subscribe(wanted)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ('{"type":"subscribe","channel":"logs"}', Subscribe()),
        ('{"type":"subscribe"}', Subscribe()),
        ('{"type":"subscribe","level":null,"source":null,"tail":null,"after":null}', Subscribe()),
        ('{"type":"subscribe","level":"WARNING"}', Subscribe(Filter(WARNING))),
        ('{"type":"subscribe","level":"warn"}', Subscribe(Filter(WARNING))),
        ('{"type":"subscribe","level":"fatal"}', Subscribe(Filter(CRITICAL))),
        ('{"type":"subscribe","source":"b,a"}', Subscribe(Filter(sources=("a", "b")))),
        ('{"type":"subscribe","source":["b"," a "]}', Subscribe(Filter(sources=("a", "b")))),
        ('{"type":"subscribe","source":[]}', Subscribe(Filter())),
        ('{"type":"subscribe","app":"b, a*,b"}', Subscribe(Filter(apps=("a*", "b")))),
        ('{"type":"subscribe","text":""}', Subscribe(Filter())),
        ('{"type":"subscribe","text":"x"}', Subscribe(Filter(text="x"))),
        ('{"type":"subscribe","where":"a=1"}', Subscribe(Filter(where=(("a", "1"),)))),
        ('{"type":"subscribe","where":["b=2","a=1"]}', Subscribe(Filter(where=(("a", "1"), ("b", "2"))))),
        (
            '{"type":"subscribe","where":{"a":1,"b":"x","c":null,"d":[1]}}',
            Subscribe(Filter(where=(("a", "1"), ("b", "x"), ("c", "null"), ("d", "[1]")))),
        ),
        ('{"type":"subscribe","tail":0}', Subscribe(tail=0)),
        ('{"type":"subscribe","tail":"100000"}', Subscribe(tail=100_000)),
        ('{"type":"subscribe","after":"k3f9ab-0"}', Subscribe(after="k3f9ab-0")),
        ('{"type":"subscribe","after":"k3f9ab.x7q2-1043","tail":3}', Subscribe(tail=3, after="k3f9ab.x7q2-1043")),
        ('{"type":"history","before":"k3f9ab-9"}', History("k3f9ab-9", 200)),
        ('{"type":"history","before":"k3f9ab-9","limit":1000}', History("k3f9ab-9", 1000)),
        ('{"type":"ping"}', Ping()),
        ('{"type":"ping","extra":1}', Ping()),
        ('{"type":"silence","app":"scal*","for_s":7200}', Silence("scal*", 7200.0)),
        ('{"type":"unsilence","app":"scal*"}', Silence("scal*", 0.0)),
    ],
)
def test_requests(text, request_):
    """What a viewer may send, as text and as bytes."""
    assert parse_request(text) == request_
    assert parse_request(text.encode()) == request_


LONG = "x" * 257
REFUSED = [
    ("", "bad_json"),
    ("{", "bad_json"),
    ("null", "bad_json"),
    ("[]", "bad_json"),
    ('"subscribe"', "bad_json"),
    ("NaN", "bad_json"),
    ('{"type":"subscribe","text":"\\ud800"}', "bad_json"),
    ("[" * 60_000, "bad_json"),
    ("{}", "bad_type"),
    ('{"type":null}', "bad_type"),
    ('{"type":["subscribe"]}', "bad_type"),
    ('{"type":"Subscribe"}', "bad_type"),
    ('{"type":"log"}', "bad_type"),
    ('{"type":"subscribe","channel":"trades"}', "bad_channel"),
    ('{"type":"subscribe","channel":null}', "bad_channel"),
    ('{"type":"subscribe","channel":["logs"]}', "bad_channel"),
    ('{"type":"subscribe","level":"loud"}', "bad_level"),
    ('{"type":"subscribe","level":""}', "bad_level"),
    ('{"type":"subscribe","level":30}', "bad_level"),
    ('{"type":"subscribe","level":true}', "bad_level"),
    ('{"type":"subscribe","level":{}}', "bad_level"),
    ('{"type":"subscribe","source":[1.5]}', "bad_source"),
    ('{"type":"subscribe","source":[["a"]]}', "bad_source"),
    (json.dumps({"type": "subscribe", "source": LONG}), "bad_source"),
    (json.dumps({"type": "subscribe", "source": [str(n) for n in range(33)]}), "bad_source"),
    (json.dumps({"type": "subscribe", "source": "a\0"}), "bad_source"),
    ('{"type":"subscribe","app":[1.5]}', "bad_app"),
    (json.dumps({"type": "subscribe", "app": [str(n) for n in range(33)]}), "bad_app"),
    (json.dumps({"type": "subscribe", "text": LONG}), "bad_text"),
    ('{"type":"subscribe","text":[null]}', "bad_text"),
    (json.dumps({"type": "subscribe", "text": "a\0b"}), "bad_text"),
    ('{"type":"subscribe","notices":"some"}', "bad_notices"),
    ('{"type":"history","before":"k3f9ab-1","notices":"counted"}', "bad_notices"),
    ('{"type":"history","before":"k3f9ab-1","notices":true}', "bad_notices"),
    ('{"type":"subscribe","where":"novalue"}', "bad_where"),
    ('{"type":"subscribe","where":"=x"}', "bad_where"),
    ('{"type":"subscribe","where":["a\\"b=x"]}', "bad_where"),
    ('{"type":"subscribe","where":[["a","b"]]}', "bad_where"),
    (json.dumps({"type": "subscribe", "where": [f"k{n}=1" for n in range(17)]}), "bad_where"),
    (json.dumps({"type": "subscribe", "where": "k=" + LONG}), "bad_where"),
    ('{"type":"subscribe","where":{"a":' + "[" * 500 + "]" * 500 + "}}", "bad_where"),
    ('{"type":"subscribe","tail":-1}', "bad_tail"),
    ('{"type":"subscribe","tail":100001}', "bad_tail"),
    ('{"type":"subscribe","tail":1.5}', "bad_tail"),
    ('{"type":"subscribe","tail":true}', "bad_tail"),
    ('{"type":"subscribe","tail":"many"}', "bad_tail"),
    ('{"type":"subscribe","tail":""}', "bad_tail"),
    ('{"type":"subscribe","tail":"1_000"}', "bad_tail"),
    ('{"type":"subscribe","tail":" 5 "}', "bad_tail"),
    ('{"type":"subscribe","tail":"٣"}', "bad_tail"),
    ('{"type":"subscribe","tail":"' + "9" * 5000 + '"}', "bad_tail"),
    ('{"type":"subscribe","tail":{}}', "bad_tail"),
    ('{"type":"subscribe","after":""}', "bad_id"),
    ('{"type":"silence","for_s":60}', "bad_silence"),
    ('{"type":"silence","app":"","for_s":60}', "bad_silence"),
    ('{"type":"silence","app":7,"for_s":60}', "bad_silence"),
    ('{"type":"silence","app":"a","for_s":0}', "bad_silence"),
    ('{"type":"silence","app":"a","for_s":"1h"}', "bad_silence"),
    ('{"type":"silence","app":"a","for_s":true}', "bad_silence"),
    ('{"type":"silence","app":"a","for_s":2592001}', "bad_silence"),
    ('{"type":"silence","app":"a"}', "bad_silence"),
    ('{"type":"unsilence"}', "bad_silence"),
    ('{"type":"subscribe","after":"42"}', "bad_id"),
    ('{"type":"subscribe","after":42}', "bad_id"),
    ('{"type":"subscribe","after":1.5}', "bad_id"),
    ('{"type":"subscribe","after":"K3F9AB-1"}', "bad_id"),
    ('{"type":"subscribe","after":"k3f9ab-1\\n"}', "bad_id"),
    ('{"type":"subscribe","after":"k3f9ab-٣"}', "bad_id"),
    ('{"type":"subscribe","after":"k3f9ab-' + "1" * 20 + '"}', "bad_id"),
    ('{"type":"subscribe","run":["' + "a" * 257 + '"]}', "bad_run"),
    ('{"type":"subscribe","edge":["' + "a" * 257 + '"]}', "bad_edge"),
    ('{"type":"history"}', "bad_id"),
    ('{"type":"history","before":7}', "bad_id"),
    ('{"type":"history","before":["k3f9ab-1"]}', "bad_id"),
    ('{"type":"history","before":"k3f9ab-1","limit":0}', "bad_limit"),
    ('{"type":"history","before":"k3f9ab-1","limit":1001}', "bad_limit"),
    ('{"type":"history","before":"k3f9ab-1","limit":null}', "bad_limit"),
    ('{"type":"history","before":"k3f9ab-1","limit":[200]}', "bad_limit"),
    ('{"type":"history","before":"k3f9ab-1","limit":true}', "bad_limit"),
    ('{"type":"history","before":"k3f9ab-1","limit":2.0}', "bad_limit"),
]


@pytest.mark.parametrize(("text", "code"), REFUSED, ids=lambda v: repr(v)[:50])
def test_refused_requests(text, code):
    """Every wrong request has its code and a short message that can be sent back."""
    with pytest.raises(RequestError) as refusal:
        parse_request(text.encode())
    assert refusal.value.code == code
    assert code in ERROR_CODES
    assert 0 < len(str(refusal.value)) < 250
    assert json.loads(messages.error(code, str(refusal.value)))["code"] == code


SESSION_CODES = {"bad_device", "busy", "expired", "journal", "alerts", "limited"}


def test_every_code_that_parsing_can_give_is_reached():
    """The list above leaves no code out (the others are of a URL, or need a journal or a session)."""
    assert {code for _, code in REFUSED} == set(ERROR_CODES) - SESSION_CODES


@settings(max_examples=120, deadline=None)
@given(
    st.binary(max_size=40)
    | st.builds(
        lambda d: orjson.dumps({"type": "subscribe", **d}),
        st.dictionaries(
            st.sampled_from(
                ["level", "source", "text", "where", "notices", "tail", "after", "channel", "type", "before", "limit"]
            ),
            st.recursive(
                st.none() | st.booleans() | st.integers(-5, 2**63) | st.floats() | st.text(max_size=5),
                lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
                max_leaves=5,
            ),
        ),
    )
)
def test_hostile_requests_are_refused_or_understood(text):
    """Whatever a viewer sends, the answer is a request or a RequestError with a known code."""
    try:
        request = parse_request(text)
    except RequestError as error:
        orjson.loads(messages.error(error.code, str(error)))
        known = error.code in ERROR_CODES
    else:
        known = True
        if isinstance(request, Subscribe) and request.filter is not None:
            orjson.loads(messages.subscribed(request.filter, "e-1"))
    assert known


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ("/", Subscribe()),
        ("/any/path?", Subscribe()),
        ("/?token=x", Subscribe()),
        ("/?level=error&tail=5", Subscribe(Filter(ERROR), 5)),
        ("/?source=a&source=b,c", Subscribe(Filter(sources=("a", "b", "c")))),
        ("/?app=a&app=b%2A,c", Subscribe(Filter(apps=("a", "b*", "c")))),
        ("/?text=%C3%A4+x", Subscribe(Filter(text="ä x"))),
        ("/?where=a%3D1&where=b%3Dx%3Dy", Subscribe(Filter(where=(("a", "1"), ("b", "x=y"))))),
        ("/?after=k3f9ab-1042", Subscribe(after="k3f9ab-1042")),
        ("/?tail=1&tail=2", Subscribe(tail=2)),
        ("//[?tail=3", Subscribe(tail=3)),
        ("http://[broken/?tail=3", Subscribe(tail=3)),
        ("/?text=a?b", Subscribe(Filter(text="a?b"))),
        ("/?text=a%23b", Subscribe(Filter(text="a#b"))),
    ],
)
def test_targets(target, wanted):
    """A subscription in the query of the URL, whatever the path looks like."""
    assert parse_target(target) == wanted


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"level": "loud"}, "bad_level"),
        ({"tail": "-1"}, "bad_tail"),
        ({"tail": ""}, "bad_tail"),
        ({"after": ""}, "bad_id"),
        ({"where": "x"}, "bad_where"),
        ({"text": "\0"}, "bad_text"),
        ({"source": LONG}, "bad_source"),
        ({"app": LONG}, "bad_app"),
    ],
)
def test_refused_targets(query, code):
    """The same codes for a subscription in the URL."""
    with pytest.raises(RequestError) as refusal:
        parse_target("/?" + urlencode(query))
    assert refusal.value.code == code


@pytest.mark.parametrize(
    "raw", [b"/?text=\xff", b"/?text=%ff", b"/?source=\xed\xa0\x80", b"/?where=a%3D\xff", b"/\xff"]
)
def test_targets_that_are_not_utf8(raw):
    """Bytes that are not UTF-8 neither raise nor come back as something that cannot be said in JSON."""
    for target in (raw.decode("ascii", "surrogateescape"), raw.decode("latin-1")):
        query_tokens(target)
        try:
            wanted = parse_target(target)
        except RequestError as error:
            orjson.loads(messages.error(error.code, str(error)))
            continue
        orjson.loads(messages.subscribed(wanted.filter or Filter(), "e-1"))
        assert (wanted.filter or Filter()).text.encode() is not None


def test_tokens_in_the_query():
    """Every token parameter is returned, blank ones too: two of them are refused by the access policy."""
    assert query_tokens("/?token=a&x=1&token=") == ["a", ""]
    assert query_tokens("/") == []
    assert query_tokens("//[/?token=a") == ["a"]


@pytest.mark.parametrize("request_", ['{"type":"subscribe","where":X}', '{"type":"subscribe","after":X}', '{"type":X}'])
def test_what_is_nested_deeper_than_it_can_be_written_is_an_error_of_the_viewer(request_):
    """orjson reads a thousand levels; an answer repeats what was wrong."""
    with pytest.raises(RequestError):
        parse_request(request_.replace("X", "[" * 1000 + "]" * 1000))
