"""The parameters of GET /logs: the largest limit, and every way to write a time."""

from __future__ import annotations

import pytest

from logrelay.errors import RequestError
from logrelay.fanout.filters import Filter
from logrelay.http.log_query import MAX_LIMIT, parse_log_query, parse_time

US = 1_769_162_400_000_000


class TestParameters:
    def test_limit_maximum_is_allowed(self, facts):
        """The largest limit is accepted and reaches the query as it is."""
        assert parse_log_query(f"limit={MAX_LIMIT}", 5, facts.resolve, 0).limit == MAX_LIMIT

    @pytest.mark.parametrize(
        ("text", "microseconds"),
        [
            ("2026-01-23T10:00:00Z", US),
            ("2026-01-23t10:00:00z", US),
            ("2026-01-23 10:00:00Z", US),
            ("2026-01-23T11:00:00+01:00", US),
            ("2026-01-23T11:00:00 01:00", US),
            ("2026-01-23T04:30:00-05:30", US),
            ("2026-01-23T10:00:00.5Z", US + 500_000),
            ("2026-01-23T10:00:00.123456Z", US + 123_456),
            ("2026-01-23T10:00:00.123456001Z", US + 123_457),
            ("1969-12-31T23:59:59.5Z", -500_000),
            ("1769162400", US),
            ("1769162400.000001", US + 1),
            ("1769162400.0000001", US + 1),
            ("0", 0),
            ("0s", US),
            ("90s", US - 90_000_000),
            ("15m", US - 900_000_000),
            ("2h", US - 7_200_000_000),
            ("7d", US - 604_800_000_000),
            ("1w", US - 604_800_000_000),
            ("999999999w", 0),
        ],
    )
    def test_times(self, text, microseconds):
        """Every documented way to write a time means exactly that microsecond."""
        assert parse_time("since", text, US) == microseconds

    @pytest.mark.parametrize(
        "text",
        [
            "15M",
            "1.5h",
            "-5m",
            " 5m",
            "5m ",
            "inf",
            "1e3",
            "\uff11\uff15m",
            "2026-01-23T10:00:60Z",
            "0000-01-01T00:00:00Z",
            "2026-01-23T10:00:00+25:00",
        ],
    )
    def test_not_times(self, text):
        """What only looks like a time is refused, never guessed."""
        with pytest.raises(RequestError) as caught:
            parse_time("until", text, US)
        assert caught.value.code == "bad_time"

    def test_time_ends_where_its_notation_ends(self):
        """The last microsecond before the year 10000 is a time, the next one is not."""
        assert parse_time("since", "253402300799.999999", US) == 253_402_300_799_999_999
        with pytest.raises(RequestError) as caught:
            parse_time("since", "253402300800", US)
        assert caught.value.code == "bad_time"

    def test_what_may_be_repeated_is_named(self, facts):
        """Whoever repeats another parameter learns which ones may be."""
        with pytest.raises(RequestError) as caught:
            parse_log_query("limit=1&limit=2", 5, facts.resolve, US)
        assert str(caught.value) == "limit is given 2 times; only app, edge, run, source, where may be"

    def test_sources_and_conditions_may_be_repeated(self, facts):
        """All of them reach the filter."""
        query = parse_log_query("source=a&source=b&where=c%3D1&where=d%3D2", 5, facts.resolve, US)
        assert query.filter == Filter(sources=("a", "b"), where=(("c", "1"), ("d", "2")))
