"""A whole relay on a loop in a thread, with real sockets and a real journal, and peers to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
import threading
from pathlib import Path

import msgpack
import pytest
import uvloop

from logrelay.http.api import HttpApi
from logrelay.ingest import connection as ingest_connection
from logrelay.ingest.keepalive import Bounds
from logrelay.ingest.server import TraderServer
from logrelay.journal import memory, query
from logrelay.journal.memory import MemoryJournal
from logrelay.journal.writer_thread import JournalThread
from logrelay.listeners import UnixListener
from logrelay.pipeline import Pipeline
from logrelay.viewers import connection as viewer_connection
from logrelay.viewers import plain_answer
from logrelay.viewers import server as viewer_server
from logrelay.viewers.access_policy import AccessPolicy
from logrelay.viewers.server import ViewerServer
from logrelay.viewers.service import ViewerService
from tests.support.threads import join
from tests.support.waiting import DEADLINE_S, wait_for

COMMIT_DEADLINE_S = 10 * DEADLINE_S
"""A commit that takes longer is trouble; only the tests of that make it short, because a busy machine is no trouble."""

READ_RETRY_S = 0.05
"""A failed read of the journal is tried again at once, near enough."""

CLOSE_S = DEADLINE_S
"""A journal gets as long to be closed as anything here, and so does a viewer for its goodbye."""


T0_NS = 1_769_162_400_000_000_000
"""When a trader's first line was logged: a time that a relay believes."""


class Trader:
    """One run on one connection, frame by frame."""

    def __init__(self, path, run=None, app="bot"):
        self.run = run or os.urandom(16)
        self.app = app
        self.unpacker = msgpack.Unpacker()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(str(path))

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, *frames):
        self.raw(b"".join(msgpack.packb(frame) for frame in frames))

    def hello(self):
        """Say hello; return what the relay has acked."""
        said = {"protocol": 1, "run": self.run, "app": self.app, "host": "box", "pid": 7, "started_ns": 0}
        self.send([0, said])
        kind, answer = self.frame()
        assert kind == 0, answer
        return answer["acked"]

    def log(self, first, last=None, level="info", **fields):
        last = first if last is None else last
        lines = range(first, last + 1)
        self.send(*([1, seq, T0_NS + seq * 1000, level, {"event": f"line {seq}", **fields}] for seq in lines))

    def frame(self):
        """Return the relay's next frame, or None at the end of the connection."""
        while True:
            for frame in self.unpacker:
                return frame
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self.unpacker.feed(data)

    def acked(self, seq):
        """Wait for the ack of `seq`."""
        while True:
            frame = self.frame()
            assert frame is not None, f"the connection ended before {seq} was acked"
            if frame[0] == 1 and frame[1] >= seq:
                return

    def close(self):
        self.sock.close()


class House:
    """Everything `daemon` builds, on a loop in a thread."""

    def __init__(
        self,
        folder,
        loop_factory,
        *,
        journal=None,
        max_lag=200_000,
        tail=500,
        quiet_after_s=60.0,
        commit_deadline_s=COMMIT_DEADLINE_S,
        close_s=CLOSE_S,
        **options,
    ):
        self.close_s = close_s
        self.path = Path(folder) / "ingest.sock"
        self.said = []
        self.tls = options.get("tls")
        self.guests = []
        """Peers to be closed at the end, whatever happened."""
        self.problems = []
        self.runner = asyncio.Runner(loop_factory=loop_factory)
        self.loop = self.runner.get_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.problems.append(context))
        self.journal = journal or MemoryJournal(random_epoch=lambda: "k3f9ab")
        opening = self.journal.open()
        names = iter("abcdefghijklmnopqrstuvwxyz")
        self.fatal = []
        """Reasons for which the process would end."""
        self.pipeline = Pipeline(
            opening,
            make_journal_thread=lambda events: JournalThread(
                self.journal, opening, events, self.loop.call_soon_threadsafe
            ),
            make_trader_server=lambda intake: TraderServer(
                intake,
                max_connections=options.get("max_traders", 500),
                loop=self.loop,
                bounds=options.get("bounds", Bounds()),
            ),
            on_fatal=self.fatal.append,
            on_notice=lambda *said: self.said.append(said),
            random_text=lambda n: next(names) * n,
            loop=self.loop,
            quiet_after_s=quiet_after_s,
            max_lag=max_lag,
            landing_lines=tail,
            commit_deadline_s=commit_deadline_s,
            read_retry_s=READ_RETRY_S,
        )
        self.ingest = self.pipeline.trader_server
        self.service = ViewerService(
            self.pipeline,
            AccessPolicy(options.get("token")),
            tail=tail,
            version="0.0.0",
            loop=self.loop,
            make_http=HttpApi,
        )
        self.viewers = ViewerServer(
            self.service,
            max_viewers=options.get("max_viewers", 100),
            compression=options.get("compression", "auto"),
            loop=self.loop,
        )
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self.stopping = None
        self.thread = threading.Thread(target=self.runner.run, args=(self.live(listener),), daemon=True)
        self.ready = threading.Event()
        self.thread.start()
        assert self.ready.wait(DEADLINE_S)

    async def live(self, listener):
        self.stopping = asyncio.Event()
        log_socket = UnixListener(str(self.path))
        await self.ingest.serve(log_socket.socket)
        await self.viewers.listen(listener, tls=self.tls)
        self.pipeline.start()
        self.service.begin()
        self.ready.set()
        await self.stopping.wait()
        self.viewers.stop_accepting()
        log_socket.remove()
        await self.ingest.drain()
        await self.pipeline.wait_committed(self.close_s)
        await self.ingest.close()
        await self.viewers.close(1012, "the relay is stopping", self.close_s)
        await self.pipeline.close(self.close_s)

    def call(self, function, *args):
        """Call a function on the loop; return its result."""

        async def there():
            return function(*args)

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(DEADLINE_S)

    def counter(self, name):
        """Return one counter of the pipeline."""
        return self.call(self.pipeline.counters)[name]

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}/"

    def trader(self, **settings):
        guest = Trader(self.path, **settings)
        self.guests.append(guest)
        return guest

    def stop(self):
        """Stop as the daemon does; nothing may have gone wrong on the loop meanwhile."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.stopping.set)
            join(self.thread)
            self.runner.close()
        assert not self.problems, self.problems


def loop_factories():
    """The loops the product runs on."""
    return [pytest.param(uvloop.new_event_loop, id="uvloop"), pytest.param(asyncio.new_event_loop, id="asyncio")]


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """A machine that stands still ends no connection, and a page of the journal has all that was asked for.

    The tests of these times make them short.
    """
    for module, name in (
        (ingest_connection, "HELLO_TIMEOUT_S"),
        (viewer_connection, "HANDSHAKE_TIMEOUT_S"),
        (viewer_server, "HANDSHAKE_TIMEOUT_S"),
        (viewer_server, "PING_INTERVAL_S"),
        (plain_answer, "STREAM_TIMEOUT_S"),
        (memory, "PAGE_SECONDS"),
        (query, "PAGE_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 10 * DEADLINE_S)


@pytest.fixture(params=loop_factories())
def loop_factory(request):
    return request.param


@pytest.fixture
def folder():
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="lr") as name:
        yield Path(name)


@pytest.fixture
def house(folder, loop_factory):
    """Return a function that starts a relay; stopped at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            made = House(folder, loop_factory, **settings)
            stack.callback(lambda: [guest.close() for guest in made.guests])
            stack.callback(made.stop)
            return made

        yield start


@pytest.fixture(name="until")
def until_fixture():
    return wait_for
