"""Reads that fail: what is said of them, and when they are tried again."""

from __future__ import annotations

import asyncio

import pytest

from logrelay.errors import JournalError
from tests.unit.test_pipeline import Bench


def test_a_retry_that_comes_after_the_stop_reads_nothing():
    """The timer may have fired already when the stop begins."""

    async def go():
        bench = Bench(head=20)
        await bench.fail_read(JournalError("the disk does not answer"))
        reads = len(bench.journal.reads)
        await bench.pipeline.wait_committed(0.0)
        bench.pipeline._requests._on_retry()
        assert len(bench.journal.reads) == reads

    asyncio.run(go())


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (JournalError("the disk does not answer"), "the journal cannot be read: the disk does not answer"),
        (MemoryError("no room"), "lines cannot be compressed: no room"),
    ],
)
def test_what_failed_is_said(error, text):
    """Reading and compressing happen on other threads, and only one of them is the disk's fault."""

    async def go():
        bench = Bench(head=20)
        assert await bench.fail_read(error) == text

    asyncio.run(go())
