"""Alert rules: defaults where only a URL is given, tables, and what a mistake is answered with."""

from __future__ import annotations

from math import inf

import pytest

from logrelay.config.alert_rules import (
    DEFAULT_KINDS,
    MAX_PATTERN_CHARS,
    MAX_PATTERNS,
    MAX_RULES,
    MAX_WHERE,
    QUIET_AFTER_S,
    Hours,
    hours_of,
    redacted,
    rules_of_text,
    rules_of_toml,
    seconds_of,
)
from logrelay.errors import ConfigError
from logrelay.fanout import filters
from logrelay.model import ERROR, WARNING

URL = "ntfys://ntfy.sh/hidden-topic"


def rule(**table):
    return rules_of_toml([{"url": URL, **table}])[0]


def test_a_url_alone_is_a_rule_with_everything_but_lines():
    first, second = rules_of_text(f" {URL}\n mailtos://me:pw@example.org ")

    assert first.kinds == second.kinds == DEFAULT_KINDS
    assert (first.name, second.name) == ("alert1", "alert2")
    assert first.quiet_after == (("*", QUIET_AFTER_S),)
    assert first.fields == ()


def test_a_condition_on_a_value_that_is_no_text_is_compared_as_json():
    found = rule(where={"live": True, "n": 3, "x": 1.5, "s": "True", "l": [1, "a"]})

    assert found.where == ("live=true", "n=3", "x=1.5", "s=True", 'l=[1,"a"]')


def test_commas_separate_globs():
    assert rule(app="a, b*,", source=["x", "y,z"]).apps == ("a", "b*")
    assert rule(source=["x", "y,z"]).sources == ("x", "y", "z")


@pytest.mark.parametrize(
    "table",
    [
        {"where": [f"f{n}=1" for n in range(17)]},
        {"app": ",".join(f"a{n}" for n in range(33))},
        {"source": [f"a{n},b{n}" for n in range(17)]},
        {"app": ","},
        {"text": "\udc80"},
    ],
)
def test_what_no_filter_takes_is_refused(table):
    with pytest.raises(ConfigError, match=r"in alert rule alert1 is .*; allowed"):
        rule(**table)


def test_the_bounds_are_those_of_a_filter():
    assert (MAX_PATTERNS, MAX_WHERE, MAX_PATTERN_CHARS) == (
        filters.MAX_SOURCES,
        filters.MAX_WHERE,
        filters.MAX_PATTERN_CHARS,
    )


def test_an_array_in_the_file_may_mix_urls_and_tables():
    assert [one.name for one in rules_of_toml([URL, {"url": URL, "name": "phone"}])] == ["alert1", "phone"]


def test_a_rule_with_a_condition_on_lines_tells_of_lines_alone_unless_it_says_otherwise():
    assert rule(level="warning").kinds == ("lines",)
    assert rule(text="margin").level == ERROR
    assert rule(text="margin", on=["crashed", "lines"]).kinds == ("crashed", "lines")
    assert rule(app="scalper*").kinds == DEFAULT_KINDS


def test_every_key_is_read():
    found = rule(
        name="phone",
        on=["lines", "quiet"],
        level="warning",
        app=["a", "b*"],
        source="x.*",
        text="margin",
        where={"symbol": "AAPL", "n": 3},
        rate="5 in 10m",
        quiet_after={"reports": "off", "default": "2h"},
        quiet_normal={"scalper": ["mon-fri 22:00-07:00", "sat-sun"]},
        quiet_hours="23:30-06:00",
        cooldown="10m",
        max_per_hour=5,
        fields=["symbol"],
        back=False,
    )

    assert (found.level, found.apps, found.sources, found.text) == (WARNING, ("a", "b*"), ("x.*",), "margin")
    assert found.where == ("symbol=AAPL", "n=3")
    assert (found.rate_count, found.rate_s) == (5, 600.0)
    assert found.quiet_after == (("reports", inf), ("*", 7200.0))
    assert found.line_cooldown_s == found.state_cooldown_s == 600.0
    assert (found.max_per_hour, found.fields, found.back) == (5, ("symbol",), False)
    assert found.quiet_hours.contains(2, 23 * 60 + 45)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"url": "no url"}, "url in alert rule alert1"),
        ({"url": 7}, "url in alert rule alert1"),
        ({"url": URL, "name": "two words"}, "the name of alert rule 1 is 'two words'; allowed"),
        ({"name": "phone"}, "rule phone (number 1) has no url"),
        ({"url": URL, "colour": "red"}, "'colour' in alert rule alert1 is no key of a rule; allowed: name, url"),
        ({"url": URL, "cool_down": "5m"}, "did you mean cooldown?"),
        ({"url": URL, "level": "loud"}, "level in alert rule alert1 is 'loud'; allowed: debug"),
        ({"url": URL, "name": "phone", "rate": 5}, "rate in alert rule phone (number 1) is 5; allowed: like 5 in 10m"),
        ({"url": URL, "text": URL * 20}, "text in alert rule alert1 is a value that is not shown"),
        ({"url": URL, "fields": {"a" * 70: 1}}, f"fields in alert rule alert1 is {{'{'a' * 55}..."),
        ({"url": URL, "on": ["crash"]}, "allowed: some of crashed"),
        ({"url": URL, "rate": "many"}, "5 in 10m"),
        ({"url": URL, "rate": "0 in 10m"}, "5 in 10m"),
        ({"url": URL, "quiet_after": True}, "quiet_after"),
        ({"url": URL, "quiet_hours": "25:00-07:00"}, "22:00-07:00"),
        ({"url": URL, "quiet_hours": "xyz"}, "22:00-07:00"),
        ({"url": URL, "cooldown": "0.5s"}, "1s to 30d"),
        ({"url": URL, "cooldown": 0}, "1s to 30d"),
        ({"url": URL, "max_per_hour": 0}, "1 to 1000"),
        ({"url": URL, "where": "nothing"}, "field=value"),
        ({"url": URL, "back": 1}, "true or false"),
        (17, "alert rule 1 is neither a URL nor a table, but 17"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed_and_without_the_url(table, words):
    with pytest.raises(ConfigError) as caught:
        rules_of_toml([table])

    assert words in str(caught.value)
    assert "hidden-topic" not in str(caught.value)


def test_two_rules_of_one_name_and_too_many_rules_are_refused():
    with pytest.raises(ConfigError, match="two alert rules are called phone, number 1 and number 2"):
        rules_of_toml([{"url": URL, "name": "phone"}, {"url": URL, "name": "phone"}])
    with pytest.raises(ConfigError, match="at most"):
        rules_of_toml([URL] * (MAX_RULES + 1))
    with pytest.raises(ConfigError, match="no list"):
        rules_of_toml({"url": URL})


def test_of_a_url_only_the_scheme_is_shown():
    """The host of ntfy:// is the topic, which is the secret."""
    assert redacted("ntfys://hidden-topic") == "ntfys://***"
    assert "hidden" not in repr(rule())


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("2d", 172_800), (30, 30)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "0s", "-5m", "5 weeks", "31d", True, None])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError):
        seconds_of(text)


def at(day, clock):
    return ("mon", "tue", "wed", "thu", "fri", "sat", "sun").index(day), int(clock[:2]) * 60 + int(clock[3:])


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("22:00-07:00", [("mon", "22:00"), ("tue", "06:59"), ("sun", "23:59")], [("mon", "07:00"), ("mon", "21:59")]),
        ("sat-sun", [("sat", "00:00"), ("sun", "23:59")], [("fri", "23:59"), ("mon", "00:00")]),
        ("fri 22:00-06:00", [("fri", "22:00"), ("sat", "05:59")], [("fri", "05:00"), ("sat", "22:00")]),
        ("sat-mon", [("sat", "12:00"), ("sun", "12:00"), ("mon", "12:00")], [("tue", "12:00")]),
        ("20:00-24:00", [("wed", "23:59")], [("thu", "00:00")]),
        (["mon 09:00-10:00", "tue"], [("mon", "09:30"), ("tue", "00:00")], [("mon", "10:00")]),
    ],
)
def test_hours_of_the_week(hours, inside, outside):
    found = hours_of(hours)

    assert [moment for moment in inside if not found.contains(*at(*moment))] == []
    assert [moment for moment in outside if found.contains(*at(*moment))] == []


def test_no_hours_contain_nothing():
    assert not Hours().contains(0, 0)
