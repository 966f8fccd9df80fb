"""An answer over plain HTTP: its head, and a body of unknown length on its way.

Owns: the fields that every answer has, the pace at which a long body is written, and how long its reader may take
nothing. It must not know what is answered, or which request it was. Read `viewers/connection` next: it sends answers.
"""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import AsyncGenerator, Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Protocol

from websockets.datastructures import Headers
from websockets.http11 import Response

from logrelay import budgets
from logrelay.http.response import HttpResponse

STREAM_TIMEOUT_S = 60.0
"""A reader of /logs that takes nothing for so long is gone; it would keep its connection for ever."""

MAX_ANSWER_HEADS = 64
"""Heads of answers that are remembered, half a kilobyte each. What is asked by thousands in a second, or sent by those
who mean harm, has the same head for that second; making one takes a fifth of a millisecond."""


@lru_cache(MAX_ANSWER_HEADS)
def answer_head(status: int, given: tuple[tuple[str, str], ...], length: int | None, now_s: int) -> bytes:
    """Return the head of an answer; `length` is that of its body, None where that is not known or there is none."""
    fields = Headers()
    fields["Date"] = email.utils.formatdate(now_s, usegmt=True)
    fields["Connection"] = "close"
    if length is not None:
        fields["Content-Length"] = str(length)
        fields["Content-Type"] = "text/plain; charset=utf-8"
    for name, value in HttpResponse(status, given).with_safe_headers().headers:
        if name.lower() in ("content-length", "content-type") and name in fields:
            del fields[name]  # the answer to HEAD names the length of what GET would send
        fields[name] = value
    return Response(status, HTTPStatus(status).phrase, fields).serialize()


class StreamLimits(Protocol):
    """Who knows how many answers of unknown length are under way. Called on the event loop."""

    @property
    def streams_are_full(self) -> bool:
        """Whether so many of them are under way that others are refused."""

    def exceeded(self, cause: str, times: int = 1) -> None:
        """Count that a limit was met, by a key of `budgets.CAUSES`."""


class AnswerStream:
    """Writes a head and a body of unknown length, waiting for the socket; the end of the connection is its end.

    `reset` cuts the connection so that its reader does not take half a body for the whole.
    """

    __slots__ = ("_limits", "_loop", "_reset", "_resumed", "_task", "_transport")

    def __init__(
        self,
        transport: asyncio.Transport,
        head: bytes,
        chunks: AsyncGenerator[bytes, None],
        *,
        limits: StreamLimits,
        reset: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Begin to write."""
        self._transport, self._limits, self._reset, self._loop = transport, limits, reset, loop
        self._resumed = asyncio.Event()
        """Set while the socket has room."""
        self._resumed.set()
        self._task = loop.create_task(self._send(head, chunks))

    def pause_writing(self) -> None:
        """Note that the kernel has no room."""
        self._resumed.clear()

    def resume_writing(self) -> None:
        """Go on."""
        self._resumed.set()

    def cancel(self) -> None:
        """Write nothing more: the connection has ended."""
        self._task.cancel()

    async def _send(self, head: bytes, chunks: AsyncGenerator[bytes, None]) -> None:
        transport = self._transport
        try:
            transport.write(head)
            async for chunk in chunks:
                for start in range(0, len(chunk), budgets.ANSWER_SLICE_BYTES):
                    transport.write(chunk[start : start + budgets.ANSWER_SLICE_BYTES])
                    await self._wait_for_reader()
            transport.close()
        except OSError:  # it has TimeoutError among its kinds
            self._reset()
        except Exception as error:
            self._loop.call_exception_handler({"message": "an answer failed", "exception": error})
            self._reset()
        finally:
            await chunks.aclose()

    async def _wait_for_reader(self) -> None:
        """Wait until the socket has room. Raises TimeoutError when its reader is gone, or keeps others waiting."""
        waited_s = 0.0
        while not self._resumed.is_set():
            try:
                await asyncio.wait_for(self._resumed.wait(), budgets.STALLED_ANSWER_S)
            except TimeoutError:
                waited_s += budgets.STALLED_ANSWER_S
                if self._limits.streams_are_full:
                    self._limits.exceeded("stalled")
                    raise
                if waited_s >= STREAM_TIMEOUT_S:
                    raise
