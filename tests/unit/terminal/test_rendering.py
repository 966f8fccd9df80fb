"""A line as text: columns and colours on a terminal, one line without, and nothing that a terminal would obey."""

from __future__ import annotations

import re
from datetime import timedelta, timezone

import pytest

from logrelay.terminal.rendering import Form, columns_of, day_of, level_of, render

LINE = {
    "type": "log",
    "id": "k3f9ab-1042",
    "level": "INFO",
    "source": "robo_trader.runner",
    "message": "trade.executed",
    "context": {"symbol": "AAPL", "note": "two words", "fees": {"usd": 1.5}},
    "timestamp": "2026-01-23T23:30:00.123456Z",
    "app": "robo_trader",
}
EAST = timezone(timedelta(hours=2))


def line(**more):
    return LINE | more


def test_without_a_terminal_a_line_is_one_line_with_its_full_time():
    """What goes into a pipe is for grep: the time as it is sent, and line breaks as escapes."""
    text = render(line(context={"exception": "Traceback\n  boom"}, message="a\nb"), Form())

    assert text == r'2026-01-23T23:30:00.123456Z INFO  robo_trader.runner a\x0ab exception="Traceback\n  boom"'


def test_a_terminal_gets_the_local_time_and_the_exception_as_it_is():
    """Short in front, the traceback below, further in."""
    text = render(line(context={"n": 1, "exception": "Traceback\n  boom\n"}), Form(columns=80, zone=EAST))

    assert text.split("\n") == [
        "01:30:00.123 INFO  robo_trader.runner trade.executed n=1",
        "      Traceback",
        "        boom",
    ]
    assert day_of(LINE, EAST) == "Saturday 2026-01-24"


def test_values_are_plain_words_or_json():
    """What could be read as two fields is in quotes."""
    text = render(LINE, Form())

    assert text.endswith(' symbol=AAPL note="two words" fees={"usd":1.5}')
    for value in ("", "a=b", 'a"b', "a\\b", "a b"):
        assert render(line(context={"v": value}), Form()).partition(" v=")[2].startswith('"')


@pytest.mark.parametrize(
    ("source", "app", "shown"),
    [
        ("robo_trader.runner", "robo_trader", "robo_trader.runner"),
        ("backup", "backup", "backup"),
        ("broker", "my_bot", "my_bot/broker"),
        ("robo_traders", "robo_trader", "robo_trader/robo_traders"),
        ("logrelay", None, "logrelay"),
    ],
)
def test_the_bot_stands_before_a_logger_that_does_not_name_it(source, app, shown):
    """With several bots in a terminal it must be seen who speaks."""
    assert f"INFO  {shown} trade" in render(line(source=source, app=app), Form())


def test_a_critical_line_is_told_apart():
    """On the wire it is an ERROR with a severity."""
    critical = line(level="ERROR", context={"severity": "CRITICAL"})

    assert level_of(critical) == "CRITICAL"
    assert render(critical, Form()).endswith("CRIT  robo_trader.runner trade.executed")


def test_colours_are_there_when_asked_for_and_change_nothing_else():
    """Without the escapes it should be the same text."""
    for one in (LINE, line(level="ERROR", context={"severity": "CRITICAL"}), line(source="logrelay", app=None)):
        coloured = render(one, Form(colours=True, columns=60))
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == render(one, Form(columns=60))


def test_a_gap_and_a_crash_are_seen():
    """They are red; a bot that connects is not."""
    gap = line(source="logrelay", level="WARNING", message="gone", context={"notice": "gap", "cause": "lag"})
    crash = line(source="logrelay", level="WARNING", message="gone", context={"notice": "trader", "state": "crashed"})
    back = line(source="logrelay", level="INFO", message="gone", context={"notice": "trader", "state": "connected"})

    shown = [render(one, Form(colours=True, columns=80)) for one in (gap, crash, back)]
    assert [("\x1b[1;31mgone" in text) for text in shown] == [True, True, False]
    assert "notice=" not in shown[0]


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_a_long_line_goes_on_further_in(columns):
    """Every row fits, and no word is lost."""
    long = line(context={f"field{n}": n for n in range(30)}, message="one two three four five six seven eight nine ten")
    rows = render(long, Form(columns=columns)).split("\n")

    assert len(rows) > 2
    assert max(map(len, rows)) <= columns
    assert all(row.startswith("      ") for row in rows[1:])
    assert " ".join(" ".join(rows).split()) == " ".join(render(long, Form(columns=10_000)).split())


def test_wide_characters_take_two_columns():
    """Else lines of a Japanese bot would break in the middle of a row."""
    assert columns_of("約定 ok") == 7
    assert columns_of("e\u0301") == 1


def test_nothing_that_a_bot_wrote_is_obeyed_by_the_terminal():
    """Also in names of fields, levels and tracebacks."""
    evil = "\x1b[2J\x07\u202e\r"
    shown = render(
        line(level=evil, source=evil, app=evil, message=evil, context={evil: evil, "stack": evil}, timestamp=evil),
        Form(columns=200),
    )

    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
