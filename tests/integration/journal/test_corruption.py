"""One corruption in each page of a journal, one at a time: what is served is true or told as missing, always."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path

import orjson
import pytest

from logrelay.fanout.filters import Filter
from logrelay.journal import query, schema
from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit
from tests.support.journals import T0_US
from tests.support.waiting import DEADLINE_S

PAGE = schema.PAGE_SIZE
LINES = 1300
EVERY = 1 if os.environ.get("CHAOS") == "full" else 11
"""Pages from one that is damaged to the next; every one with CHAOS=full."""
FILTERS = (Filter(), Filter(level=40), Filter(sources=("risk",)), Filter(text="rare"), Filter(where=(("n", "7"),)))


def random_bytes(page: bytearray, dice: random.Random) -> None:
    """Another file's content, or a bad disk's."""
    page[:] = dice.randbytes(len(page))


def zeros(page: bytearray, _dice: random.Random) -> None:
    """What a power cut or a hole in a file leaves."""
    page[:] = bytes(len(page))


def one_bit(page: bytearray, dice: random.Random) -> None:
    """Bad memory."""
    page[dice.randrange(len(page))] ^= 1 << dice.randrange(8)


DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "random": random_bytes,
    "zeros": zeros,
    "bit": one_bit,
}


EPOCHS = (f"fresh{n}" for n in count(1))


def open_journal(path: Path) -> SqliteJournal:
    return SqliteJournal(str(path), now_us=lambda: T0_US, random_epoch=lambda: next(EPOCHS))


@pytest.fixture(scope="module")
def original(tmp_path_factory, line, run):
    """A journal of some hundred pages, stopped cleanly; its directory and its true lines."""
    directory = tmp_path_factory.mktemp("corrupt")
    journal = SqliteJournal(str(directory / "journal.db"), now_us=lambda: T0_US, random_epoch=lambda: "abc123")
    journal.open()
    true: dict[int, bytes] = {}
    for first in range(1, LINES + 1, 100):
        lines = [
            line(
                seq,
                level=40 if seq % 50 == 0 else 20,
                source="risk" if seq % 40 == 0 else "runner",
                message="rare.event" if seq % 97 == 0 else "trade.executed",
                context={"n": seq % 10, "pad": "x" * (5000 if seq % 400 == 0 else 20)},
            )
            for seq in range(first, first + 100)
        ]
        true |= {one.seq: one.body for one in lines}
        journal.append(Commit(lines, [run(1, last_seq=first + 99)]))
    journal.close()
    return directory, true


def read(journal: SqliteJournal, wanted: Filter, *, newest: bool, limit: int = 100) -> dict[int, bytes]:
    """Read everything that passes a filter, a page at a time."""
    found: dict[int, bytes] = {}
    after, until = 0, LINES
    while after < until:
        page = journal.page(Query(after, until, limit, wanted, newest=newest))
        found |= dict(zip(page.seqs, page.bodies, strict=True))
        if page.complete:
            break
        after, until = (after, page.reached) if newest else (page.reached, until)
    return found


def check(journal: SqliteJournal, oldest: int, true: dict[int, bytes], wanted: Filter, *, newest: bool) -> int:
    """Hold what is served to what was written; returns the number of lines told as missing."""
    found = read(journal, wanted, newest=newest)
    missing = set(range(1, oldest))
    for seq, body in found.items():
        if body == true.get(seq):
            continue
        shape = orjson.loads(body)
        assert shape["context"]["notice"] == "gap", f"line {seq} is not what was written: {body!r}"
        assert shape["context"]["cause"] == "corrupt"
        first, last = (int(shape["context"][key].rpartition("-")[2]) for key in ("first", "last"))
        assert shape["context"]["count"] == last - first + 1
        assert last == seq
        missing |= set(range(first, last + 1))
    for seq, body in true.items():
        shape = orjson.loads(body)
        passes = (
            (not wanted.level or shape["level"] == "ERROR" or wanted.level <= 20)
            and (not wanted.sources or shape["source"] in wanted.sources)
            and (not wanted.text or wanted.text in shape["message"])
            and (not wanted.where or str(shape["context"]["n"]) == wanted.where[0][1])
        )
        if passes:
            assert seq in found or seq in missing, f"line {seq} is missing, and nothing says so"
    assert [a for a, b in pairwise(sorted(found)) if a >= b] == []
    return len(missing)


def damaged_copy(directory: Path, target: Path, number: int, name: str) -> Path:
    """Copy the journal, with one page damaged."""
    shutil.copytree(directory, target)
    path, dice = target / "journal.db", random.Random(f"{number} {name}")
    with path.open("r+b") as file:
        file.seek((number - 1) * PAGE)
        page = bytearray(file.read(PAGE))
        DAMAGES[name](page, dice)
        file.seek((number - 1) * PAGE)
        file.write(page)
    return path


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """A page has all that was asked for, however busy the machine is."""
    monkeypatch.setattr(query, "PAGE_SECONDS", DEADLINE_S)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_page_costs_its_own_lines_and_is_told(original, tmp_path, line, name):
    """The journal opens, under the same ids; every reader gets the truth or a gap, whatever it asks for."""
    directory, true = original
    pages = (directory / "journal.db").stat().st_size // PAGE
    assert pages > 60
    lost = []
    for number in range(1, pages + 1, EVERY):
        path = damaged_copy(directory, tmp_path / f"{name}{number}", number, name)
        journal = open_journal(path)
        opening = journal.open()
        epochs = [(epoch.name, epoch.first) for epoch in opening.earlier]
        assert (epochs, opening.head) == ([("abc123", 1)], LINES), f"page {number}: {opening.notices}"
        for wanted in FILTERS:
            for newest in (False, True):
                missing = check(journal, opening.oldest, true, wanted, newest=newest)
        journal.append(Commit([line(LINES + 1)]))
        assert journal.page(Query(LINES, LINES + 9, 9)).seqs == [LINES + 1]
        journal.close()
        again = open_journal(path)
        assert again.open().notices == [], f"page {number}: told more than once"
        assert check(again, again.page(Query(0, 1, 1)).oldest, true, Filter(), newest=False) == missing
        again.close()
        lost.append(missing)
        shutil.rmtree(path.parent)
    assert max(lost) < 60, f"a page holds fewer lines: {lost}"
    print(f"{name}: {len(lost)} of {pages} pages damaged, {sum(lost)} lines lost, {max(lost)} at most")
