"""GET /summary: what happened since a time or a line, counted and shown."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from logrelay.fanout.filters import Limit
from logrelay.fanout.line_json import notice_body
from logrelay.http import summary as module
from logrelay.model import ERROR, INFO, RANKS, RELAY_RUN, RELAY_SOURCE, SHOWN, WARNING, Line
from logrelay.viewers.narrowed import NarrowedFacts
from tests.support.http import NOW, collect

NOTHING = {"DEBUG": 0, "INFO": 0, "WARNING": 0, "ERROR": 0, "CRITICAL": 0}
STAMP = "2026-01-23T09:00:00.000000Z"


@pytest.fixture
def say(facts):
    """Add a line as a bot logs it."""

    def add(app, level, message, source="bot.main", **context):
        seq = facts.head + 1
        rank = RANKS[level]
        if rank == RANKS["critical"]:
            context["severity"] = "CRITICAL"
        body = {"type": "log", "id": f"k3f9ab-{seq}", "level": SHOWN[rank], "source": source, "message": message,
                "context": context, "timestamp": STAMP, "app": app, "run": "0" * 32}  # fmt: skip
        facts.lines.append(Line(seq, 0, rank, source, 1, orjson.dumps(body), message, context, app))
        return f"k3f9ab-{seq}"

    return add


@pytest.fixture
def tell(facts):
    """Add a notice."""

    def add(rank, message, **context):
        seq = facts.head + 1
        body = notice_body(f"k3f9ab-{seq}", round(NOW * 1e6), rank, message, context)
        facts.lines.append(Line(seq, 0, rank, RELAY_SOURCE, RELAY_RUN, body, message, context))
        return f"k3f9ab-{seq}"

    return add


@pytest.fixture
def ask(api, facts):
    """GET /summary; the whole answer as an object."""

    def get(query="after=k3f9ab-0", limit=None):
        seen = facts if limit is None else NarrowedFacts(facts, limit)
        answer = api.answer("GET", f"/summary?{query}", {}, seen)
        body = orjson.loads(asyncio.run(collect(answer)))
        return body if answer.status == 200 else (answer.status, body["code"])

    return get


def test_the_night(ask, say, tell, facts):
    """Rejections, a CRITICAL, a crash, a gap, and a bot that is up again: all of it in one answer."""
    facts.traders = [
        {"app": "scalper", "state": "connected"},
        {"app": "scalper", "state": "crashed"},
        {"app": "idle", "state": "closed"},
    ]
    first = say("scalper", "info", "order.sent", order_id="A1")
    for number in range(12):
        rejected = say(
            "scalper", "error", f"order {number} rejected", exception=f"Traceback\n  x\nRejected: {number}\n"
        )
    critical = say("scalper", "critical", "margin.call")
    crash = tell(ERROR, "scalper is gone", notice="trader", state="crashed", app="scalper", run="ab" * 16)
    tell(INFO, "scalper connected", notice="trader", state="connected", app="scalper")
    gap = tell(WARNING, "40 lines", notice="gap", cause="overflow", count=40, app="scalper")
    last = say("scalper", "debug", "tick")
    answer = ask()
    lines = {"DEBUG": 1, "INFO": 1, "WARNING": 0, "ERROR": 12, "CRITICAL": 1}
    assert answer["lines"] == lines
    assert answer["head"] == "k3f9ab-18"
    assert answer["oldest"] == "k3f9ab-1"
    assert (answer["since"], answer["after"]) == (None, "k3f9ab-0")
    assert answer["until"] == "2026-01-23T10:00:00.000000Z"
    scalper, idle = answer["apps"]
    assert scalper == {
        "app": "scalper",
        "state": "connected",
        "lines": lines,
        "first": {"id": first, "timestamp": STAMP},
        "last": {"id": last, "timestamp": STAMP, "level": "DEBUG", "message": "tick"},
        "crashes": 1,
        "gaps": 1,
        "lost": 40,
    }
    assert idle["state"] == "closed"
    assert idle["lines"] == NOTHING
    assert idle["first"] is idle["last"] is None
    margin, rejections = answer["problems"]
    assert margin["severity"] == "CRITICAL"
    assert margin["level"] == "ERROR"
    assert margin["first"] == margin["last"] == {"id": critical, "timestamp": STAMP}
    assert margin["exception"] is None
    assert "severity" not in rejections
    assert rejections["count"] == 12
    assert rejections["first"]["id"] == "k3f9ab-2"
    assert rejections["last"]["id"] == rejected
    assert rejections["message"] == "order 11 rejected"
    assert rejections["exception"] == "Rejected: 11"
    stamp = "2026-01-23T10:00:00.000000Z"
    assert answer["crashes"] == [
        {"id": crash, "timestamp": stamp, "app": "scalper", "run": "ab" * 16, "message": "scalper is gone"}
    ]
    assert answer["gaps"] == [{"id": gap, "timestamp": stamp, "app": "scalper", "cause": "overflow", "count": 40}]
    assert [answer[f"more_{name}"] for name in ("apps", "problems", "crashes", "gaps")] == [0, 0, 0, 0]


def test_what_a_crashed_bot_left_behind_is_no_second_crash(ask, tell):
    """The notice at INFO tells of a crash that was told of before; crashes told of by number count as many."""
    tell(ERROR, "gone", notice="trader", state="crashed", app="a")
    tell(INFO, "what it left behind has come", notice="trader", state="crashed", app="a")
    tell(ERROR, "and 7 more", notice="trader", state="crashed", count=7, apps=["a"], suppressed=True)
    answer = ask()
    assert answer["apps"][0]["crashes"] == 8
    assert len(answer["crashes"]) == 2
    assert answer["more_crashes"] == 6


def test_a_notice_that_is_a_problem(ask, tell):
    """What the relay warns of, and is neither a crash nor a gap, is among the problems."""
    tell(WARNING, "a (pid 7) lost its connection", notice="trader", state="lost", app="a")
    tell(WARNING, "a (pid 9) lost its connection", notice="trader", state="lost", app="a")
    tell(ERROR, "disk full", notice="relay", state="trouble")
    trouble, lost = ask()["problems"]
    assert (trouble["app"], trouble["source"], trouble["message"]) == ("", "logrelay", "disk full")
    assert (lost["app"], lost["count"]) == ("a", 2)


def test_what_a_state_alone_does_not_tell(ask, facts):
    """A bot that a restarted relay waits for is not there, and a job that has ended is no bot that was stopped."""
    facts.traders = [
        {"app": "a", "state": "connected", "awaited": True},
        {"app": "b", "state": "connected"},
        {"app": "b", "state": "connected", "awaited": True},
        {"app": "c", "state": "closed", "brief": True},
        {"app": "c", "state": "closed"},
        {"app": "d", "state": "closed", "brief": True},
        {"app": "e", "state": "closed", "brief": True},
        {"app": "e", "state": "quiet"},
    ]
    marks = {app["app"]: (app.get("awaited"), app.get("brief")) for app in ask()["apps"]}
    assert marks == {"a": (True, None), "b": (None, None), "c": (None, None), "d": (None, True), "e": (None, None)}


def test_app_narrows_it(ask, say, tell, facts):
    """Lines, problems, crashes and traders of other bots are left out; what concerns all stays."""
    facts.traders = [{"app": "a", "state": "connected"}, {"app": "b", "state": "lost"}]
    say("a", "error", "x")
    say("b", "error", "y")
    tell(ERROR, "gone", notice="trader", state="crashed", app="b")
    tell(WARNING, "gap", notice="gap", cause="several", count=3, app="")
    answer = ask("after=k3f9ab-0&app=a*")
    assert [app["app"] for app in answer["apps"]] == ["a"]
    assert [problem["message"] for problem in answer["problems"]] == ["x"]
    assert answer["crashes"] == []
    assert len(answer["gaps"]) == 1


def test_a_limited_token_narrows_it(ask, say, tell, facts):
    """Level, source and app of the limit hold for everything that is counted."""
    facts.traders = [{"app": "a", "state": "connected"}, {"app": "b", "state": "lost"}]
    say("a", "info", "no")
    say("a", "warning", "yes")
    say("a", "warning", "other logger", source="secret")
    say("b", "error", "no")
    tell(ERROR, "gone", notice="trader", state="crashed", app="b")
    tell(ERROR, "tokens", notice="relay", state="access")
    tell(ERROR, "and 7 more", notice="trader", state="crashed", count=7, apps=["a", "b"], suppressed=True)
    answer = ask(limit=Limit(WARNING, ("bot.*",), ("a",)))
    assert answer["lines"] == {**NOTHING, "WARNING": 1}
    assert [app["app"] for app in answer["apps"]] == ["a"]
    assert [problem["message"] for problem in answer["problems"]] == ["yes"]
    assert answer["crashes"] == []


def test_the_most_severe_comes_first_then_the_newest(ask, say):
    """A group is as severe as its worst line, and shows that one."""
    say("a", "warning", "w1")
    say("a", "error", "e")
    say("a", "warning", "w2 1")
    say("a", "critical", "w2 2")
    say("a", "warning", "w2 3")
    say("a", "warning", "w1")
    worst, error, warning = ask()["problems"]
    assert (worst["message"], worst["count"], worst["severity"]) == ("w2 2", 3, "CRITICAL")
    assert (worst["first"]["id"], worst["last"]["id"]) == ("k3f9ab-3", "k3f9ab-5")
    assert [error["message"], warning["message"]] == ["e", "w1"]


def test_lists_are_bounded_and_say_so(ask, say, tell, monkeypatch):
    """What is beyond the bounds is counted, not shown."""
    for name in ("SHOWN_APPS", "SHOWN_PROBLEMS", "SHOWN_NOTICES"):
        monkeypatch.setattr(module, name, 2)
    for letter in "abcde":
        say(letter, "error", f"problem {letter}")
        newest = tell(ERROR, "gone", notice="trader", state="crashed", app=letter)
        tell(WARNING, "gap", notice="gap", cause="overflow", count=2, app=letter)
    answer = ask()
    for name in ("apps", "problems", "crashes", "gaps"):
        assert len(answer[name]) == 2
        assert answer[f"more_{name}"] == 3
    assert answer["crashes"][0]["id"] == newest
    assert answer["lines"]["ERROR"] == 5


def test_since_and_after(ask, facts, say):
    """Without a parameter the last day counts; `since` is inclusive, `after` exclusive, and both may be given."""
    for _ in range(10):
        say("a", "info", "x")
    facts.fill_in_times()
    assert ask("since=3s")["lines"]["INFO"] == 4
    assert ask("since=3s")["since"] == "2026-01-23T09:59:57.000000Z"
    assert ask("after=k3f9ab-4")["lines"]["INFO"] == 6
    assert ask("after=k3f9ab-8&since=3s")["lines"]["INFO"] == 2
    assert ask("")["since"] == "2026-01-22T10:00:00.000000Z"
    assert ask("since=1s")["apps"][0]["first"]["id"] == "k3f9ab-9"


def test_lines_that_come_meanwhile_are_of_the_next_answer(ask, facts, say):
    """`head` is the last line that was counted: whoever asks for what is behind it counts every line once."""
    say("a", "info", "x")
    facts.fill_in_times()
    facts.before_read.append(lambda: say("a", "error", "late"))
    first = ask()
    assert (first["head"], first["lines"]["ERROR"]) == ("k3f9ab-1", 0)
    assert ask(f"after={first['head']}")["lines"]["ERROR"] == 1


def test_a_line_that_is_gone_meanwhile_keeps_its_place(ask, facts, say):
    """Its id and time are known without it."""
    say("a", "info", "x")
    facts.fill_in_times()
    facts.lines_at = lambda _seqs: asyncio.sleep(0, {})
    (app,) = ask()["apps"]
    assert app["last"]["id"] == "k3f9ab-1"
    assert app["last"]["message"] is None


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("since=never", (400, "bad_time")),
        ("limit=5", (400, "bad_parameter")),
        ("after=nonsense", (400, "bad_id")),
        ("after=other0-5", (410, "expired")),
        ("app=" + "a" * 300, (400, "bad_app")),
    ],
)
def test_refusals(ask, query, answer):
    """As those of /logs."""
    assert ask(query) == answer


def test_an_empty_journal(ask):
    """Nothing is there, and nothing is wrong."""
    answer = ask("")
    assert (answer["head"], answer["oldest"], answer["apps"], answer["problems"]) == (None, None, [], [])


def test_a_journal_that_cannot_be_read(ask, facts, say):
    """The answer is an error object then."""
    say("a", "info", "x")
    facts.failing = True
    assert ask()["code"] == "journal"


def test_it_counts_as_an_answer_under_way(ask, api, monkeypatch):
    """As one of /logs does."""
    monkeypatch.setattr("logrelay.budgets.SEARCHES", 0)
    assert ask() == (503, "busy")
