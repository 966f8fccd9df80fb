"""Gives inputs to the viewers' port's code in this process, and checks every byte that it answers.

Owns: `PortLane`. Everything is real from `ViewerConnection` inwards (service, access policy, tokens, sessions, plain
HTTP, a journal in memory), but for the hub, which is told and sends nothing. Read `real` next.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from types import SimpleNamespace

import orjson

from logrelay import budgets
from logrelay.access.token_keeper import TokenKeeper
from logrelay.access.tokens import Token, TokenSet, digest_of
from logrelay.fanout.filters import Limit
from logrelay.http.api import HttpApi
from logrelay.journal.memory import MemoryJournal
from logrelay.model import Commit, Line
from logrelay.viewers.access_policy import AccessPolicy
from logrelay.viewers.connection import ViewerConnection
from logrelay.viewers.messages import CLOSE_CODES, ERROR_CODES, MESSAGE_TYPES
from logrelay.viewers.service import ViewerService
from tests.fuzz.cases import Case
from tests.fuzz.port_inputs import GOOD_TOKEN
from tests.fuzz.socket_lane import Fault, require
from tests.support.streams import FakeStream

NOW = 1_769_162_400.0
STATUSES = {101, 200, 204, 304, 400, 401, 403, 404, 405, 410, 414, 426, 429, 431, 501, 503, 505}
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z -]+")
HEADER = re.compile(rb"([A-Za-z0-9-]+): ([\x20-\x7e]*)")
NEVER_SENT = {1005, 1006, 1015}
"""Close codes that RFC 6455 keeps from the wire."""
HTTP_ERROR_CODES = {*ERROR_CODES, "bad_parameter", "bad_time", "bad_method", "not_found", "limited", "unsynced"}
LINES = 10


def _lines() -> list[Line]:
    lines = []
    for seq in range(1, LINES + 1):
        context = {"n": seq, "symbol": "AAPL", "k": [None, 1.0, "v", True][seq % 4]}
        shape = {
            "type": "log",
            "id": f"k3f9ab-{seq}",
            "level": "INFO",
            "source": f"bot.part{seq % 3}",
            "message": f"line {seq}",
            "context": context,
            "timestamp": "2026-01-23T10:00:00.000000Z",
        }
        body = orjson.dumps(shape)
        lines.append(Line(seq, int(NOW * 1e6) + seq, 20, shape["source"], 1, body, shape["message"], context, "bot"))
    return lines


class _Stream(FakeStream):
    """The lines are in a journal; filters are tried on them as the hub would; nothing is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = MemoryJournal(random_epoch=lambda: "k3f9ab")
        self.journal.open()
        self.lines = _lines()
        self.journal.append(Commit(self.lines))
        self.joined = 0

    def _match(self, wanted) -> None:
        for line in self.lines[:3]:
            wanted.matches(line)

    def join(self, sink, wanted, form, *, deflate=False):
        self.joined += 1
        self._match(wanted)
        return SimpleNamespace(sink=sink, filter=wanted)

    def start_after(self, viewer, seq, gap=None):
        require(0 <= seq <= self.head, "begins at a place that is not there", seq)

    def start_tail(self, viewer, lines, behind=None):
        require(behind is None or 0 <= behind <= self.head, "begins behind a place that is not there", behind)
        require(0 <= lines <= 100_000, "tail", lines)

    def change(self, viewer, wanted):
        viewer.filter = wanted
        self._match(wanted)

    resubscribe = change

    def leave(self, viewer):
        self.joined -= 1

    def drained(self, viewer):
        pass

    async def read(self, query):
        return self.journal.page(query)


class _Timer:
    def __init__(self, due, callback, arguments) -> None:
        self.due, self.callback, self.arguments, self.is_cancelled = due, callback, arguments, False

    def cancel(self) -> None:
        self.is_cancelled = True


class _Loop:
    """The loop as connections see it: tasks are real, time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[_Timer] = []
        self.tasks: set[asyncio.Task] = set()
        self.errors: list[dict] = []

    def time(self):
        return self.now

    def call_later(self, delay, callback, *arguments):
        timer = _Timer(self.now + delay, callback, arguments)
        self.timers.append(timer)
        return timer

    def create_task(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def call_exception_handler(self, context):
        self.errors.append(context)

    def pass_time(self) -> bool:
        """Have the next timer ring; False: there is none."""
        self.timers = [timer for timer in self.timers if not timer.is_cancelled]
        if not self.timers:
            return False
        timer = min(self.timers, key=lambda timer: timer.due)
        self.timers.remove(timer)
        self.now = timer.due
        timer.callback(*timer.arguments)
        return True


class _Transport:
    def __init__(self, address: str) -> None:
        self.address, self.written, self.ended, self.is_reading_now = address, bytearray(), "", True

    def set_write_buffer_limits(self, high):
        pass

    def get_extra_info(self, name):
        return (self.address, 5) if name == "peername" else None

    def write(self, data):
        require(self.ended in ("", "abort"), "written behind the end", data)
        self.written += data

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.ended = self.ended or "eof"

    def close(self):
        self.ended = "close"

    def abort(self):
        self.ended = "abort"

    def is_closing(self):
        return self.ended in ("close", "abort")

    def is_reading(self):
        return self.is_reading_now

    def pause_reading(self):
        require(self.is_reading_now, "paused twice")
        self.is_reading_now = False

    def resume_reading(self):
        require(not self.is_reading_now, "resumed twice")
        self.is_reading_now = True


class _Tokens(TokenKeeper):
    """One good token, with a limit or without."""

    def __init__(self, limit: Limit) -> None:
        self.clock = 0.0
        super().__init__(None, None, now=lambda: NOW, mono=lambda: self.clock)
        self.token_set = TokenSet((Token("phone", digest_of(GOOD_TOKEN), limit=limit),), needed=True)


class _Registry:
    def __init__(self) -> None:
        self.offers = self.streams_are_full = False
        self.read_buffer = bytearray(budgets.READ_BYTES)
        self.charged = 0
        self.open = 0

    def add(self, connection):
        self.open += 1
        return True

    def refuse_viewer(self, connection):
        return None

    def offers_compression(self, peer):
        return self.offers

    def viewer_opened(self, connection):
        pass

    def answering(self, connection):
        pass

    def streaming(self, connection):
        pass

    def forget(self, connection):
        self.open -= 1
        self.charged = 0

    def request_turn(self, connection):
        connection.take_turn()

    def charge(self, connection, count):
        require(0 <= count <= (1 << 17) + budgets.READ_BYTES, "much is held", count)
        self.charged = count

    def exceeded(self, cause, times=1):
        pass


class PortLane:
    """Checks one input after another, on an event loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._start())

    async def _start(self) -> None:
        self._stream, self._loop, self._registry = _Stream(), _Loop(), _Registry()
        self._tokens = {"token": _Tokens(Limit()), "limited": _Tokens(Limit(20, ("bot.*",), ("bot",)))}
        self._services = {name: self._service(self._tokens.get(name)) for name in ("open", "token", "limited")}

    def _service(self, tokens: TokenKeeper | None) -> ViewerService:
        return ViewerService(
            self._stream, AccessPolicy(None), tail=500, version="1.2.3", loop=self._loop, tokens=tokens,
            make_http=lambda facts: HttpApi(facts, now=lambda: NOW),
        )  # fmt: skip

    def close(self) -> None:
        """End the event loop."""
        self._runner.close()

    def check(self, case: Case) -> str | None:
        """Return what does not hold, or None."""
        return self._runner.get_loop().run_until_complete(self._guarded(case))

    async def _guarded(self, case: Case) -> str | None:
        try:
            await self._check(case)
        except Fault as fault:
            return str(fault)
        except Exception:
            return traceback.format_exc()
        finally:
            for task in list(self._loop.tasks):
                task.cancel()
            if self._loop.tasks:
                await asyncio.gather(*self._loop.tasks, return_exceptions=True)
            self._loop.timers.clear()
            self._loop.errors.clear()
            self._registry.open = self._stream.joined = self._registry.charged = 0
        return None

    async def _check(self, case: Case) -> None:
        loop, registry = self._loop, self._registry
        registry.offers = bool(case.peer["deflate"])
        for tokens in self._tokens.values():
            tokens.clock += 1000.0  # earlier wrong tokens are forgotten
        transport = _Transport(str(case.peer["address"]))
        connection = ViewerConnection(registry, self._services[str(case.peer["relay"])], loop)
        connection.connection_made(transport)
        for data in case.connections[0].reads():
            for start in range(0, len(data), budgets.READ_BYTES):
                while not transport.is_reading_now and not transport.is_closing() and loop.pass_time():
                    pass
                if transport.is_closing():
                    break
                part = data[start : start + budgets.READ_BYTES]
                connection.get_buffer(-1)[: len(part)] = part
                connection.buffer_updated(len(part))
                await self._settle()
        if not transport.is_closing():
            if case.peer["address"] != "127.0.0.1":
                connection.eof_received()
            await self._settle()
        for _ in range(20):
            if transport.written or transport.is_closing() or not loop.pass_time():
                break
            await self._settle()
        await self._settle()
        is_open = not transport.ended
        connection.connection_lost(None)
        await self._settle()
        require(not loop.errors, "an error inside", *(_told(error) for error in loop.errors))
        require(not loop.tasks, "a task goes on")
        require(registry.open == 0 and registry.charged == 0, "a connection is not forgotten")
        require(self._stream.joined == 0, "a viewer stays in the hub", self._stream.joined)
        loop.timers = [timer for timer in loop.timers if not timer.is_cancelled]
        require(not loop.timers, "a timer goes on", [timer.callback for timer in loop.timers])
        check_answer(bytes(transport.written), is_open=is_open)

    async def _settle(self) -> None:
        """Let tasks come to their end."""
        for _ in range(200):
            if not self._loop.tasks:
                return
            await asyncio.sleep(0)
        raise Fault("a task does not come to its end")


def _told(context: dict) -> str:
    error = context.get("exception")
    return "".join(traceback.format_exception(error))[-1500:] if error is not None else str(context)


def check_answer(data: bytes, *, is_open: bool) -> None:
    """Require a whole and well-formed answer, and behind a handshake well-formed frames and messages."""
    if not data:
        return
    head, found, body = data.partition(b"\r\n\r\n")
    require(found, "a head without end", data)
    first, *rows = head.split(b"\r\n")
    status_line = STATUS_LINE.fullmatch(first)
    require(status_line, "a status line", first)
    status = int(status_line[1])
    require(status in STATUSES, "a status that is not documented", status, body)
    headers: dict[bytes, bytes] = {}
    for row in rows:
        field = HEADER.fullmatch(row)
        require(field, "a header", row)
        require(field[1].lower() not in headers, "a header is sent twice", row)
        headers[field[1].lower()] = field[2]
    if status == 101:
        check_frames(body)
        return
    require(not is_open, "the connection goes on behind an answer", first)
    require(headers[b"connection"] == b"close" and b"date" in headers, "connection or date", headers)
    require(headers[b"x-content-type-options"] == b"nosniff", "the safety headers", headers)
    if b"content-length" in headers and body:
        require(int(headers[b"content-length"]) == len(body), "the length", headers, body)
    kind = headers.get(b"content-type", b"")
    if status not in (204, 304):
        require(kind, "no type", headers)
    if kind.startswith(b"application/json") and body:
        shape = orjson.loads(body)
        if shape.get("type") == "error":
            require(shape["code"] in HTTP_ERROR_CODES and type(shape["message"]) is str, "an error object", shape)
    if b"ndjson" in kind:
        for line in body.splitlines():
            require(orjson.loads(line)["type"] in ("log", "error"), "a line of /logs", line)


def check_frames(data: bytes, *, is_whole: bool = True) -> None:
    """Require unmasked whole frames, each text one of the messages that are documented, and nothing behind a close.

    Not `is_whole`: the end may be missing.
    """
    at, closed = 0, False
    while at < len(data):
        require(not closed or data[at] == 0x8A, "a frame behind the close frame that is no pong", data[at:])
        if not is_whole and len(data) - at < 10:
            return
        require(len(data) - at >= 2, "half a frame", data[at:])
        first, size, begin = data[at], data[at + 1], at + 2
        require(first & 0x80 and size < 128, "a fragment, or a masked frame", data[at:])
        if size == 126:
            size, begin = int.from_bytes(data[begin : begin + 2], "big"), begin + 2
        elif size == 127:
            size, begin = int.from_bytes(data[begin : begin + 8], "big"), begin + 8
        payload, opcode, at = data[begin : begin + size], first & 0x7F, begin + size
        if not is_whole and len(payload) < size:
            return
        require(len(payload) == size, "half a frame", data)
        if opcode == 1:
            check_message(payload)
        elif opcode == 8:
            closed = True
            if payload:
                code = int.from_bytes(payload[:2], "big")
                payload[2:].decode()
                require(1000 <= code < 5000 and code not in NEVER_SENT, "a close code", payload)
                require(size <= 125, "a long close frame")
                require(code in CLOSE_CODES or 3000 <= code or code < 1015, "a close code", code)
        else:
            require(opcode in (9, 10) and size <= 125, "an opcode", first)


def check_message(payload: bytes) -> None:
    """Require one of the documented messages."""
    shape = orjson.loads(payload)
    if type(shape) is list:
        require(all(line["type"] == "log" for line in shape), "a batch", shape)
        return
    require(shape["type"] in MESSAGE_TYPES, "a message type", shape)
    if shape["type"] == "error":
        require(shape["code"] in ERROR_CODES and type(shape["message"]) is str, "an error", shape)
        require(len(shape["message"]) < 1000, "a long error", shape)
    elif shape["type"] == "history":
        require(type(shape["logs"]) is list and type(shape["more"]) is bool, "history", shape)
    elif shape["type"] == "subscribed":
        require(shape["channel"] == "logs" and type(shape["filter"]) is dict and type(shape["head"]) is str, "", shape)
