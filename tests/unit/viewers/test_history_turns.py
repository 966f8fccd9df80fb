"""The turns of history answers: who begins, who waits, and what is kept."""

from __future__ import annotations

import asyncio

import pytest

from logrelay.budgets import HISTORIES_BEGUN, HISTORY_KEPT_BYTES, HISTORY_PAGES_AHEAD
from logrelay.viewers.history_turns import HistoryTurns


class Reader:
    """Somebody whose answer is read page by page, as the test says."""

    def __init__(self, turns, *, search=False):
        self.turn = None
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._read(turns, search))

    async def _read(self, turns, search):
        async with turns.turn(search=search) as self.turn:
            await self.done.wait()


async def begun(readers):
    """Return which of them have their turn, after all has happened that can."""
    for _ in range(5):
        await asyncio.sleep(0)
    return [index for index, reader in enumerate(readers) if reader.turn is not None]


async def end(*readers):
    """End them, however far they are."""
    for reader in readers:
        reader.task.cancel()
    await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)


def test_few_begin_at_once():
    """The next one when a first page is there; whoever came first is first."""

    async def scenario():
        turns = HistoryTurns()
        readers = [Reader(turns) for _ in range(HISTORIES_BEGUN + 3)]
        assert await begun(readers) == list(range(HISTORIES_BEGUN))
        readers[0].turn.keeps(10)
        readers[0].turn.keeps(20)
        assert await begun(readers) == list(range(HISTORIES_BEGUN + 1))
        late = Reader(turns)
        readers[1].done.set()
        assert await begun([*readers, late]) == list(range(HISTORIES_BEGUN + 2))
        assert turns.expected == 20 + 10 * HISTORY_PAGES_AHEAD, "it is about to grow as it did"
        readers[0].turn.keeps(20)
        assert turns.expected == 20
        await end(*readers, late)
        assert turns.expected == 0

    asyncio.run(scenario())


def test_nobody_begins_while_much_is_kept():
    """What others have read, or are about to, is bounded; when one of them is whole the next begins."""

    async def scenario():
        turns = HistoryTurns()
        readers = [Reader(turns) for _ in range(2)]
        assert await begun(readers) == [0, 1]
        page = HISTORY_KEPT_BYTES // (1 + HISTORY_PAGES_AHEAD)
        readers[0].turn.keeps(page)
        readers.append(Reader(turns))
        assert await begun(readers) == [0, 1, 2]
        readers[1].turn.keeps(1)
        readers += [Reader(turns), Reader(turns)]
        assert await begun(readers) == [0, 1, 2]
        assert turns.expected >= HISTORY_KEPT_BYTES
        readers[1].done.set()
        assert await begun(readers) == [0, 1, 2, 3, 4]
        await end(*readers)
        assert turns.expected == 0

    asyncio.run(scenario())


def test_searches_have_turns_of_their_own():
    """However many there are, who scrolls does not wait for them, nor the other way round."""

    async def scenario():
        turns = HistoryTurns()
        searches = [Reader(turns, search=True) for _ in range(HISTORIES_BEGUN + 1)]
        assert await begun(searches) == list(range(HISTORIES_BEGUN))
        readers = [Reader(turns)]
        assert await begun(readers) == [0]
        searches[0].turn.keeps(5)
        readers[0].turn.keeps(7)
        assert turns.expected == 12 * (1 + HISTORY_PAGES_AHEAD)
        await end(*searches, *readers)

    asyncio.run(scenario())


@pytest.mark.parametrize("woken", [False, True])
def test_who_gives_up_keeps_no_turn(woken):
    """Before its turn has come, and in the moment in which it comes."""

    async def scenario():
        turns = HistoryTurns()
        readers = [Reader(turns) for _ in range(HISTORIES_BEGUN + 2)]
        assert await begun(readers) == list(range(HISTORIES_BEGUN))
        if woken:
            readers[0].turn.keeps(1)
        await end(readers[HISTORIES_BEGUN])
        if not woken:
            readers[0].turn.keeps(1)
        assert await begun(readers) == [*range(HISTORIES_BEGUN), HISTORIES_BEGUN + 1]
        for reader in readers[1:HISTORIES_BEGUN]:
            reader.turn.keeps(1)
        newcomers = [Reader(turns) for _ in range(HISTORIES_BEGUN)]
        assert await begun(newcomers) == list(range(HISTORIES_BEGUN - 1)), "one that has its turn has no page yet"
        await end(*readers, *newcomers)

    asyncio.run(scenario())
