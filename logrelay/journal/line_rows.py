"""Reading lines as rows, whole: for those who pass them on to another journal.

Owns: one step along the table `lines`, with who logged each line. It must not filter, nor know who asks. Every body is
held to its checksum, as in `query`, whose way of reading a page as one value this is as well. Read `journal/retention`
next.
"""

from __future__ import annotations

import sqlite3
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import orjson

from logrelay.journal.checksums import BODY_CRC_SQL, UNCHECKED, damaged
from logrelay.journal.interface import RowOrigin, RowPage
from logrelay.journal.query import bounds
from logrelay.journal.schema import NOTICE_SOURCE, SourceKey
from logrelay.model import RELAY_SOURCE, run_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from logrelay.journal.holes import Holes

MOST_ROWS = 8192
"""In one page: some 10 ms."""
_FIRST_MEAN = 512
"""Body bytes expected before any have been seen."""
NOTICE = RowOrigin("", "", "", RELAY_SOURCE)

_COLUMNS = f"seq, level, time_us, source, run, coalesce({BODY_CRC_SQL}, {UNCHECKED})"
_ROWS = f"SELECT {_COLUMNS} AS claim, body FROM lines WHERE seq > :after ORDER BY seq LIMIT :rows"  # noqa: S608
_GLUED = (
    "SELECT group_concat(seq), group_concat(level), group_concat(time_us), group_concat(source), group_concat(run), "  # noqa: S608
    f"group_concat(claim), CAST(group_concat(body, char(10)) AS BLOB) FROM ({_ROWS})"
)
_SLOWLY = f"SELECT seq, level, time_us, source, run, claim, CAST(body AS BLOB) FROM ({_ROWS}) ORDER BY seq"  # noqa: S608


class RowReader:
    """Reads pages of rows from connections it is given. Holds no connection; any thread may use it."""

    def __init__(self, names: Callable[[], Mapping[SourceKey, int]], holes: Holes) -> None:
        """`names` gives the numbers of the sources at the moment. A line that fails its checksum goes to `holes`."""
        self._names, self._holes = names, holes
        self._mean = _FIRST_MEAN

    def page(self, db: sqlite3.Connection, after: int, max_bytes: int) -> RowPage:
        """Read in one transaction. Raises sqlite3.Error."""
        db.execute("BEGIN")
        try:
            return self._page(db, after, max_bytes)
        finally:
            if db.in_transaction:
                db.execute("COMMIT")

    def _page(self, db: sqlite3.Connection, after: int, max_bytes: int) -> RowPage:
        oldest, head = bounds(db)
        rows = max(1, min(MOST_ROWS, max_bytes // self._mean))
        seqs, ranks, times, sources, runs, claims, bodies = self._read(db, after, rows)
        keep = max(1, sum(total <= max_bytes for total in accumulate(map(len, bodies))))
        if keep < len(seqs):
            seqs, ranks, times, sources = seqs[:keep], ranks[:keep], times[:keep], sources[:keep]
            runs, claims, bodies = runs[:keep], claims[:keep], bodies[:keep]
        elif len(seqs) < rows:
            keep = 0  # there are no more
        reached = seqs[-1] if keep and seqs else max(after, head)
        bad = set(damaged(seqs, bodies, claims))
        if bad:
            self._holes.add((seq, seq) for seq in bad)
        if bodies:
            self._mean = max(1, (self._mean + sum(map(len, bodies)) // len(bodies)) // 2)
        holes = self._holes.within(max(after, oldest - 1), reached)
        gone = {seq for first, last in holes for seq in range(first, last + 1)} if holes else bad
        if not gone.isdisjoint(seqs):
            kept = [place for place, seq in enumerate(seqs) if seq not in gone]
            seqs, ranks, times, sources, runs, bodies = (
                [column[place] for place in kept] for column in (seqs, ranks, times, sources, runs, bodies)
            )
        places, origins = self._origins(db, sources, runs, bodies)
        causes = [(first, last, self._holes.cause((first, last))) for first, last in holes]
        return RowPage(seqs, ranks, times, places, bodies, origins, causes, reached, oldest)

    def _read(self, db: sqlite3.Connection, after: int, rows: int) -> list[list[Any]]:
        """Return the columns of the next rows."""
        while True:
            values = {"after": after, "rows": rows}
            try:
                *numbers, glued = db.execute(_GLUED, values).fetchone()
                break
            except sqlite3.DataError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_TOOBIG or rows == 1:
                    raise
                rows //= 2
        if numbers[0] is None:
            return [[] for _ in range(7)]
        columns = [orjson.loads(f"[{column}]") for column in numbers]
        bodies = (glued or b"").split(b"\n")
        seqs = columns[0]
        if len(bodies) == len(seqs) and all(a < b for a, b in pairwise(seqs)):
            return [*columns, bodies]
        # Somebody has put a newline into a body by hand, or SQLite has glued in another order.
        found = db.execute(_SLOWLY, values).fetchall()
        columns = [list(column) for column in zip(*found, strict=True)]
        columns[6] = [(body or b"").replace(b"\n", b" ") for body in columns[6]]
        return columns

    def _origins(
        self, db: sqlite3.Connection, sources: list[int], runs: list[int], bodies: list[bytes]
    ) -> tuple[list[int], list[RowOrigin]]:
        """Return for each line which origin it has, and the origins."""
        pairs = list(zip(sources, runs, strict=True))
        named = {number: key for key, number in self._names().items()} if pairs else {}
        known = _runs(db, set(runs))
        places: dict[tuple[int, int], int] = {}
        origins: list[RowOrigin] = []
        found: list[int] = []
        for pair, body in zip(pairs, bodies, strict=True):
            place = places.get(pair)
            if place is None:
                place = len(origins)
                origins.append(_origin(pair, named, known, body))
                if pair[0] in named or pair[0] == NOTICE_SOURCE:
                    places[pair] = place  # the others share a number, and have each a name of their own
            found.append(place)
        return found, origins


def _runs(db: sqlite3.Connection, ids: Iterable[int]) -> dict[int, tuple[str, str, str]]:
    """Return name, app and host of runs that are remembered."""
    wanted = sorted(ids)
    marks = ",".join("?" * len(wanted))
    sql = f"SELECT id, key, app, host FROM runs WHERE id IN ({marks})"  # noqa: S608  (only question marks)
    return {id_: (run_name(key), app, host) for id_, key, app, host in db.execute(sql, wanted)}


def _origin(
    pair: tuple[int, int],
    named: Mapping[int, SourceKey],
    known: Mapping[int, tuple[str, str, str]],
    body: bytes,
) -> RowOrigin:
    number, run = pair
    if number == NOTICE_SOURCE:
        return NOTICE
    source, app = named.get(number, ("", None))
    name, of_run, host = known.get(run, ("", "", ""))
    if source and name and (app is not None or of_run):
        return RowOrigin(of_run if app is None else app, name, host, source)
    said = orjson.loads(body)  # the run is forgotten, or there were too many names: the line says it itself
    return RowOrigin(
        str(said.get("app", app or of_run)), str(said.get("run", name)), host, str(said.get("source", source))
    )
