"""A changed bit anywhere in a row is seen, in Python and in SQL; an old line has to look like one."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.journal.checksums import BODY_CRC_SQL, UNCHECKED, damaged, is_a_line, line_crc, line_crcs, row_crc

ROW = (7, 1_769_162_400_000_000, 20, 3, 1, b'{"id":"abc123-7","level":"INFO","message":"m","context":{}}')


def test_each_bit_of_each_number_counts():
    """Also those above the 32 that a sum has."""
    crc = line_crc(*ROW)
    for column, bits in ((0, 32), (1, 62), (2, 31), (3, 31), (4, 31)):
        for bit in range(bits):
            changed = [*ROW]
            changed[column] ^= 1 << bit
            assert line_crc(*changed) != crc, f"bit {bit} of column {column}"


def test_each_bit_of_the_body_counts():
    """The body is what viewers get."""
    crc = line_crc(*ROW)
    for place in range(len(ROW[5])):
        for bit in range(8):
            body = bytearray(ROW[5])
            body[place] ^= 1 << bit
            assert line_crc(*ROW[:5], bytes(body)) != crc


@pytest.mark.parametrize("time_us", [0, 1_769_162_400_000_000, -5, -(1 << 40)])
def test_sql_takes_the_other_columns_off(time_us):
    """What is left is the checksum of seq and body, which a reader compares; none for a line without one."""
    crc = line_crc(ROW[0], time_us, *ROW[2:])
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE lines (seq, time_us, level, source, run, body, crc)")
        db.execute("INSERT INTO lines VALUES (?, ?, ?, ?, ?, ?, ?)", (ROW[0], time_us, *ROW[2:], crc))
        (left,) = db.execute(f"SELECT {BODY_CRC_SQL} FROM lines").fetchone()
        assert damaged([7], [ROW[5]], [left]) == []
        assert damaged([8], [ROW[5]], [left]) == [8]
        db.execute("UPDATE lines SET level = 40")
        assert damaged([7], [ROW[5]], [db.execute(f"SELECT {BODY_CRC_SQL} FROM lines").fetchone()[0]]) == [7]
        db.execute("UPDATE lines SET crc = NULL")
        assert db.execute(f"SELECT {BODY_CRC_SQL} FROM lines").fetchone() == (None,)


def test_only_what_is_damaged_is_named():
    """Lines with and without checksums side by side."""
    good, old, bad = line_crc(1, 0, 0, 0, 0, b"a"), UNCHECKED, line_crc(3, 0, 0, 0, 0, b"c")
    assert damaged([1, 7, 3], [b"a", ROW[5], b"x"], [good, old, bad]) == [3]
    assert damaged([1, 8, 3], [b"a", ROW[5], b"c"], [good, old, bad]) == [8]


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        (ROW[5], True),
        (ROW[5][:-1], False),
        (ROW[5].replace(b"-7", b"-8"), False),
        (ROW[5].replace(b"message", b"massage"), False),
        (ROW[5].replace(b'"m"', b"5"), False),
        (ROW[5].replace(b"{}", b"[]"), False),
        (ROW[5].replace(b'"INFO"', b"20"), False),
        (b"[7]", False),
        (b"\xff", False),
    ],
)
def test_an_old_line_looks_like_a_line_of_its_number(body, is_one):
    """Nothing more can be asked of it."""
    assert is_a_line(7, body) is is_one


def test_a_row_of_a_small_table_has_one_checksum_everywhere():
    """Of integers, texts, bytes and NULLs; columns do not run together."""
    assert row_crc((1, "ab", b"\1", None)) == row_crc([1, "ab", b"\1", None]) == 558529503
    assert len({row_crc(row) for row in [(1, "a", "bc"), (1, "ab", "c"), (1, "abc"), (11, "a", "bc")]}) == 4


def test_those_of_many_lines_are_those_of_each():
    """Whatever their numbers are; a seq has more bits than a CRC begins with."""
    rows = [ROW, (1 << 40, -5, 10, 0, -1, b""), ((1 << 33) + 7, 1 << 61, 50, 1 << 20, 1 << 30, b"\xff" * 9)]
    assert line_crcs(*zip(*rows, strict=True)) == [line_crc(*row) for row in rows]
