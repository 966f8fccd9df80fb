"""Which alerts lines and notices lead to. Time is an argument: an hour takes no time here."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import orjson
import pytest

from logrelay.alerts.engine import MAX_MATTERS, RECOVER_S, Engine, LocalTime
from logrelay.config.alert_rules import LINE_COOLDOWN_S, QUIET_AFTER_S, STATE_COOLDOWN_S, rules_of_toml
from logrelay.model import SHOWN, WARNING

START = 1_769_126_400.0
"""2026-01-23 00:00 UTC, a Friday."""
URL = "json://receiver"


def utc(now):
    moment = datetime.fromtimestamp(now, UTC)
    return LocalTime(moment.weekday(), moment.hour * 60 + moment.minute)


class Owner:
    """A relay's stream and an owner's phone, with a clock that is set."""

    def __init__(self, *rules, expected=(), local=utc, now=START):
        self.now = now
        self.local = local
        self.seq = 0
        self.given = rules_of_toml(list(rules) or [URL])
        self.expected = expected
        self.kept = {}
        self.alerts = []
        self.engine = Engine(self.given, local=local, expected=expected)

    def line(self, message, level="ERROR", app="scalper", source="bot.broker", **context):
        self.take({"level": level, "source": source, "message": message, "context": context, "app": app})

    def notice(self, notice, state, level=WARNING, **context):
        shown = {"notice": notice, "state": state, **context}
        self.take({"level": SHOWN[level], "source": "logrelay", "message": "what the relay says", "context": shown})

    def take(self, line):
        self.seq += 1
        self.engine.take({"type": "log", "id": f"k3f9ab-{self.seq}", **line}, int(self.now * 1e6), self.now)

    def bot(self, state, app="scalper", run="r1", **more):
        level = {"crashed": 40, "lost": 30, "gone": 30}.get(state, 20)
        self.notice("trader", state, level, app=app, run=run, **more)

    def look(self, seconds=0.0):
        """Let time pass up to the moment at which the engine wants to be asked, as its owner does; return what came."""
        end, found = self.now + seconds, []
        while True:
            found += self.engine.due(self.now)
            self.keep()
            at = self.engine.next_due(self.now)
            assert at > self.now, "it would be asked without pause"
            if at > end:
                break
            self.now = at
        self.now = end
        self.alerts += found
        return found

    def keep(self):
        for name, row in self.engine.take_changes().items():
            if row is None:
                self.kept.pop(name, None)
            else:
                self.kept[name] = orjson.loads(orjson.dumps(row))

    def restart(self):
        self.engine = Engine(self.given, local=self.local, expected=self.expected, kept=self.kept)


@pytest.fixture
def owner():
    return Owner()


def told(alerts):
    return [(alert.why, [(m.kind, m.app, m.count) for m in alert.matters]) for alert in alerts]


# --- lines ------------------------------------------------------------------------------------------------------------


def test_an_error_is_told_at_once_and_what_follows_is_counted(owner):
    owner.line("order 4711 rejected")
    assert told(owner.look()) == [("now", [("error", "scalper", 1)])]

    for number in range(40):
        owner.line(f"order {number} rejected")
    assert owner.look(LINE_COOLDOWN_S - 1) == []
    again = owner.look(1)

    assert told(again) == [("again", [("error", "scalper", 41)])]
    assert again[0].lines == 40
    assert owner.look(10 * LINE_COOLDOWN_S) == []


def test_errors_of_different_problems_are_different():
    owner = Owner()
    owner.line("boom", exception="Traceback\nValueError: 17")
    owner.look(130)
    owner.line("boom", exception="Traceback\nValueError: 18")
    owner.look(130)
    owner.line("boom", exception="Traceback\nKeyError: 'x'")
    found = owner.look(130)

    assert told(found) == [("now", [("error", "scalper", 1)])]
    assert found[0].matters[0].reason == "KeyError: 'x'"


def test_ten_thousand_errors_in_a_minute_ring_once_or_twice_and_are_all_counted(owner):
    for number in range(10_000):
        owner.line(f"order {number} rejected")
        owner.look(60 / 10_000)
    owner.look(LINE_COOLDOWN_S)

    assert [alert.why for alert in owner.alerts] == ["now", "again"]
    assert owner.alerts[-1].matters[0].count == 10_000
    assert sum(alert.lines for alert in owner.alerts) == 10_000


def test_ten_thousand_different_errors_in_a_minute_ring_once_or_twice_and_are_all_counted(owner):
    for number in range(10_000):
        owner.line("".join(chr(97 + int(digit)) * 2 for digit in str(number)))
        if number % 100 == 99:
            owner.look(0.6)
    owner.look(10)

    assert [alert.why for alert in owner.alerts] == ["now", "gathered"]
    assert sum(alert.lines for alert in owner.alerts) == 10_000
    assert len(owner.alerts[1].matters) + owner.alerts[1].more <= MAX_MATTERS + 1


def test_a_problem_that_has_been_away_for_the_cooldown_is_a_new_one(owner):
    owner.line("boom")
    owner.look(2 * LINE_COOLDOWN_S)
    since = owner.now
    owner.line("boom")
    found = owner.look()

    assert told(found) == [("now", [("error", "scalper", 1)])]
    assert found[0].matters[0].since_us == int(since * 1e6)


def test_critical_does_not_wait_for_errors(owner):
    owner.line("boom")
    owner.look(1)
    owner.line("the end", severity="CRITICAL")

    assert told(owner.look(0)) == [("now", [("critical", "scalper", 1)])]


def test_what_is_below_error_is_not_told(owner):
    owner.line("hm", "WARNING")
    owner.line("hello", "INFO")

    assert owner.look(3600) == []


def test_a_rule_of_its_own_by_level_app_source_text_and_field():
    table = {"url": URL, "level": "info", "app": "scal*", "source": "bot.*", "text": "MARGIN", "where": "symbol=AAPL"}
    owner = Owner(table)
    owner.line("margin call", "INFO", symbol="AAPL")
    owner.line("margin call", "DEBUG", symbol="AAPL")
    owner.line("margin call", "INFO", symbol="MSFT")
    owner.line("margin call", "INFO", app="other", symbol="AAPL")
    owner.line("margin call", "INFO", source="web", symbol="AAPL")
    owner.line("all is well", "INFO", symbol="AAPL")

    assert told(owner.look(3600)) == [("now", [("lines", "scalper", 1)])]
    assert owner.engine.lowest_level == 20


def test_a_rate_is_told_when_so_many_lines_came_in_the_time():
    owner = Owner({"url": URL, "level": "warning", "rate": "3 in 10m"})
    for _ in range(4):
        owner.line("slow", "WARNING")
        assert owner.look(301) == []
    owner.line("slow", "WARNING")
    owner.look(1)
    owner.line("slower", "WARNING")

    assert told(owner.look(1)) == [("now", [("lines", "scalper", 3)])]


def test_fields_are_kept_only_where_a_rule_names_them():
    owner = Owner({"url": URL, "fields": ["symbol", "exception"]}, {"url": URL, "name": "b"})
    owner.line("boom", symbol="AAPL", account="U123", exception="E: x")
    first, second = owner.look()

    assert (first.matters[0].fields, second.matters[0].fields) == ({"symbol": "AAPL"}, {})


# --- bots -------------------------------------------------------------------------------------------------------------


def test_a_crash_is_told_at_once_and_that_the_bot_is_back(owner):
    owner.bot("connected")
    owner.bot("crashed")
    assert told(owner.look(1)) == [("now", [("crashed", "scalper", 1)])]

    owner.bot("connected", run="r2")
    assert owner.look(RECOVER_S - 1) == []
    assert [alert.why for alert in owner.look(1)] == ["back"]
    assert owner.look(3600) == []


def test_a_bot_that_crashes_again_and_again_is_told_once_and_then_counted(owner):
    for number in range(10):
        owner.bot("connected", run=f"r{number}")
        owner.look(5)
        owner.bot("crashed", run=f"r{number}")
        owner.look(5)
    assert told(owner.alerts) == [("now", [("crashed", "scalper", 1)])]

    assert told(owner.look(STATE_COOLDOWN_S)) == [("again", [("crashed", "scalper", 10)])]


def test_a_bot_that_came_back_and_crashes_for_good_is_told_within_the_cooldown(owner):
    owner.bot("crashed")
    owner.look(1)
    owner.bot("connected", run="r2")
    assert [alert.why for alert in owner.look(60)] == ["back"]
    owner.bot("crashed", run="r2")

    assert told(owner.look(STATE_COOLDOWN_S)) == [("again", [("crashed", "scalper", 2)])]


def test_one_of_several_runs_that_crashes_is_no_state_that_has_an_end(owner):
    owner.bot("connected", run="r1")
    owner.bot("connected", run="r2")
    owner.bot("crashed", run="r1")
    owner.look(60)
    owner.bot("connected", run="r3")

    assert told(owner.look(3600)) == []
    assert told(owner.alerts) == [("now", [("crashed", "scalper", 1)])]


def test_many_bots_that_crash_together_are_told_in_two_alerts(owner):
    for number in range(30):
        owner.bot("crashed", app=f"bot{number}")
    owner.look(10)

    assert [alert.why for alert in owner.alerts] == ["now", "gathered"]
    assert len(owner.alerts[1].matters) + owner.alerts[1].more == 29


def test_crashes_told_by_number_count(owner):
    owner.notice("trader", "crashed", 40, count=70, apps=["cron"], suppressed=True)

    assert told(owner.look()) == [("now", [("crashed", "cron", 70)])]


def test_what_a_crashed_bot_left_behind_is_no_crash(owner):
    owner.notice("trader", "crashed", 20, app="scalper", run="r1")

    assert owner.look(60) == []


def quiet_since(owner):
    return datetime.fromtimestamp(owner.now, UTC).isoformat()


def test_a_bot_that_says_nothing_is_told_after_the_time_and_that_it_speaks_again(owner):
    last = quiet_since(owner)
    owner.bot("connected")
    owner.look(60)
    owner.bot("quiet", last_line=last)
    assert owner.look(QUIET_AFTER_S - 61) == []
    assert told(owner.look(2)) == [("now", [("quiet", "scalper", 1)])]
    assert owner.look(7200) == []

    owner.bot("connected")
    assert [alert.why for alert in owner.look(60)] == ["back"]


def test_a_quiet_bot_that_ends_in_order_does_not_speak_again(owner):
    owner.bot("quiet", last_line=quiet_since(owner))
    owner.look(QUIET_AFTER_S + 1)
    owner.bot("closed")

    assert owner.look(3600) == []
    assert owner.engine.active(owner.now) == []


def test_silence_is_normal_in_the_hours_that_are_given_and_counts_from_their_end():
    owner = Owner({"url": URL, "quiet_after": "30m", "quiet_normal": {"scalper": "22:00-07:00"}})
    owner.bot("quiet", last_line=quiet_since(owner))
    owner.bot("quiet", app="other", run="r9", last_line=quiet_since(owner))

    assert told(owner.look(7 * 3600)) == [("now", [("quiet", "other", 1)])]
    assert owner.look(28 * 60) == []
    assert told(owner.look(3 * 60)) == [("now", [("quiet", "scalper", 1)])]


def test_the_time_of_silence_is_a_bot_s_own():
    owner = Owner({"url": URL, "quiet_after": {"reports": "off", "slow*": "2h", "default": "5m"}})
    for number, app in enumerate(("reports", "slow1", "fast")):
        owner.bot("quiet", app=app, run=f"r{number}", last_line=quiet_since(owner))

    assert told(owner.look(301)) == [("now", [("quiet", "fast", 1)])]
    assert told(owner.look(2 * 3600)) == [("now", [("quiet", "slow1", 1)])]
    assert owner.look(30 * 3600) == []


def test_a_bot_that_lost_its_connection_is_gone_after_the_time_and_once(owner):
    owner.bot("connected")
    owner.bot("lost")
    assert owner.look(299) == []
    owner.bot("gone")
    assert told(owner.look(1)) == [("now", [("gone", "scalper", 1)])]
    assert owner.look(3600) == []

    owner.bot("connected", run="r2")
    assert [alert.why for alert in owner.look(60)] == ["back"]


def test_a_process_that_runs_without_a_connection_is_told_after_the_time(owner):
    owner.bot("lost")

    assert told(owner.look(QUIET_AFTER_S)) == [("now", [("gone", "scalper", 1)])]


def test_an_expected_bot_that_ended_in_order_is_missed():
    owner = Owner({"url": URL, "quiet_after": "10m"}, expected=("scalper",))
    owner.bot("connected")
    owner.look(3600)
    owner.bot("closed")
    owner.look(1)

    assert told(owner.look(600)) == [("now", [("gone", "scalper", 1)])]
    owner.bot("connected", run="r2")
    assert [alert.why for alert in owner.look(60)] == ["back"]


def test_the_relay_s_own_list_corrects_what_was_missed(owner):
    owner.bot("crashed")
    owner.look(1)
    owner.engine.set_traders([{"app": "scalper", "run": "r2", "state": "connected", "quiet_s": 0.5}], owner.now)

    assert [alert.why for alert in owner.look(60)] == ["back"]


# --- the relay --------------------------------------------------------------------------------------------------------


def test_trouble_with_the_journal_is_told_once_and_its_end(owner):
    owner.notice("relay", "trouble", 40, reason="database or disk is full")
    found = owner.look()
    owner.notice("relay", "trouble", 40, reason="the same")
    owner.look(3600)
    owner.notice("relay", "recovered")
    owner.look(60)

    assert [alert.why for alert in owner.alerts] == ["now", "back"]
    assert found[0].matters[0].reason == "database or disk is full"


def test_a_restart_of_the_relay_ends_its_trouble(owner):
    owner.notice("relay", "trouble", 40)
    owner.look()
    owner.engine.set_trouble(None, owner.now)

    assert [alert.why for alert in owner.look(60)] == ["back"]


@pytest.mark.parametrize(
    ("begin", "more", "end", "kind"),
    [
        ("disk_low", {}, "disk_recovered", "disk"),
        ("edge_unreachable", {"edge": "paris"}, "edge_back", "edge"),
        ("upkeep_trouble", {}, "upkeep_recovered", "journal"),
        ("collect_lost", {"reason": "no servers"}, "collect_back", "edge"),
    ],
)
def test_other_states_of_the_relay_begin_and_end(owner, begin, more, end, kind):
    owner.notice("relay", begin, 40, **more)
    found = owner.look(60)
    owner.notice("relay", end, **more)

    assert [m.kind for alert in found for m in alert.matters] == [kind]
    assert [alert.why for alert in owner.look(60)] == ["back"]


@pytest.mark.parametrize(
    ("state", "more", "count"),
    [("stream", {"messages": 3}, 3), ("stream", {}, 1), ("forward_lost", {"count": 40, "cause": "retention"}, 40)],
)
def test_lines_lost_between_machines_are_a_gap(owner, state, more, count):
    """They are told of by notices that are not called so."""
    owner.notice("relay", state, WARNING, **more)

    assert told(owner.look()) == [("now", [("gap", "", count)])]


def test_a_state_that_lasts_through_a_restart_of_the_relay_is_told_once(owner):
    """The new relay says it again, a moment later."""
    owner.engine.set_relay("first", owner.now)
    owner.notice("relay", "disk_low", 40)
    assert len(owner.look(3600)) == 1
    owner.engine.set_relay("second", owner.now)
    owner.look(RECOVER_S / 2)
    owner.notice("relay", "disk_low", 40)
    assert owner.look(3600) == []
    owner.notice("relay", "disk_recovered")

    assert [alert.why for alert in owner.look(60)] == ["back"]


def test_a_state_that_the_new_relay_does_not_know_of_is_over_and_the_next_one_is_told(owner):
    """Nobody says its end: the relay that could is gone. It must not keep the next trouble from being told."""
    owner.engine.set_relay("first", owner.now)
    owner.notice("relay", "disk_low", 40)
    owner.look(3600)
    owner.restart()
    owner.engine.set_relay("first", owner.now)
    assert owner.look(3600) == [], "the process of the alerts was started again, the relay was not"
    owner.restart()
    owner.engine.set_relay("second", owner.now)
    assert [alert.why for alert in owner.look(3600)] == ["back"]
    owner.notice("relay", "disk_low", 40)

    assert [m.kind for alert in owner.look(60) for m in alert.matters] == ["disk"]


def test_gaps_are_counted_in_lines(owner):
    owner.notice("gap", "", cause="overflow", count=40, app="scalper")
    owner.look()
    owner.notice("gap", "", cause="overflow", count=2, app="scalper")
    owner.notice("gap", "", cause="purged", count=9)
    owner.look(LINE_COOLDOWN_S)

    assert told(owner.alerts) == [("now", [("gap", "scalper", 40)]), ("again", [("gap", "scalper", 42)])]


def test_other_notices_are_not_told(owner):
    for state in ("access", "limit", "socket", "runs", "evicted", "alerts"):
        owner.notice("relay", state, 40)

    assert owner.look(3600) == []


def test_old_lines_that_go_for_want_of_space_are_told(owner):
    owner.notice("relay", "evicted", cause="space", count=9)

    assert told(owner.look()) == [("now", [("disk", "", 9)])]


# --- less -------------------------------------------------------------------------------------------------------------


def test_nothing_is_sent_in_quiet_hours_and_a_summary_follows():
    owner = Owner({"url": URL, "quiet_hours": "23:00-07:00"})
    owner.line("boom")
    owner.line("bang")
    owner.bot("crashed")
    assert owner.look(6 * 3600) == []
    assert owner.engine.kept_back_total == 3
    found = owner.look(3600 + 60)

    assert [(alert.why, len(alert.matters)) for alert in found] == [("quiet_hours", 1), ("quiet_hours", 2)]
    owner.line("boom again")
    assert [alert.why for alert in owner.look(1)] == ["now"] or owner.look(60)


def test_what_is_beyond_the_most_in_an_hour_comes_in_one_summary():
    owner = Owner({"url": URL, "max_per_hour": 3})
    for number in range(10):
        owner.line("".join(chr(97 + number) * 3))
        owner.look(150)
    owner.look(3600)

    assert [alert.why for alert in owner.alerts] == ["now", "now", "now", "cap"]
    assert len(owner.alerts[3].matters) + owner.alerts[3].more == 7


def test_lines_do_not_use_up_what_a_crash_needs():
    owner = Owner({"url": URL, "max_per_hour": 2})
    for number in range(4):
        owner.line("".join(chr(97 + number) * 3))
        owner.look(150)
    owner.bot("crashed")

    assert [alert.matters[0].kind for alert in owner.look(1)] == ["crashed"]


def test_nothing_is_told_of_a_silenced_bot_and_states_that_last_are_told_afterwards(owner):
    assert owner.engine.silence("scal*", owner.now + 7200)
    owner.line("boom")
    owner.line("boom", app="other")
    owner.bot("crashed")
    owner.bot("crashed", app="cron", run="r7")
    owner.look(60)
    assert sorted(m.app for alert in owner.alerts for m in alert.matters) == ["cron", "other"]
    assert owner.engine.silenced_total == 1
    assert [one["silenced"] for one in owner.engine.active(owner.now) if one["app"] == "scalper"] == [True] * 2
    owner.alerts.clear()

    assert told(owner.look(7200)) == [("now", [("crashed", "scalper", 1)])]
    owner.line("boom")
    assert told(owner.look(1)) == [("now", [("error", "scalper", 1)])]


def test_what_was_over_before_its_silence_was_is_told_to_nobody(owner):
    """A planned restart that went wrong once, and then well."""
    owner.engine.silence("scalper", owner.now + 3600)
    owner.bot("crashed")
    owner.look(5)
    owner.bot("connected", run="r2")

    assert owner.look(2 * 3600) == []
    assert owner.engine.silenced_total == 1
    assert owner.engine.active(owner.now) == []


def test_several_crashes_in_a_silence_are_one_alert_at_its_end_if_the_bot_stays_away(owner):
    owner.engine.silence("scalper", owner.now + 3600)
    for number in range(3):
        owner.bot("crashed", run=f"r{number}")
        owner.look(60)
        owner.bot("connected", run=f"r{number + 1}")
        owner.look(2)
    owner.bot("crashed", run="r3")
    found = owner.look(2 * 3600)

    assert [(alert.why, len(alert.matters)) for alert in found] == [("now", 1)]
    assert found[0].matters[0].active


def test_who_was_told_of_a_crash_is_told_behind_a_silence_that_the_bot_is_back(owner):
    """The owner hears of the crash, silences the bot to mend it, and starts it again."""
    owner.bot("crashed")
    owner.look(60)
    owner.engine.silence("scalper", owner.now + 3600)
    owner.bot("connected", run="r2")
    assert owner.look(3599) == []

    assert [alert.why for alert in owner.look(2)] == ["back"]
    assert owner.look(3600) == []


def test_what_is_over_when_its_alert_was_held_back_is_told_in_one(owner):
    """A crash in the quiet hours: the summary says that the bot is back, and nothing says it again."""
    owner = Owner({"url": URL, "quiet_hours": "23:00-07:00"})
    owner.bot("crashed")
    owner.look(60)
    owner.bot("connected", run="r2")
    found = owner.look(10 * 3600)

    assert [alert.why for alert in found] == ["quiet_hours"]
    assert found[0].matters[0].back_at > 0


def test_a_state_told_by_a_version_that_did_not_note_it_is_over_for_its_owner_too(owner):
    owner.bot("crashed")
    owner.look(60)
    for row in owner.kept.values():
        row.pop("is_known", None)
    owner.restart()
    owner.bot("connected", run="r2")

    assert [alert.why for alert in owner.look(60)] == ["back"]


def test_a_silence_can_be_ended(owner):
    owner.engine.silence("scalper", owner.now + 7200)
    assert owner.engine.silences(owner.now) == {"scalper": owner.now + 7200}
    assert owner.engine.unsilence("scalper")
    assert not owner.engine.unsilence("scalper")
    owner.line("boom")

    assert len(owner.look()) == 1


# --- from life to life ------------------------------------------------------------------------------------------------


def test_a_restart_repeats_nothing_and_forgets_nothing(owner):
    owner.line("boom")
    owner.bot("crashed")
    owner.notice("relay", "trouble", 40)
    owner.engine.silence("other", owner.now + 7200)
    assert len(owner.look(10)) == 3
    owner.line("boom")
    owner.look(1)
    owner.restart()
    assert owner.look(10) == []
    assert owner.engine.silences(owner.now)
    assert told(owner.look(LINE_COOLDOWN_S)) == [("again", [("error", "scalper", 2)])]
    owner.restart()
    owner.bot("connected", run="r2")

    assert [alert.why for alert in owner.look(60)] == ["back"]


def test_rows_of_a_rule_that_is_gone_are_dropped(owner):
    owner.line("boom")
    owner.look()
    assert any(name.startswith("matter\0alert1") for name in owner.kept)
    owner.given = rules_of_toml([{"url": URL, "name": "phone"}])
    owner.restart()
    owner.look()

    assert not any("alert1" in name for name in owner.kept)


def test_a_clock_that_is_set_back_keeps_no_alert_away(owner):
    owner.line("boom")
    owner.look(1)
    owner.now -= 40 * 86_400
    owner.line("boom")

    assert len(owner.look(1)) == 1


def in_berlin(now):
    moment = datetime.fromtimestamp(now, ZoneInfo("Europe/Berlin"))
    return LocalTime(moment.weekday(), moment.hour * 60 + moment.minute)


@pytest.mark.parametrize("day", [(2026, 3, 28), (2026, 10, 24)], ids=["an hour is left out", "an hour comes twice"])
def test_quiet_hours_end_by_the_owner_s_clock_in_the_night_in_which_it_changes(day):
    begin = datetime(*day, 22, 30, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
    owner = Owner({"url": URL, "quiet_hours": "23:00-07:00"}, local=in_berlin, now=begin)
    owner.look(31 * 60)
    owner.line("boom")
    while not owner.look(60):
        assert owner.now < begin + 86_400
    at = datetime.fromtimestamp(owner.now, ZoneInfo("Europe/Berlin"))

    assert (at.hour, at.minute // 2) == (7, 0)
    assert [alert.why for alert in owner.alerts] == ["quiet_hours"]


@pytest.mark.parametrize("step_s", [-40 * 86_400, -7200, -300, 300, 7200, 40 * 86_400])
def test_a_step_of_the_clock_loses_nothing_and_repeats_nothing(step_s):
    """What was told is not told again; what happens after the step is, at once or with its count."""
    owner = Owner({"url": URL, "quiet_after": "off"})
    owner.bot("connected")
    owner.line("boom")
    owner.bot("crashed", app="other", run="r9")
    owner.look(60)
    assert len(owner.alerts) == 2
    owner.now += step_s
    assert owner.look(60) == []
    owner.line("a new problem")
    owner.bot("crashed")
    found = owner.look(3600)

    assert sorted(m.kind for alert in found for m in alert.matters) == ["crashed", "error"]


def test_a_flood_of_problems_takes_no_name_from_a_crash(owner):
    """Nor the end of its state; a CRITICAL line, too, has places of its own."""
    for number in range(MAX_MATTERS + 500):
        owner.line("".join(chr(97 + int(digit)) * 2 for digit in str(number)))
    owner.look(120)
    owner.alerts.clear()
    owner.bot("crashed")
    owner.line("the end", severity="CRITICAL")
    owner.look(5)
    assert sorted((m.kind, m.app, m.key == "beyond") for a in owner.alerts for m in a.matters) == [
        ("crashed", "scalper", False), ("critical", "scalper", False)
    ]  # fmt: skip
    owner.bot("connected", run="r2")

    assert "back" in [alert.why for alert in owner.look(60)]


def test_what_is_remembered_is_bounded(owner):
    for number in range(3 * MAX_MATTERS):
        owner.line("".join(chr(97 + int(digit)) * 2 for digit in str(number)))
    owner.look(120)

    assert len([name for name in owner.kept if name.startswith("matter")]) == MAX_MATTERS + 1
    owner.look(2 * LINE_COOLDOWN_S)
    assert [name for name in owner.kept if name.startswith("matter")] == []
