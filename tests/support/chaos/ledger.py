"""The journal file, read as any SQLite tool would, and what must be true of it and of what viewers got.

Owns: `Ledger`, `settled`, `check_trader`, `check_viewer`. It knows the table `lines` and the viewer message in
`body`, which are public, and nothing else of the relay but what it says when a disk keeps it waiting.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import orjson

from logrelay.journal import lone_file
from tests.support.chaos.relay import Relay
from tests.support.chaos.viewer import Got, Viewer
from tests.support.waiting import wait_for

LEVEL_RANK = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}

PRIVATE = ("lag", "retention", "epoch", "unsynced", "corrupt")
"""Causes of gap notices that concern one viewer and are not in the journal."""


LATE_COMMIT = "a commit has taken more than"
"""How the reason of trouble begins that is the disk's doing alone: a machine with other work has such a moment now and
then, the relay says so and is right, and it is no fault."""

UNANSWERED_S = 85.0
"""A viewer that reads nothing for longer has three pings unanswered and is closed, as docs/protocol.md says: a test
that holds one for less than that expects it to stay."""


@dataclass(frozen=True)
class Entry:
    """One row of the journal."""

    seq: int
    level: int
    run: int
    raw: bytes

    @cached_property
    def data(self) -> dict:
        """The viewer message."""
        return orjson.loads(self.raw)

    @property
    def id(self) -> str:
        """The id in the viewer message."""
        return self.data["id"]

    @property
    def is_notice(self) -> bool:
        """The relay said it."""
        return self.data["source"] == "logrelay"


@dataclass
class Ledger:
    """What the journal file holds."""

    epoch: str
    entries: list[Entry]
    aliases: set[str]
    runs: dict[bytes, tuple[int, int, str]] = field(default_factory=dict)
    """By run key: row id, last seq, state."""
    epochs: set[str] = field(default_factory=set)
    """Of all openings; `epoch` is that of the last one that committed something."""

    def id_of(self, seq: int) -> str:
        """Return the id of a line that is kept."""
        return self.entries[seq - self.oldest].id

    @classmethod
    def read(cls, path: Path | str) -> Ledger:
        """Read the file, the relay running or not, and check what must hold of any journal."""
        lone = lone_file.read(str(path))  # first: what SQLite gets meanwhile is in both
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
            db.execute("BEGIN")
            epoch = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()[0]
            known = db.execute("SELECT value FROM meta WHERE key = 'epochs'").fetchone()
            rows = db.execute("SELECT seq, level, run, CAST(body AS BLOB) FROM lines ORDER BY seq").fetchall()
            aliases = {row[0] for row in db.execute("SELECT alias FROM aliases")}
            runs = {
                key: (i, last, state) for i, key, last, state in db.execute("SELECT id,key,last_seq,state FROM runs")
            }
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        epochs = {name for name, _, _ in orjson.loads(known[0])} if known else {epoch}
        ledger = cls(epoch, [Entry(*row) for row in rows], aliases, runs, epochs)
        for commit in lone_file.following(lone, epoch, ledger.head):
            ledger.entries += [Entry(line.seq, line.level, line.run, line.body) for line in commit.lines]
            runs |= {run.key: (run.id, run.last_seq, run.state) for run in commit.runs}
        seqs = [entry.seq for entry in ledger.entries]
        if seqs:
            assert seqs == list(range(seqs[0], seqs[0] + len(seqs))), "the journal's seqs have a hole or a repeat"
        allowed = {*epochs, *aliases}
        for entry in ledger.entries:
            named, _, number = entry.id.rpartition("-")
            assert named in allowed, f"line {entry.seq} has the id {entry.id}"
            assert int(number) == entry.seq, f"line {entry.seq} has the id {entry.id}"
        return ledger

    @property
    def head(self) -> int:
        """Seq of the newest line."""
        return self.entries[-1].seq if self.entries else 0

    @property
    def oldest(self) -> int:
        """Seq of the oldest line."""
        return self.entries[0].seq if self.entries else 0

    def notices(self, **context: object) -> list[dict]:
        """Return the notices whose context holds these values."""
        return [e.data for e in self.entries if e.is_notice and context.items() <= e.data["context"].items()]

    def of(self, name: str) -> list[Entry]:
        """Return the lines of a feeder, in the journal's order."""
        return [e for e in self.entries if e.data["context"].get("feeder") == name]


def wait_well(relay: Relay) -> None:
    """Wait until the journal is not in trouble: what is shown while it is, is taken back when the relay is killed."""
    wait_for(lambda: relay.metric("journal_trouble") == 0, relay.tell)


def settled(relay: Relay) -> Ledger:
    """Read the journal of a running relay once everything that it has taken, and may have shown, is committed."""
    wait_for(lambda: relay.metric("pending_lines") == 0 and relay.metric("journal_trouble") == 0, relay.tell)
    return Ledger.read(relay.journal)


def troubles(contexts: Iterable[dict]) -> list[dict]:
    """Return those contexts of notices about trouble whose reason is another than a disk that keeps a commit."""
    return [one for one in contexts if one["state"] == "trouble" and not one["reason"].startswith(LATE_COMMIT)]


def check_trader(ledger: Ledger, name: str, first: int, last: int, *, without: Iterable[int] = ()) -> None:
    """The journal holds the feeder's lines `first` to `last`, each exactly once, in order."""
    got = [e.data["context"]["n"] for e in ledger.of(name)]
    left_out = set(without)
    wanted = [n for n in range(first, last + 1) if n not in left_out]
    if got != wanted:
        counted = Counter(got)
        twice = sorted(n for n, count in counted.items() if count > 1)
        missing = sorted(set(wanted) - set(got))
        extra = sorted(set(got) - set(wanted))
        raise AssertionError(
            f"{name}: {len(got)} lines for {len(wanted)}; missing {len(missing)} {missing[:10]}, twice {len(twice)} "
            f"{twice[:10]}, never sent {len(extra)} {extra[:10]}, in order: {got == sorted(got)}"
        )


def check_rising_times(ledger: Ledger) -> None:
    """Within each run the shown timestamps rise strictly."""
    last: dict[int, str] = {}
    for entry in ledger.entries:
        shown = entry.data["timestamp"]
        assert shown > last.get(entry.run, ""), f"line {entry.seq} is shown at {shown}, after {last[entry.run]}"
        last[entry.run] = shown


def private_notices(lines: Iterable[Got]) -> list[dict]:
    """Return the gap notices that were for this viewer alone."""
    return [got.data for got in lines if is_private(got)]


def is_private(got: Got) -> bool:
    """Tell a gap notice that is not in the journal."""
    if b'"notice":"gap"' not in got.raw:
        return False
    data = got.data
    return data["source"] == "logrelay" and data["context"].get("cause") in PRIVATE


def check_viewer(
    viewer: Viewer,
    ledger: Ledger,
    *,
    match: Callable[[Entry], bool] = lambda _entry: True,
    after: int = 0,
    stretches: list[list[Got]] | None = None,
) -> None:
    """The viewer got exactly the journal's lines behind `after` that match (notices always), in order, once, unchanged.

    Epoch gaps, which only come after a relay died while its journal was in trouble, cut what it got into stretches:
    the last begins with the oldest line kept; those before it are true as far as they go. Each retention or lag gap
    names exactly what is missing.
    """
    if stretches is None:
        stretches = cut_at_epoch_gaps(viewer.lines)
    for index, stretch in enumerate(stretches):
        begin = after if index == 0 else ledger.oldest - 1
        _check_stretch(viewer.name, stretch, ledger, match, begin, whole=index == len(stretches) - 1)


def check_accounted(lines: Iterable[Got], after: int, head: int) -> int:
    """Every number from `after` to `head` came as a line, or lies in a gap notice, once; for a viewer that wants all.

    Needs no journal: for tests in which that is what goes missing. Returns how many lines were told to be missing.
    Lines that were shown before they were kept, and are taken back, are followed by those that have their numbers.
    """
    at, told = after, 0
    for got in lines:
        if is_private(got):
            context = got.data["context"]
            first, last = (int(str(context[key]).rpartition("-")[2]) for key in ("first", "last"))
            if context["cause"] == "unsynced":
                assert last == at, f"{first} to {last} were taken back, and the last was {at}"
                at = first - 1
                continue
            assert first == at + 1, f"a gap from {first} when everything up to {at} was there"
            assert context["count"] == last - first + 1, context
            at, told = last, told + context["count"]
        else:
            seq = int(got.id.rpartition("-")[2])
            assert seq == at + 1, f"line {seq} behind {at}, and nothing was said"
            at = seq
    assert at >= head, f"the last is {at}, not {head}"
    return told


def cut_at_epoch_gaps(lines: Iterable[Got]) -> list[list[Got]]:
    """Cut what a viewer got where it was told that its id means nothing any more."""
    stretches: list[list[Got]] = [[]]
    for got in lines:
        if is_private(got) and got.data["context"]["cause"] == "epoch":
            stretches.append([])
        else:
            stretches[-1].append(got)
    return stretches


def _check_stretch(
    name: str, got: list[Got], ledger: Ledger, match: Callable[[Entry], bool], after: int, *, whole: bool
) -> None:
    by_seq = {entry.seq: entry for entry in ledger.entries}
    epochs = {*ledger.epochs, *ledger.aliases}
    at = after
    """Every line up to here was seen, unwanted, or told to be missing."""

    def skip_unwanted(until: int) -> None:
        nonlocal at
        for seq in range(at + 1, until + 1):
            entry = by_seq.get(seq)
            if entry is None:
                raise AssertionError(f"{name}: nothing was said about line {seq}, which is not kept any more")
            wanted = match(entry) or entry.is_notice
            assert not wanted, f"{name} missed line {seq}: {entry.raw.decode()[:300]}"
        at = max(at, until)

    taken_back = _taken_back(got)
    for index, line in enumerate(got):
        epoch, _, number = line.id.rpartition("-")
        seq = int(number)
        if any(index < told and first <= seq <= last for told, first, last in taken_back) and not is_private(line):
            continue
        if is_private(line):
            at = _check_gap(name, line.data, ledger, at, skip_unwanted)
            continue
        if epoch not in epochs:
            # Provisional, and the relay died before it could keep its word: an epoch gap must follow.
            assert not whole, f"{name} holds {line.id}, which was never committed, and was not told"
            continue
        assert seq > at, f"{name} got line {seq} when it had everything up to {at}"
        skip_unwanted(seq - 1)
        entry = by_seq.get(seq)
        if entry is not None:
            assert (
                line.raw.partition(b'"id":')[2].partition(b",")[2]
                == entry.raw.partition(b'"id":')[2].partition(b",")[2]
            ), f"{name} saw another line {seq} than the journal holds:\n{line.raw.decode()}\n{entry.raw.decode()}"
            assert match(entry) or entry.is_notice, f"{name} got line {seq}, which it did not want"
        at = seq
    if whole:
        skip_unwanted(ledger.head)


def _taken_back(got: list[Got]) -> list[tuple[int, int, int]]:
    """Return where a viewer was told that lines it had seen are not in the journal, and which: first and last."""
    found = []
    for index, line in enumerate(got):
        if is_private(line) and line.data["context"]["cause"] == "unsynced":
            context = line.data["context"]
            first, last = (int(context[key].rpartition("-")[2]) for key in ("first", "last"))
            assert context["count"] == last - first + 1, context
            assert line.id.endswith(f"-{first - 1}"), line
            found.append((index, first, last))
    return found


def _check_gap(name: str, notice: dict, ledger: Ledger, at: int, skip_unwanted: Callable[[int], None]) -> int:
    """A lag or retention gap begins right behind what was seen and counts exactly what it covers. Returns its end."""
    context = notice["context"]
    first, last = (int(str(context[key]).rpartition("-")[2]) for key in ("first", "last"))
    if context["cause"] == "unsynced":
        assert at == first - 1, f"{name}: {first} to {last} were taken back, and it has everything up to {at}"
        return at
    if context["cause"] == "retention":
        assert first == at + 1 or first <= at + 1 <= last, f"{name}: gap {first}-{last} when it had {at}"
        assert context["count"] == last - first + 1, notice
        skip_unwanted(first - 1)
        return last
    raise AssertionError(f"{name}: not expected here: {notice}")
