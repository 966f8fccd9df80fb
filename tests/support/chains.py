"""Fixtures for the trader's side: a recorder in the relay's place, and a real socket that speaks the protocol."""

import contextlib
import io
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading

import msgpack
import pytest
import structlog

from robo_trader import logger
from robo_trader.logging import bound_logger
from tests.support.threads import join
from tests.support.waiting import wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Recorder:
    """Stands where the relay processor stands and keeps a copy of what it is given."""

    def __init__(self):
        self.seen = []

    def __call__(self, _logger, method_name, event_dict):
        self.seen.append((method_name, dict(event_dict)))
        return event_dict

    @property
    def events(self):
        return [event for _, event in self.seen]


class Relay:
    """The other end of the socket: welcomes, acknowledges, remembers every frame."""

    def __init__(self, path):
        self.path = path
        self.logs = []
        self.hellos = []
        self.byes = 0
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(path)
        self._server.listen()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._connections = []
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection):
        unpacker = msgpack.Unpacker(raw=False)
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65536):
                unpacker.feed(data)
                for frame in unpacker:
                    if frame[0] == 0:
                        self.hellos.append(frame[1])
                        self._answer(connection, [0, {"protocol": 1, "acked": 0}])
                    elif frame[0] == 1:
                        self.logs.append(frame)
                        self._answer(connection, [1, frame[1]])
                    elif frame[0] == 3:
                        self.byes += 1

    def _answer(self, connection, frame):
        """Answer, if anybody is still there: what a bot had sent before its end is read all the same."""
        with contextlib.suppress(OSError):
            connection.sendall(msgpack.packb(frame))

    @property
    def events(self):
        return [frame[4] for frame in self.logs]

    def wait(self, condition):
        """Wait until `condition(self)` holds; fail with what did arrive if it never does."""
        wait_for(lambda: condition(self), lambda: f"lines; got {[e.get('event') for e in self.events][-20:]}")

    def close(self):
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        join(*self._threads)


@pytest.fixture
def relay():
    """A relay on a socket of its own."""
    folder = tempfile.mkdtemp(prefix="rt-")
    running = Relay(os.path.join(folder, "s"))
    try:
        yield running
        logger.reset_structlog()  # says goodbye while there is still someone to hear it
    finally:
        running.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    """No test sees the settings of the machine or of another test."""
    for name in [n for n in os.environ if n.startswith(("LOGRELAY_", "ROBO_"))]:
        monkeypatch.delenv(name)
    structlog.contextvars.clear_contextvars()
    bound_logger._warned.clear()
    failures = bound_logger.TraderLogger.failures
    yield
    logger.reset_structlog()
    structlog.contextvars.clear_contextvars()
    assert bound_logger.TraderLogger.failures == failures, "a line was lost because the chain failed"


@pytest.fixture
def chain():
    """Set up the chain with a recorder as the relay; returns (recorder, console)."""

    def begin(**options):
        recorder, console = Recorder(), io.StringIO()
        logger.setup_structlog(**{"relay": recorder, "stream": console, "form": "json", **options})
        return recorder, console

    return begin


@pytest.fixture
def python():
    """Start a Python process in the repository; keyword arguments become environment variables."""
    started = []

    def start(*arguments, **environment):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LOGRELAY_", "ROBO_"))}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**clean, "LOGRELAY_DISABLED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
