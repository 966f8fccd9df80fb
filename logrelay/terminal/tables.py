"""Lines as NDJSON, CSV and Parquet.

Owns: the columns, and one writer for each form. It must not know where the bytes go. Read `cli/tail` next.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import IO, Any, Protocol

import orjson

from logrelay.errors import ConfigError
from logrelay.terminal.rendering import level_of

COLUMNS = ("id", "timestamp", "level", "app", "run", "source", "message", "context")
"""The parts of a line; `level` tells CRITICAL apart from ERROR, `context` is JSON text."""

GROUP_LINES = 20_000
"""Lines of one row group of Parquet: some megabytes of memory, and few groups in a large file."""


class Writer(Protocol):
    """Writes lines in one form."""

    lines: int
    """How many were written."""

    def write(self, line: Mapping[str, object]) -> None:
        """Write one line."""

    def finish(self) -> None:
        """Write what is left. Nothing is written after it."""


def writer_of(form: str, stream: IO[bytes]) -> Writer:
    """Return the writer of a form: ndjson, csv or parquet. Raises ConfigError where a package is missing."""
    if form == "parquet":
        return _Parquet(stream)
    return _Csv(stream) if form == "csv" else _Ndjson(stream)


def cells(line: Mapping[str, object]) -> tuple[str | None, ...]:
    """Return the columns of a line; None for a part that it does not have."""
    context = orjson.dumps(line.get("context") or {}).decode()
    parts = {**line, "level": level_of(line), "context": context}
    return tuple(None if parts.get(name) is None else str(parts[name]) for name in COLUMNS)


class _Ndjson:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.lines = 0

    def write(self, line: Mapping[str, object]) -> None:
        self._stream.write(orjson.dumps(line) + b"\n")
        self.lines += 1

    def finish(self) -> None:
        self._stream.flush()


class _Csv:
    """RFC 4180, UTF-8, with a head."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._text = stream, io.StringIO()
        self._csv = csv.writer(self._text)
        self.lines = 0
        self._csv.writerow(COLUMNS)

    def write(self, line: Mapping[str, object]) -> None:
        self._csv.writerow(cells(line))
        self.lines += 1
        self._pass_on()

    def finish(self) -> None:
        self._pass_on()
        self._stream.flush()

    def _pass_on(self) -> None:
        self._stream.write(self._text.getvalue().encode("utf-8", "replace"))
        self._text.seek(0)
        self._text.truncate()


class _Parquet:
    """One column for each part, the timestamp as a time in UTC, in microseconds."""

    def __init__(self, stream: IO[bytes]) -> None:
        try:
            import pyarrow as pa  # noqa: PLC0415
            from pyarrow import parquet  # noqa: PLC0415
        except ImportError:
            raise ConfigError(
                "parquet needs the package pyarrow in the environment of logrelay: "
                f"{sys.executable} -m pip install pyarrow; ndjson and csv need nothing"
            ) from None
        types = {"timestamp": pa.timestamp("us", tz="UTC")}
        self._schema: Any = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
        self._table = pa.Table.from_pylist
        self._writer: Any = parquet.ParquetWriter(stream, self._schema)
        self._rows: list[dict[str, object]] = []
        self.lines = 0

    def write(self, line: Mapping[str, object]) -> None:
        row: dict[str, object] = dict(zip(COLUMNS, cells(line), strict=True))
        row["timestamp"] = datetime.fromisoformat(str(row["timestamp"]))
        self._rows.append(row)
        self.lines += 1
        if len(self._rows) >= GROUP_LINES:
            self._pass_on()

    def finish(self) -> None:
        self._pass_on()
        self._writer.close()

    def _pass_on(self) -> None:
        if self._rows:
            self._writer.write_table(self._table(self._rows, schema=self._schema))
            self._rows = []
