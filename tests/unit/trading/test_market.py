"""Bars from a file: honest about bad data."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from robo_trader.trading.market import BarsError, read_bars

NOW = datetime(2026, 1, 5, 14, 30, tzinfo=UTC)


def read(path):
    warned = []
    minutes = list(read_bars(path, lambda line, reason: warned.append((line, reason))))
    return minutes, warned


def test_bars_of_one_time_are_one_minute(tmp_path):
    """Several symbols, any column order and case, a byte-order mark, blank lines: as people's files are."""
    file = tmp_path / "bars.csv"
    file.write_text(
        "\ufeffSymbol,Time,Open,High,Low,Close,Volume,Extra\n"
        "A,2026-01-05T14:30:00Z,1,2,1,2,10,x\n"
        "B,2026-01-05T15:30:00+01:00,5,5,5,5,10,x\n"
        "\n"
        "A,2026-01-05 14:31,2,2,1.5,2,0,x\n"
        "A,1767623520,2,2,1.5,2,0,x\n",
        encoding="utf-8",
    )
    minutes, warned = read(file)
    assert not warned
    assert [[b.symbol for b in m.bars] for m in minutes] == [["A", "B"], ["A"], ["A"]]
    assert [m.time - NOW for m in minutes] == [timedelta(minutes=n) for n in range(3)]
    assert minutes[0].bars[0].close == Decimal(2)


def test_a_bad_row_is_named_by_its_line_and_skipped(tmp_path):
    """Every kind of bad row costs itself only."""
    file = tmp_path / "spy.csv"
    rows = {
        3: "2026-01-05T14:31:00,1,2,1",
        4: "yesterday,1,2,1,2,10",
        5: "2026-01-05T14:31:00,1,2,1,NaN,10",
        6: "2026-01-05T14:31:00,one,2,1,2,10",
        7: "2026-01-05T14:31:00,1,1,2,1,10",
        8: "2026-01-05T14:31:00,1,2,1,2,-5",
        9: "2026-01-05T13:00:00,1,2,1,2,10",
        10: "2026-01-05T14:31:00,1e400,2,1,2,10",
        11: "99999999999999999999,1,2,1,2,10",
        12: "2026-01-05T14:31:00,-1,2,-1,2,10",
    }
    file.write_text(
        "time,open,high,low,close,volume\n2026-01-05T14:30:00,1,2,1,2,10\n"
        + "\n".join(rows.values())
        + "\n2026-01-05T14:32:00,1,2,1,2,10\n"
    )
    minutes, warned = read(file)
    assert [m.bars[0].symbol for m in minutes] == ["SPY", "SPY"]
    assert [line for line, _ in warned] == list(rows)
    assert "has 4 fields" in warned[0][1]
    assert "'yesterday'" in warned[1][1]
    assert "before" in warned[6][1]


def test_a_quoted_line_break_does_not_shift_the_numbers(tmp_path):
    """The line told is the line where the row begins in the file."""
    file = tmp_path / "a.csv"
    file.write_text('time,open,high,low,close,volume\n"2026-\n01-05",1,2,1,2,10\nbad,1,2,1,2,10\n')
    assert [line for line, _ in read(file)[1]] == [2, 4]


@pytest.mark.parametrize("content", [b"", b"a,b,c\n1,2,3\n", b"\x00\xff\xfe\x01" * 50, b"time,open,high,low,close\n"])
def test_a_file_without_a_header_is_refused_at_once(tmp_path, content):
    """One clear error, before anything is traded."""
    file = tmp_path / "x.csv"
    file.write_bytes(content)
    with pytest.raises(BarsError, match=r"x\.csv"):
        read_bars(file, lambda *_: None)


def test_a_file_that_turns_binary_ends_there(tmp_path):
    """Bytes that are no text in the middle: told once, what came before is traded."""
    file = tmp_path / "x.csv"
    good = b"2026-01-05T14:30:00,1,2,1,2,10\n"
    file.write_bytes(b"time,open,high,low,close,volume\n" + good * 2000 + b"\xff\xfe\x00" * 100)
    minutes, warned = read(file)
    assert minutes
    assert len(warned) == 1


def test_a_missing_file_is_named(tmp_path):
    """No file, or a folder."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BarsError, match="cannot read"):
            read_bars(path, lambda *_: None)
