"""Many runs in little memory: what is remembered of the traders that have ended.

Owns: `RunTable`, a table of `Run` by key in some 160 bytes a run, where the objects themselves would take 530, and how
many runs a journal of some size may remember. It must not know why a run is remembered or when it is forgotten. Pure.
Read `journal/row_writer` next: it keeps such a table beside the file. Who is forgotten, `ingest/known_runs` says.

A run is a packed record. The records stand in a list, in the order in which they were added; an array of numbers finds
them by key (open addressing). A dict would take as much again for its keys as the records do.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from struct import Struct

from logrelay.model import Run

MAX_RUNS = 100_000
"""Ended runs that are remembered, whatever the size of the journal: a job that runs every minute makes them in 69 days,
and the tables take 40 MB then. Beyond it runs are forgotten before their time."""

MAX_NAME_BYTES = 4 * 1024 * 1024
"""Of the names of their apps and hosts, twice what `MAX_RUNS` of them have in ordinary names: whoever makes up long
ones has fewer runs remembered, and the tables take no more than they do anyway."""

LEAST_RUNS = 2_000
"""The smallest journal remembers as many."""

RUNS_SHARE = 8
"""An eighth of a journal's size limit may go into its runs; the lines should not have to give way to them."""

ROW_BYTES = 128
"""What a run takes in the file, with room."""


def most_runs(journal_bytes: int) -> int:
    """Return how many ended runs a journal with this size limit remembers."""
    return max(LEAST_RUNS, min(MAX_RUNS, journal_bytes // RUNS_SHARE // ROW_BYTES))


KEY_BYTES = 16
_RECORD = Struct("<16sQQqqqQQqHH")
"""key, id, last_seq, last_us, seen_us, started_ns, pid, mark, uid, two lengths. App and host follow, then the state."""
_FEWEST_CELLS = 16
_GONE = 0xFFFF_FFFF
"""A cell of the index whose record was taken out: a search goes on behind it."""
_TEXT = "utf-8"
_LENGTHS = Struct("<HH")
"""The last two of them."""
_END = b"\0"
"""Before the state, the last text of a record: so a state is compared without unpacking."""


_Parts = tuple[list[bytes | None], dict[tuple[str, bool], int], "array[int]", int, int, Counter[str], int, int]


class RunTable:
    """Runs by key, in the order in which they were added. Not for several threads at once.

    A run can have a `mark`, a number that means something to the owner of the table. Equal to any list of the
    same runs. `copied` is what `copy` hands over.
    """

    __slots__ = ("_cells", "_count", "_cursors", "_index", "_records", "_states", "name_bytes", "size")

    def __init__(self, runs: Iterable[Run] = (), *, copied: _Parts | None = None) -> None:
        self._records: list[bytes | None] = []
        """None: taken out."""
        self._cursors: dict[tuple[str, bool], int] = {}
        """For each question of `first` where the search goes on: no record before it is an answer."""
        self._index = array("I", bytes(4 * _FEWEST_CELLS))
        """For each cell the number of a record, from 1; 0: none."""
        self._cells = 0
        """Cells that are not 0."""
        self._count = 0
        self._states: Counter[str] = Counter()
        self.size = 0
        """Bytes of the records."""
        self.name_bytes = 0
        """Of them the names of apps and hosts."""
        if copied is not None:
            self._records, self._cursors, self._index, self._cells, self._count, self._states, *sizes = copied
            self.size, self.name_bytes = sizes
        for run in runs:
            self.put(run)

    def __len__(self) -> int:
        """Count the runs."""
        return self._count

    def __iter__(self) -> Iterator[Run]:
        """Yield every run. The table must not change meanwhile."""
        return (_unpack(record)[0] for record in self._records if record is not None)

    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same runs in the same order."""
        if not isinstance(other, RunTable | list):
            return NotImplemented
        return list(self) == list(other)

    def __hash__(self) -> int:
        """Raise TypeError: a table changes."""
        raise TypeError("a table of runs changes: it has no hash")

    def in_state(self, state: str) -> int:
        """Count the runs in a state."""
        return self._states[state]

    def put(self, run: Run, mark: int = 0) -> None:
        """Add a run at the end, or replace the one with its key where it stands."""
        texts = (run.app.encode(_TEXT, "replace"), run.host.encode(_TEXT, "replace"), _END + run.state.encode(_TEXT))
        record = b"".join(
            (
                _RECORD.pack(
                    run.key,
                    run.id,
                    run.last_seq,
                    run.last_us,
                    run.seen_us,
                    run.started_ns,
                    run.pid,
                    mark,
                    run.uid,
                    len(texts[0]),
                    len(texts[1]),
                ),
                *texts,
            )
        )
        cell = self._find(record[:KEY_BYTES])
        number = self._index[cell]
        if number:
            before = self._records[number - 1]
            assert before is not None, "what was taken out is not found"
            self._take_off(before)
            self._records[number - 1] = record
        else:
            if (self._cells + 1) * 3 > len(self._index) * 2:
                self._rebuild()
                cell = self._find(record[:KEY_BYTES])
            self._records.append(record)
            self._index[cell] = len(self._records)
            self._cells += 1
            self._count += 1
        self._states[run.state] += 1
        self.size += len(record)
        self.name_bytes += _name_bytes(record)

    def get(self, key: bytes) -> Run | None:
        """Return the run with this key; None: there is none."""
        number = self._index[self._find(key)]
        record = self._records[number - 1] if number else None
        return None if record is None else _unpack(record)[0]

    def pop(self, key: bytes) -> Run | None:
        """Take the run with this key out and return it; None: there is none."""
        cell = self._find(key)
        number = self._index[cell]
        record = self._records[number - 1] if number else None
        if record is None:
            return None
        self._records[number - 1] = None
        self._index[cell] = _GONE
        self._count -= 1
        self._take_off(record)
        return _unpack(record)[0]

    def _take_off(self, record: bytes) -> None:
        """Count a record no longer."""
        self._states[_state_of(record)] -= 1
        self.size -= len(record)
        self.name_bytes -= _name_bytes(record)

    def change(self, runs: Iterable[Run], forgotten: Iterable[tuple[int, bytes]]) -> None:
        """Put `runs`, and take out those that are `forgotten` by id and key; a key may have come back with a new id."""
        gone = dict(forgotten)
        for id_, key in gone.items():
            known = self.get(key)
            if known is not None and known.id == id_:
                self.pop(key)
        for run in runs:
            if run.id not in gone:
                self.put(run)

    def first(self, state: str, *, other: bool = False) -> tuple[Run, int] | None:
        """Return the first run in a state, or in any other one, and its mark; None: there is none.

        A search goes on where the last one ended, so a run must not be replaced by one in another state.
        """
        start = self._cursors.get((state, other), 0)
        end = _END + state.encode(_TEXT)
        for at in range(start, len(self._records)):
            record = self._records[at]
            if record is not None and record.endswith(end) is not other:
                self._cursors[state, other] = at
                return _unpack(record)
        self._cursors[state, other] = len(self._records)
        return None

    def in_states(self, *states: str) -> list[Run]:
        """Return the runs in these states, in order."""
        ends = tuple(_END + state.encode(_TEXT) for state in states)
        return [_unpack(record)[0] for record in self._records if record is not None and record.endswith(ends)]

    def highest_id(self) -> int:
        """Return the highest number of a run; 0: the table is empty."""
        return max((_RECORD.unpack_from(record)[1] for record in self._records if record is not None), default=0)

    def latest(self, count: int) -> list[Run]:
        """Return the runs that were added last, in order."""
        found: list[Run] = []
        for record in reversed(self._records):
            if len(found) >= count:
                break
            if record is not None:
                found.append(_unpack(record)[0])
        return found[::-1]

    def copy(self) -> RunTable:
        """Return a table of its own with the same runs; it takes little memory as long as neither changes."""
        records, cursors, states = self._records.copy(), self._cursors.copy(), self._states.copy()
        sizes = (self.size, self.name_bytes)
        return RunTable(copied=(records, cursors, self._index[:], self._cells, self._count, states, *sizes))

    def _find(self, key: bytes) -> int:
        """Return the cell of a key; one that is 0 when the key is not there."""
        index, records, mask = self._index, self._records, len(self._index) - 1
        cell = hash(key) & mask  # of bytes it is salted: nobody can choose keys that meet
        while number := index[cell]:
            if number != _GONE:
                record = records[number - 1]
                if record is not None and record.startswith(key):
                    break
            cell = (cell + 1) & mask
        return cell

    def _rebuild(self) -> None:
        """Make the index anew, with room, and leave out what was taken out."""
        records = [record for record in self._records if record is not None]
        self._records = [*records]
        self._cursors, self._cells = {}, self._count
        size = _FEWEST_CELLS
        while size < self._count * 2 + 2:
            size *= 2
        index = array("I", bytes(4 * size))
        mask = size - 1
        for number, record in enumerate(records, 1):
            cell = hash(record[:KEY_BYTES]) & mask
            while index[cell]:
                cell = (cell + 1) & mask
            index[cell] = number
        self._index = index


def _unpack(record: bytes) -> tuple[Run, int]:
    key, id_, last_seq, last_us, seen_us, started_ns, pid, mark, uid, app, host = _RECORD.unpack_from(record)
    at = _RECORD.size
    texts = record[at : at + app], record[at + app : at + app + host], record[at + app + host + 1 :]
    app_text, host_text, state = (text.decode(_TEXT) for text in texts)
    return Run(id_, key, app_text, host_text, pid, started_ns, last_seq, last_us, state, seen_us, uid), mark


def _name_bytes(record: bytes) -> int:
    return sum(_LENGTHS.unpack_from(record, _RECORD.size - _LENGTHS.size))


def _state_of(record: bytes) -> str:
    return record[record.rindex(_END) + 1 :].decode(_TEXT)
