"""The metrics in the Prometheus text format, to the byte."""

from __future__ import annotations

from logrelay.http.metrics import CONTENT_TYPE, expose


def test_three_lines_for_each_value_in_the_order_of_the_table():
    """Help, type and value; what the table does not know comes last, in order of its name, and is untyped."""
    assert expose({"zebra": 1, "uptime_seconds": 0.1, "ant": 2.0, "lines_total": True}, {}) == (
        "# HELP logrelay_lines_total Lines committed to the journal, notices included.\n"
        "# TYPE logrelay_lines_total counter\n"
        "logrelay_lines_total 1\n"
        "# HELP logrelay_uptime_seconds Seconds since the relay started.\n"
        "# TYPE logrelay_uptime_seconds gauge\n"
        "logrelay_uptime_seconds 0.1\n"
        "# HELP logrelay_ant Not described.\n"
        "# TYPE logrelay_ant untyped\n"
        "logrelay_ant 2.0\n"
        "# HELP logrelay_zebra Not described.\n"
        "# TYPE logrelay_zebra untyped\n"
        "logrelay_zebra 1\n"
    )


def test_labels_stand_in_the_order_of_the_samples_and_are_escaped():
    """Backslash, quote and line break of a name are escaped, as the format says, and nothing else is."""
    samples = [({"app": 'a"b\\c\nd{},='}, 1), ({"app": ""}, 0)]
    assert expose({}, {"trader_up": samples, "viewers": []}).splitlines()[1:] == [
        "# TYPE logrelay_trader_up gauge",
        r'logrelay_trader_up{app="a\"b\\c\nd{},="} 1',
        'logrelay_trader_up{app=""} 0',
    ]
    lines = expose({}, {"trader_lines_total": [({"app": "bot", "level": "info"}, 3)]})
    assert lines.endswith('logrelay_trader_lines_total{app="bot",level="info"} 3\n')


def test_nothing_counted_is_an_empty_text():
    """A scraper can tell a metric that is absent from zero."""
    assert expose({}, {}) == ""


def test_the_format_is_named_with_its_version():
    """Scrapers choose their parser by it."""
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
