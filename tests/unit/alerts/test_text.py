"""How alerts read, and that nothing is in them that was hidden or not asked for."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from logrelay.alerts.engine import Engine, LocalTime
from logrelay.alerts.records import Alert, Matter
from logrelay.alerts.text import BODY_CHARS, TITLE_CHARS, render, trial
from logrelay.config.alert_rules import KINDS, MAX_PATTERNS, rules_of_toml
from logrelay.fanout.line_json import json_safe
from robo_trader.log_relay import Redactor
from tests.unit.log_relay.test_redaction_table import SECRET_LINES, left_of

PAGE = "https://relay.example"
T = 1_769_162_400


def stamp(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")


def matter(**given):
    values = {
        "rule": "phone", "kind": "error", "key": "k", "app": "scalper", "since_us": T * 10**6, "last_us": T * 10**6,
        "count": 1, "rank": 40, "source": "bot.broker", "message": "order rejected", "reason": "", "id": "k3f9ab-7",
    }  # fmt: skip
    return Matter(**(values | given))


def shown(*matters, why="now", more=0, lines=None, again=False):
    count = sum(one.count for one in matters) if lines is None else lines
    return render(Alert("phone", why, matters, more, count), page=PAGE, stamp=stamp, again=again)


def test_an_error_says_bot_what_when_why_and_where():
    message = shown(matter(reason="RejectedError: margin call"))

    assert message.title == "scalper: order rejected"
    assert message.body.splitlines() == [
        "ERROR of bot.broker (scalper)",
        "RejectedError: margin call",
        "at 10:00:00",
        "https://relay.example/#k3f9ab-7",
    ]
    assert message.severity == "failure"


def test_a_count_says_since_when_and_how_many_are_new():
    message = shown(matter(count=1042, last_us=(T + 60) * 10**6), why="again", lines=1041)

    assert "1,042 times since 10:00:00, 1,041 of them since the last alert, last at 10:01:00" in message.body


def test_a_state_that_is_over_meanwhile_says_so():
    crash = matter(kind="crashed", message="scalper (pid 7) is gone", active=True, back_at=T + 60.0)

    assert "It is back since 10:01:00." in shown(crash, why="quiet_hours").body
    assert "- scalper crashed; back since 10:01:00" in shown(crash, matter(), why="quiet_hours").body


def test_what_happens_between_machines_is_named():
    link = matter(kind="edge", key="\nlink", app="", message="lines of other machines cannot be collected", active=True)
    lost = matter(kind="gap", key="\nstream", app="", message="the stream LOGRELAY has lost 3 messages", count=3)

    assert shown(link).title == "logrelay: the lines of other machines do not come"
    assert shown(link, why="back").title == "logrelay: the lines of other machines come again"
    assert shown(lost).title == "logrelay: lines of other machines are missing"
    assert "3 lines" not in shown(lost).body


def test_what_is_beyond_the_bound_is_not_called_by_one_of_its_names():
    beyond = matter(key="beyond", app="", message="order rejected", count=2002)

    assert shown(beyond).title == "2,002 more things in the log, of too many kinds to tell them apart"
    assert "The newest: order rejected" in shown(beyond).body


def test_several_things_are_listed_each_with_its_link():
    message = shown(
        matter(kind="crashed", message="scalper (pid 7) is gone", id="k3f9ab-9"),
        matter(count=30, reason="E: x" * 100),
        why="quiet_hours", more=4, lines=80,
    )  # fmt: skip

    assert message.title == "6 things in the log: scalper crashed"
    assert message.body.startswith(
        "Held back during the quiet hours:\n- scalper crashed\nhttps://relay.example/#k3f9ab-9\n"
    )
    assert "30 x scalper: order rejected: E: x" in message.body
    assert message.body.endswith("and 4 more; 80 times in all")


def test_what_is_over_says_since_when():
    message = shown(matter(kind="crashed", back_at=T + 180.0), why="back")

    assert (message.title, message.severity) == ("scalper is back", "success")
    assert "since 10:03:00; it began at 10:00:00" in message.body


def test_a_crash_that_is_over_before_it_could_be_told_says_so():
    assert "It is back since 10:03:00." in shown(matter(kind="crashed", back_at=T + 180.0)).body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", ["now", "back"])
@pytest.mark.parametrize("app", ["scalper", ""])
def test_every_kind_has_words(kind, why, app):
    message = shown(matter(kind=kind, app=app, message="", id=""), why=why)

    assert message.title
    assert "None" not in message.title + message.body


def test_what_may_have_been_sent_before_says_so():
    assert "you may have had it before" in shown(matter(), again=True).body.splitlines()[0]


def test_a_name_that_a_terminal_would_obey_is_shown_as_text():
    message = shown(matter(app="a\x1b[31m\nb", message="x\ny", reason="z\x07"))

    assert "\x1b" not in message.title + message.body
    assert "\n" not in message.title


def test_texts_are_bounded():
    message = shown(*[matter(app="a" * 300, message="m" * 300, reason="r" * 300)] * 5, more=3)

    assert len(message.title) <= TITLE_CHARS
    assert len(message.body) <= BODY_CHARS


def test_without_a_page_there_is_no_link():
    assert "#" not in render(Alert("phone", "now", (matter(),), 0, 1), page="", stamp=stamp).body


def test_a_test_names_its_rule():
    assert "phone" in trial("phone").body


def said_of(event, fields=()):
    """Everything that the owner reads of a line with this event, as the relay has it from the bot."""
    table = {"url": "json://x", "on": ["error"]}
    engine = Engine(
        rules_of_toml([table | ({"fields": list(fields)[:MAX_PATTERNS]} if fields else {})]),
        local=lambda _now: LocalTime(0, 0),
    )
    message, context = str(event["event"]), {name: value for name, value in event.items() if name != "event"}
    line = {"id": "k3f9ab-1", "level": "ERROR", "source": "bot", "app": "bot", "message": message, "context": context}
    engine.take({"type": "log", **line}, T * 10**6, T)
    alerts = engine.due(T)
    assert len(alerts) == 1
    return "\n".join(render(alerts[0], page=PAGE, stamp=stamp)[:2])


def redacted(event, environ):
    """The event as viewers have it: what the bot's redaction leaves, as JSON."""
    return json_safe(Redactor(environ=environ).redact(event))


@pytest.mark.parametrize("line", SECRET_LINES, ids=lambda line: str(line.event)[:60])
def test_no_secret_of_the_redaction_s_table_is_in_an_alert(line):
    """As it was logged, with every field named by a rule, and with its text in the last line of an exception."""
    clean = redacted(line.event, line.environ)
    raised = f"Traceback (most recent call last):\nValueError: {line.event['event']}"

    assert list(left_of(line, said_of(clean))) == []
    assert list(left_of(line, said_of(clean, fields=[name for name in clean if name and name != "event"]))) == []
    if len(line.event) == 1 and isinstance(line.event["event"], str):
        failed = redacted({"event": "it failed", "exception": raised}, line.environ)
        assert list(left_of(line, said_of(failed))) == []


def test_the_context_is_left_out_unless_a_rule_names_a_field():
    event = {"event": "boom", "account": "U7654321", "symbol": "AAPL"}

    assert "U7654321" not in said_of(event)
    assert "AAPL" not in said_of(event)
    assert "symbol: AAPL" in said_of(event, fields=["symbol"])
    assert "U7654321" not in said_of(event, fields=["symbol"])
