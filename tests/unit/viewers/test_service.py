"""What a request is answered with, and what is told of the relay as a whole."""

from __future__ import annotations

import asyncio

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from logrelay.access.token_file import change_tokens
from logrelay.access.token_keeper import TokenKeeper
from logrelay.access.tokens import Token, TokenSet, digest_of
from logrelay.access.wrong_tokens import MAX_WAITING_EACH
from logrelay.fanout.filters import Filter, Limit
from logrelay.http.response import HttpResponse
from logrelay.journal.interface import Query
from logrelay.viewers.access_policy import BATCH, AccessPolicy
from logrelay.viewers.narrowed import NarrowedFacts
from logrelay.viewers.service import EXPLAIN_BURST, Explain, Upgrade, ViewerService
from tests.support.streams import FakeSocket, FakeStream

TOKEN = "correct-horse-battery-staple"
WEBSOCKET = {"Upgrade": "websocket", "Connection": "Upgrade"}


class FakeHttp:
    """Answers everything; `/` is public."""

    def __init__(self, facts):
        self.facts = facts
        self.asked = []

    def answer(self, method, target, headers, facts):
        self.asked.append((method, target, headers))
        self.shown = facts
        return HttpResponse(200, (), b"the page")

    def is_public(self, target):
        return target == "/"


class Bench:
    def __init__(self, token=None, **settings):
        self.made = []
        self.stream = FakeStream(**settings)
        self.loop = asyncio.new_event_loop()
        self.loop.time = lambda: 100.0  # what is told and what is refused grows with time
        self.service = ViewerService(
            self.stream, AccessPolicy(token), tail=500, version="1.2.3", loop=self.loop, make_http=self.make
        )

    def make(self, facts):
        self.made.append(FakeHttp(facts))
        return self.made[-1]

    def decide(self, target="/", peer="127.0.0.1", **headers):
        given = Headers({"Host": "127.0.0.1:8765", **{k.replace("_", "-"): v for k, v in headers.items()}})
        return self.service.decide(Request(target, given), peer)

    def refused(self):
        return self.service.counters()["handshakes_refused_total"]


@pytest.fixture
def bench():
    benches = []

    def make(*args, **settings):
        benches.append(Bench(*args, **settings))
        return benches[-1]

    yield make
    for made in benches:
        made.loop.close()


def test_a_websocket_is_opened(bench):
    """With the subprotocol that the access policy chose; plain HTTP is not even loaded for it."""
    made = bench()
    assert made.decide(**WEBSOCKET) == Upgrade(None)
    assert made.decide(**WEBSOCKET, Sec_WebSocket_Protocol=f"other , {BATCH}") == Upgrade(BATCH)
    assert made.decide(**(WEBSOCKET | {"Upgrade": "WebSocket"})) == Upgrade(None)
    assert made.made == []
    assert made.refused() == 0


def test_plain_http_is_made_once_with_the_service_as_its_facts(bench):
    """It gets the request as it came, header names in lower case."""
    made = bench()
    assert made.decide("/logs?limit=1", Accept="*/*") == HttpResponse(200, (), b"the page")
    made.decide("/healthz")
    (http,) = made.made
    assert http.facts is made.service
    assert http.asked[0] == ("GET", "/logs?limit=1", {"host": "127.0.0.1:8765", "accept": "*/*"})


@pytest.mark.parametrize("upgrade", [{}, WEBSOCKET], ids=["http", "websocket"])
def test_the_refused_are_counted_and_told_why(bench, upgrade):
    """The policy's status, headers and words are the answer."""
    made = bench(TOKEN)
    answer = made.decide("/logs", **upgrade)
    assert (answer.status, answer.headers) == (401, (("WWW-Authenticate", "Bearer"),))
    assert answer.body.startswith(b"a token is needed")
    assert answer.body.endswith(b"\n")
    assert made.decide("/logs?token=wrong", **upgrade).body.startswith(b"the token is wrong")
    assert made.refused() == 2
    assert made.decide(f"/logs?token={TOKEN}", **upgrade) in (Upgrade(None), HttpResponse(200, (), b"the page"))
    assert made.refused() == 2


def test_the_web_viewers_files_need_no_token(bench):
    """Program text is no secret; a WebSocket to the same target still needs one, and a wrong Host is still wrong."""
    made = bench(TOKEN)
    assert made.decide("/").status == 200
    assert made.decide("/logs").status == 401
    assert made.decide("/", **WEBSOCKET).status == 401
    assert made.decide("/", Host="a b").status == 400
    assert made.refused() == 3


def test_the_peers_address_counts(bench):
    """Without a token only this machine comes in; a Unix socket has no address and is this machine."""
    made = bench()
    assert made.decide(peer="192.168.1.7", **WEBSOCKET).status == 403
    assert made.decide(peer=None, **WEBSOCKET) == Upgrade(None)


def test_a_session_begins_with_a_greeting(bench):
    """`connection` comes first, then what the URL asks for."""
    made = bench(oldest=3)
    socket = FakeSocket()
    made.service.open(socket, "/?tail=4", subprotocol=BATCH, deflate=True)
    assert socket.sent == [
        {
            "type": "connection",
            "status": "connected",
            "head": "k3f9ab-10",
            "oldest": "k3f9ab-3",
            "traders": [{"app": "bot"}],
            "version": "1.2.3",
            "encrypted": False,
        }
    ]
    (joined, started) = made.stream.calls
    assert joined[2:] == ("batch", True)
    assert started == ("start_tail", 4)


def test_a_session_begins_with_the_tail_of_the_settings(bench):
    """Whoever does not say how many lines gets the configured number, one per message."""
    made = bench()
    made.service.open(FakeSocket(), "/", subprotocol=None, deflate=False)
    (joined, started) = made.stream.calls
    assert joined[2:] == ("single", False)
    assert started == ("start_tail", 500)


def test_ready_from_begin_to_end_while_lines_are_kept(bench):
    """All three are needed."""
    made = bench()
    assert made.service.ready() is False
    made.service.begin()
    assert made.service.ready() is True
    made.stream.trouble = "the disk is full"
    assert made.service.ready() is False
    made.stream.trouble = None
    made.service.end()
    assert made.service.ready() is False


def test_the_facts_are_the_streams(bench):
    """What plain HTTP shows: published head for people, committed head for searches."""
    made = bench(head=10, committed=8, oldest=2, viewer_count=3, pending_lines=2, trouble="slow")
    status = dict(made.service.status())
    assert status.pop("uptime") >= 0
    assert status == {
        "version": "1.2.3",
        "epoch": "k3f9ab",
        "head": "k3f9ab-10",
        "oldest": "k3f9ab-2",
        "viewers": 3,
        "traders": [{"app": "bot"}],
        "journal": {"trouble": "slow", "bytes": 4096, "damaged_lines": 0, "pending_lines": 2},
    }
    assert (made.service.id_of(8), made.service.head) == ("k3f9ab-8", 8)
    assert made.service.counters() == {
        "lines_total": 8,
        "handshakes_refused_total": 0,
        "wrong_tokens_total": 0,
        "internal_errors_total": 0,
        "token_explanations_total": 0,
    }
    made.service.count_malformed("tls")
    labelled = made.service.labelled()
    assert labelled["trader_up"] == [({"app": "bot"}, 1)]
    assert {labels["reason"]: n for labels, n in labelled["requests_malformed_total"] if n} == {"tls": 1}
    assert made.service.resolve("k3f9ab-7").seq == 7
    page = made.loop.run_until_complete(made.service.read(Query(after=0, until=3, limit=9)))
    assert page.seqs == [2, 3]


LIMIT = Limit(30, apps=("bot",))


class Tokens(Bench):
    """A service with a limited and an unlimited token, whose clocks stand still."""

    def __init__(self):
        super().__init__()
        one, all_ = Token("one", digest_of("lr_one"), "1", LIMIT), Token("all", digest_of("lr_all"), "2")
        self.keeper = TokenKeeper(None, None, now=lambda: 100.0, mono=lambda: 5.0)
        self.keeper.token_set = TokenSet((one, all_), needed=True)
        self.service = ViewerService(
            self.stream, AccessPolicy(None), tail=500, version="1.2.3", loop=self.loop, make_http=self.make,
            tokens=self.keeper,
        )  # fmt: skip


@pytest.fixture
def guarded():
    made = Tokens()
    yield made
    made.loop.close()


@pytest.mark.parametrize("peer", ["127.0.0.1", "192.0.2.1"])
def test_the_first_token_counts_before_the_next_look_at_its_file(peer, tmp_path):
    """From this machine, which was let in without one, with its limits; from another, which was not, at all."""
    path = str(tmp_path / "tokens.json")
    made = Bench()
    keeper = TokenKeeper(path, None, now=lambda: 100.0, mono=lambda: 5.0)
    made.service = ViewerService(
        made.stream, AccessPolicy(None), tail=500, version="1.2.3", loop=made.loop, make_http=made.make, tokens=keeper
    )
    try:
        change_tokens(path, lambda there: (*there, Token("one", digest_of("lr_one"), "1", LIMIT)))
        answer = made.decide("/logs", peer, Authorization="Bearer lr_one")
        assert (answer.status, answer.token.limit) == (200, LIMIT)
    finally:
        made.loop.close()


def test_an_answer_is_made_from_what_the_token_allows(guarded):
    """Plain HTTP gets narrowed facts for a limited token, all facts for another; the answer says by which token."""
    for text, limited in (("lr_one", True), ("lr_all", False)):
        answer = guarded.decide("/logs", Authorization=f"Bearer {text}")
        assert (answer.status, answer.token.digest, answer.delay_s) == (200, digest_of(text), 0.0)
        facts = guarded.made[0].shown
        assert isinstance(facts, NarrowedFacts) == facts.limited == limited
    assert guarded.decide("/").token is None


def test_a_session_sees_what_the_token_allows(guarded):
    """From the greeting on; the upgrade says by which token."""
    upgrade = guarded.decide("/?token=lr_one", **WEBSOCKET)
    assert upgrade.token.limit == LIMIT
    guarded.stream.traders_shown = lambda: [{"app": "bot"}, {"app": "other"}]
    socket = FakeSocket()
    session = guarded.service.open(socket, "/?level=debug", subprotocol=None, deflate=False, token=upgrade.token)
    assert socket.sent[0]["traders"] == [{"app": "bot"}]
    assert socket.sent[0]["limit"] == {"level": "WARNING", "app": ["bot"]}
    assert guarded.stream.calls[0][1] == Filter().within(LIMIT)
    calls = len(guarded.stream.calls)
    session.message_received(b'{"type":"subscribe","level":"debug"}')
    assert socket.sent[-1]["filter"] == {"level": "WARNING"}
    assert len(guarded.stream.calls) == calls, "what is allowed of it is what it has"
    session.message_received(b'{"type":"subscribe","level":"error","app":"*"}')
    assert guarded.stream.calls[-1] == ("resubscribe", Filter(40, apps=("*",)).within(LIMIT))


def test_answers_to_wrong_tokens_wait_and_then_there_are_too_many(guarded):
    """Each from one address later than the one before, the fifth at once with 429; a missing or a good one never."""
    wrong = [guarded.decide("/logs?token=wrong", peer="10.0.0.1") for _ in range(6)]
    assert [answer.status for answer in wrong] == [401] * MAX_WAITING_EACH + [429] * 2
    assert [answer.delay_s for answer in wrong] == [0.1, 0.2, 0.4, 0.8, 0.0, 0.0]
    assert dict(wrong[-1].headers) == {"Retry-After": "5"}
    assert guarded.decide("/logs", peer="10.0.0.1").delay_s == 0.0
    assert guarded.decide("/logs", peer="10.0.0.1", Authorization="Basic abc").delay_s == 0.0
    assert guarded.decide("/logs?token=lr_all", peer="10.0.0.1").status == 200
    assert guarded.decide("/logs?token=wrong", peer="10.0.0.2").delay_s == 0.1
    assert guarded.decide("/logs?token=wrong", **WEBSOCKET).delay_s == 0.1
    counters = guarded.service.counters()
    assert (counters["wrong_tokens_total"], counters["handshakes_refused_total"]) == (8, 10)


# --- who is told in a line ------------------------------------------------------------------------------------


def is_told(bench, target="/", **headers):
    decision = bench.decide(target, **{**WEBSOCKET, **headers})
    return isinstance(decision, Explain) or (decision.status, "WWW-Authenticate" in dict(decision.headers))


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/", {"Origin": "http://127.0.0.1:8765"}, True),
        ("/?device=phone", {}, True),
        ("/?token=wrong", {"Origin": "http://127.0.0.1:8765"}, True),
        ("/", {}, (401, True)),
        ("/?token=wrong", {}, (401, True)),
        ("/", {"Origin": "http://127.0.0.1:8765", "Sec-WebSocket-Protocol": BATCH}, (401, True)),
        ("/", {"Origin": "http://evil.example"}, (403, False)),
        ("/logs?device=phone", {"Upgrade": "h2c"}, (401, True)),
    ],
)
def test_a_client_that_cannot_show_a_refusal_is_told_in_a_line(bench, target, headers, expected):
    """An app and somebody's page; terminals, monitors and the relay's own page are refused as ever."""
    made = bench(TOKEN)

    assert is_told(made, target, **headers) == expected
    assert made.refused() == 1


def test_what_it_is_told(bench):
    """Whether there was no token, or a wrong one, whose answer comes later; a subprotocol that it offered is taken."""
    made = bench(TOKEN)
    none = made.decide("/?device=phone", **WEBSOCKET)
    wrong = made.decide("/?device=phone", **WEBSOCKET, **{"Sec-WebSocket-Protocol": "bearer.wrong"})

    assert none.text.startswith("this relay needs a token, and none was shown: ")
    assert (none.subprotocol, none.delay_s, none.token) == (None, 0.0, None)
    assert wrong.text.startswith("this relay needs a token, and the one that was shown is not good: ")
    assert (wrong.subprotocol, wrong.delay_s > 0) == ("bearer.wrong", True)


def test_so_many_are_told(bench):
    """The others are refused."""
    made = bench(TOKEN)
    told = [is_told(made, "/?device=phone") for _ in range(EXPLAIN_BURST + 3)]

    assert told == [True] * EXPLAIN_BURST + [(401, True)] * 3
    assert made.service.counters()["token_explanations_total"] == EXPLAIN_BURST


def test_a_token_made_a_moment_ago_is_taken(bench, tmp_path):
    """Before the relay has looked at the file by itself; a wrong one is refused all the same."""
    path = str(tmp_path / "tokens.json")
    phone, pad = Token("phone", digest_of("lr_phone"), "a1"), Token("pad", digest_of("lr_pad"), "b2")
    change_tokens(path, lambda _there: (phone,))
    made = bench()
    mono = iter(range(100))
    made.service._tokens = TokenKeeper(path, None, mono=lambda: next(mono))
    change_tokens(path, lambda there: (*there, pad))
    assert made.decide(**WEBSOCKET, Authorization="Bearer lr_pad") == Upgrade(None, pad)
    assert made.decide(**WEBSOCKET, Authorization="Bearer lr_none").status == 401
