"""What the hub and others want from the journal and the compressors: carried out on other threads, in turn.

Owns: whose turn it is to have the journal read, the threads that compress, and when a failed read is tried again. It
must not know what is read or why. Read `fanout/hub` next: it takes the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from logrelay.errors import JournalError
from logrelay.fanout.batch import Segment
from logrelay.fanout.filters import is_search
from logrelay.fanout.hub import Hub
from logrelay.fanout.hub_types import (
    CompressFetch,
    Found,
    LevelsFetch,
    LinesFetch,
    Pack,
    PageFetch,
    Request,
    StartFetch,
)
from logrelay.journal.interface import Page, Query
from logrelay.journal.writer_thread import JournalThread
from logrelay.model import ERROR
from logrelay.read_queue import Read, ReadQueue

READ_RETRY_S = 1.0
"""After a failed read of the journal, viewers that wait for it are served again this much later."""

_F = TypeVar("_F", StartFetch, PageFetch, LevelsFetch, CompressFetch)
_Answer = TypeVar("_Answer")


class HubRequests:
    """Carries out what the hub has queued. Lives on one event loop: every method is to be called there.

    `on_notice` is called with level rank and text of what failed, `retry_s` seconds after a failed read of the journal
    it is tried again.
    """

    def __init__(
        self,
        hub: Hub,
        journal: JournalThread,
        *,
        loop: asyncio.AbstractEventLoop,
        on_notice: Callable[[int, str], None],
        retry_s: float = READ_RETRY_S,
    ) -> None:
        self._hub, self._journal, self._loop, self._on_notice, self._retry_s = hub, journal, loop, on_notice, retry_s
        self._reads = ReadQueue()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._stopping = False
        # Their threads are made when there is something to compress, not before.
        self._pack_compressor = ThreadPoolExecutor(1, thread_name_prefix="compress")
        self._page_compressor = ThreadPoolExecutor(1, thread_name_prefix="catch-up")

    def stop(self) -> None:
        """Try nothing again from now on."""
        self._stopping = True
        if self._retry_timer is not None:
            self._retry_timer.cancel()

    def close(self) -> None:
        """End the compressors. What they have not begun is dropped."""
        for pool in (self._pack_compressor, self._page_compressor):
            pool.shutdown(wait=False, cancel_futures=True)

    def carry_out_all(self) -> None:
        """Take what the hub has queued; to be called after every call of the hub that may send something."""
        for request in self._hub.take_requests():
            self.carry_out(request)

    def carry_out(self, request: Request) -> None:
        """Have something done on another thread; its answer goes to the hub."""
        journal, hub = self._journal, self._hub
        match request:
            case Pack():
                # One thread, so that the packs of a group stay in order.
                packed = self._pack_compressor.submit(request.compressed)
                packed.add_done_callback(lambda done: self._call_soon(self._on_packed, request, done))
            case StartFetch():
                self._read_for(request, lambda: journal.read_and(_query(request), _found), hub.started)
            case PageFetch():
                found = partial(_found_page, request)
                self._read_for(request, lambda: journal.read_and(_query(request), found), hub.paged)
            case LevelsFetch():
                self._read_for(request, lambda: journal.levels(request.first, request.last), hub.levels_counted)
            case CompressFetch():
                self._await_answer(request, self._page_compressor.submit(request.compressed), hub.compressed)

    def _read_for(self, fetch: _F, begin: Callable[[], Future[_Answer]], take: Callable[[_F, _Answer], None]) -> None:
        """Have the journal read when it is the viewer's turn; a viewer that wants something else by then has none."""
        viewer = fetch.viewer

        def start(turn: Read) -> None:
            answer = begin()
            answer.add_done_callback(lambda _: self._call_soon(self._reads.ended, turn))
            self._await_answer(fetch, answer, take)

        read = Read(
            viewer,
            search=isinstance(fetch, LinesFetch) and is_search(fetch.filter),
            is_wanted=lambda: fetch.generation == viewer.generation,
            begin=start,
        )
        self._reads.put(read)

    def _await_answer(self, fetch: _F, answer: Future[_Answer], take: Callable[[_F, _Answer], None]) -> None:
        """Have the hub `take` the answer to a fetch, on the loop, once it is there."""
        answer.add_done_callback(lambda done: self._call_soon(self._on_answer, fetch, done, take))

    def _call_soon(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits for the answer any more
            self._loop.call_soon_threadsafe(function, *args)

    def _on_packed(self, pack: Pack, packed: Future[list[Segment]]) -> None:
        if not packed.cancelled():
            # Only memory could have run out. Uncompressed messages are as good to read.
            segments = packed.result() if packed.exception() is None else pack.uncompressed()
            self._hub.packed(pack, segments)
            self.carry_out_all()

    def _on_answer(self, fetch: _F, answer: Future[_Answer], take: Callable[[_F, _Answer], None]) -> None:
        if answer.cancelled():
            return  # by `close`: nobody is served any more
        error = answer.exception()
        if error is None:
            take(fetch, answer.result())
            self.carry_out_all()
            return
        self._hub.failed(fetch)
        failed = "the journal cannot be read" if isinstance(error, JournalError) else "lines cannot be compressed"
        self._on_notice(ERROR, f"{failed}: {error}")
        if self._retry_timer is None and not self._stopping:
            self._retry_timer = self._loop.call_later(self._retry_s, self._on_retry)

    def _on_retry(self) -> None:
        self._retry_timer = None
        if self._stopping:
            return
        self._hub.retry()
        self.carry_out_all()

    def read_in_turn(self, begin: Callable[[], Future[_Answer]], *, search: bool) -> Awaitable[_Answer]:
        """Have the journal read for whoever asks, in turn with the hub. Cancelling drops the answer."""
        answer: asyncio.Future[_Answer] = self._loop.create_future()

        def start(turn: Read) -> None:
            begin().add_done_callback(lambda done: self._call_soon(self._on_read, turn, done, answer))

        self._reads.put(Read(answer, search=search, is_wanted=lambda: not answer.done(), begin=start))
        return answer

    def _on_read(self, turn: Read, read: Future[_Answer], answer: asyncio.Future[_Answer]) -> None:
        self._reads.ended(turn)
        if answer.done():
            return
        if read.cancelled():
            answer.cancel()
            return
        error = read.exception()
        if error is None:
            answer.set_result(read.result())
        else:
            answer.set_exception(error)


def _query(fetch: LinesFetch) -> Query:
    return Query(
        after=fetch.after,
        until=fetch.until,
        limit=fetch.limit,
        filter=fetch.filter,
        newest=isinstance(fetch, StartFetch),
        max_bytes=fetch.max_bytes,
        notices=fetch.notices if isinstance(fetch, StartFetch) else None,
    )


def _found(page: Page) -> Found:
    return Found(
        page.bodies,
        page.seqs,
        page.reached,
        page.complete,
        page.oldest,
        beside=page.beside,
        notices_from=page.notices_from,
    )


def _found_page(fetch: PageFetch, page: Page) -> Found:
    """Make the answer to `fetch` of a page, on the thread that has read it."""
    segments = fetch.compressed(page.bodies, page.seqs) if fetch.compress else None
    return Found(page.bodies, page.seqs, page.reached, page.complete, page.oldest, segments)
