"""Lines in columns: nothing is lost on the way into a file and out of it."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from logrelay.errors import ConfigError
from logrelay.terminal import tables

LINES = [
    {"type": "log", "id": "k-1", "level": "INFO", "source": "a.b", "message": 'quotes " and, commas\nand lines',
     "context": {"n": 1, "x": "é"}, "timestamp": "2026-01-23T10:00:00.123456Z", "app": "bot", "run": "0" * 32},
    {"type": "log", "id": "k-2", "level": "ERROR", "source": "logrelay", "message": "", "context":
     {"severity": "CRITICAL"}, "timestamp": "2026-01-23T10:00:01.000000Z"},
]  # fmt: skip


def written(form):
    stream = io.BytesIO()
    writer = tables.writer_of(form, stream)
    for line in LINES:
        writer.write(line)
    writer.finish()
    assert writer.lines == 2
    return stream.getvalue()


def test_ndjson_is_what_viewers_get():
    """Object for object."""
    assert [json.loads(row) for row in written("ndjson").splitlines()] == LINES


def test_csv_has_a_column_for_each_part():
    """A head, quoted as RFC 4180 says, the context as JSON, CRITICAL told apart."""
    head, first, second = csv.reader(io.StringIO(written("csv").decode(), newline=""))

    assert tuple(head) == tables.COLUMNS
    assert first[:7] == ["k-1", LINES[0]["timestamp"], "INFO", "bot", "0" * 32, "a.b", LINES[0]["message"]]
    assert json.loads(first[7]) == LINES[0]["context"]
    assert (second[2], second[3], second[6]) == ("CRITICAL", "", "")


def test_parquet_has_the_same_columns(monkeypatch):
    """With real times; several row groups are one table."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "GROUP_LINES", 1)
    rows = parquet.read_table(io.BytesIO(written("parquet"))).to_pylist()

    assert [row["id"] for row in rows] == ["k-1", "k-2"]
    assert rows[0]["timestamp"] == datetime(2026, 1, 23, 10, 0, 0, 123456, UTC)
    assert (rows[0]["message"], rows[1]["app"], rows[1]["level"]) == (LINES[0]["message"], None, "CRITICAL")
    assert json.loads(rows[0]["context"]) == LINES[0]["context"]


def test_without_pyarrow_one_line_says_what_to_do(monkeypatch):
    """Parquet is the one form that needs a package."""
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        tables.writer_of("parquet", io.BytesIO())
