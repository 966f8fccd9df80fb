"""A trader of its own making: docs/protocol.md, section 1, and nothing of the real one's code.

Owns: `Trader`, which numbers lines, keeps those that are not acked, and sends them again behind a welcome; `Feeder`,
a trader in a process of its own under load; `Nursery`, which makes traders that are going to be killed. Read
`viewer` next.

Run as a program it is the other end of `Feeder` and `Nursery`:

    python -m tests.support.chaos.feeder load SOCKET NAME RUN-HEX SHARED RATE WINDOW
    python -m tests.support.chaos.feeder nursery SOCKET     then on stdin, line by line: NAME RUN-HEX SHARED READS-ACKS
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections import deque
from pathlib import Path

import msgpack

from tests.support.chaos.failure_report import FAULTHANDLER
from tests.support.waiting import DEADLINE_S

HELLO, LOG, LOST, BYE = 0, 1, 2, 3
WELCOME, ACK, REJECT, REFUSED = 0, 1, 2, 3

MODULE = "tests.support.chaos.feeder"
"""The name under which a process of its own runs this file: run, a module's own `__name__` is another."""

CONNECT_PAUSE_S = 0.01
"""Between two attempts to reach a relay that is away."""

ROOT = Path(__file__).resolve().parents[3]


def environment() -> dict[str, str]:
    """Return the environment in which a process of its own finds `tests` and both packages of this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT)} | FAULTHANDLER


def pack(frame: list[object]) -> bytes:
    """Encode a frame."""
    return msgpack.packb(frame)


class Trader:
    """One run. Sends never block longer than they must; what is not acked is kept and sent again."""

    def __init__(self, path: Path | str, name: str = "trader", run: bytes | None = None) -> None:
        self.path = str(path)
        self.name = name
        self.run = run if run is not None else os.urandom(16)
        self.started_ns = time.time_ns()
        self.seq = 0
        self.acked = 0
        self.sent = 0
        """The highest seq of which a send has returned with the whole frame taken."""
        self.unacked: deque[tuple[int, bytes]] = deque()
        self.rejected: list[tuple[int, str]] = []
        self.refused: str | None = None
        self.welcomes: list[int] = []
        self.sock: socket.socket | None = None
        self._queue: deque[tuple[int, bytes]] = deque()
        self._rest = b""
        self._rest_seq = 0
        self._unpacker = msgpack.Unpacker()

    # --- connection ------------------------------------------------------------------------------------------

    def hello(self) -> bytes:
        """Return this run's hello frame."""
        fields = {"protocol": 1, "run": self.run, "app": self.name, "host": "chaos", "pid": os.getpid()}
        return pack([HELLO, fields | {"started_ns": self.started_ns}])

    def try_connect(self, timeout: float = DEADLINE_S) -> bool:
        """Connect, say hello, take the welcome, queue what the relay does not have. False: not this time.

        A relay that stands still is waited for: one more connection would be one more to be told of.
        """
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        self._unpacker = msgpack.Unpacker()
        self.sock = None
        try:
            sock.connect(self.path)
            sock.sendall(self.hello())
            welcomed = False
            while not welcomed:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionError("the relay closed during the handshake")
                self._unpacker.feed(data)
                for frame in self._unpacker:
                    welcomed = welcomed or frame[0] == WELCOME
                    self._answer(frame)
        except OSError:
            sock.close()
            return False
        sock.setblocking(False)
        self.sock = sock
        self._rest = b""
        self._queue = deque(self.unacked)
        return True

    def connect(self, deadline_s: float = DEADLINE_S) -> Trader:
        """Connect, trying again until the relay is there."""
        end = time.monotonic() + deadline_s
        while not self.try_connect():
            assert self.refused is None, f"the relay refused {self.name}: {self.refused}"
            assert time.monotonic() < end, f"{self.name} could not connect within {deadline_s:g} s"
            time.sleep(CONNECT_PAUSE_S)
        self.flush()
        return self

    def close(self) -> None:
        """Close the connection without bye: to the relay this is a crash, or a connection lost."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    # --- lines -------------------------------------------------------------------------------------------------

    def add(self, message: object = "line", level: str = "info", time_ns: int | None = None, **event: object) -> bytes:
        """Give a line its seq and keep it; it goes out with the next `flush`. Returns its frame."""
        self.seq += 1
        shape = {"event": message, "logger": f"load.{self.name}", "feeder": self.name, "n": self.seq} | event
        frame = pack([LOG, self.seq, time.time_ns() if time_ns is None else time_ns, level, shape])
        return self._keep(self.seq, frame)

    def add_lost(self, count: int, cause: str) -> bytes:
        """Leave out `count` lines and say so."""
        first, self.seq = self.seq + 1, self.seq + count
        return self._keep(self.seq, pack([LOST, first, self.seq, count, cause]))

    def _keep(self, seq: int, frame: bytes) -> bytes:
        self.unacked.append((seq, frame))
        if self.sock is not None:
            self._queue.append((seq, frame))
        return frame

    def log(self, message: object = "line", level: str = "info", time_ns: int | None = None, **event: object) -> int:
        """Add a line and send what the socket takes. Returns its seq."""
        self.add(message, level, time_ns, **event)
        self.flush()
        return self.seq

    def burst(self, count: int, **event: object) -> int:
        """Log so many lines and, while connected, wait for the socket to take them; returns the last seq."""
        for _ in range(count):
            self.add(**event)
        end = time.monotonic() + DEADLINE_S
        while not self.flush() and self.sock is not None:
            assert time.monotonic() < end, f"{self.name} could not send within {DEADLINE_S:g} s"
            select.select([], [self.sock], [], 0.1)
        return self.seq

    def flush(self) -> bool:
        """Send until the socket is full or nothing is left; returns whether nothing is left. Never blocks."""
        try:
            while self.sock is not None and (self._rest or self._queue):
                if not self._rest:
                    self._rest_seq, self._rest = self._queue.popleft()
                taken = self.sock.send(self._rest, socket.MSG_NOSIGNAL)
                self._rest = self._rest[taken:]
                if not self._rest:
                    self.sent = max(self.sent, self._rest_seq)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        return self.sock is not None

    def flush_all(self, deadline_s: float = DEADLINE_S) -> None:
        """Send everything, waiting for room but reading no answers."""
        end = time.monotonic() + deadline_s
        while not self.flush():
            assert self.sock is not None, f"{self.name} lost its connection"
            assert time.monotonic() < end, f"{self.name} could not send within {deadline_s:g} s"
            select.select([], [self.sock], [], 0.1)

    def send_raw(self, data: bytes) -> None:
        """Send bytes that are not kept, as they are, behind everything else."""
        self.flush_all()
        while data:
            with contextlib.suppress(BlockingIOError):
                data = data[self.sock.send(data, socket.MSG_NOSIGNAL) :]
            select.select([], [self.sock], [], 0.1)

    def unread(self) -> int:
        """Return how much of what was sent the relay has not read: kernel memory charged to this end, in bytes."""
        answer = array.array("i", [0])
        fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, answer)
        return answer[0]

    # --- answers ---------------------------------------------------------------------------------------------

    def _answer(self, frame: list[object]) -> None:
        if frame[0] == WELCOME:
            self.welcomes.append(frame[1]["acked"])
            self._acked(frame[1]["acked"])
        elif frame[0] == ACK:
            self._acked(frame[1])
        elif frame[0] == REJECT:
            self.rejected.append((frame[1], frame[2]))
            self.unacked = deque(kept for kept in self.unacked if kept[0] != frame[1])
        elif frame[0] == REFUSED:
            self.refused = frame[1]

    def _acked(self, seq: int) -> None:
        assert seq <= self.seq, f"the relay acked {seq}, but the last line was {self.seq}"
        self.acked = max(self.acked, seq)
        while self.unacked and self.unacked[0][0] <= self.acked:
            self.unacked.popleft()

    def step(self, timeout: float = 0.0) -> bool:
        """Send and read what is possible, waiting at most `timeout` for either. False: not connected."""
        sock = self.sock
        if sock is None:
            return False
        writing = [sock] if not self.flush() else []
        if self.sock is None:
            return False
        readable, _, _ = select.select([sock], writing, [], timeout)
        if readable:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                self.close()
                return False
            self._unpacker.feed(data)
            for frame in self._unpacker:
                self._answer(frame)
        return True

    def wait_acked(self, seq: int | None = None, deadline_s: float = DEADLINE_S) -> None:
        """Wait until everything up to `seq` (default: everything) is acked, reconnecting as often as needed."""
        wanted = self.seq if seq is None else seq
        end = time.monotonic() + deadline_s
        while self.acked < wanted:
            assert time.monotonic() < end, f"{self.name}: acked {self.acked} of {wanted} after {deadline_s:g} s"
            if not self.step(0.05) and not self.try_connect():
                time.sleep(CONNECT_PAUSE_S)

    def wait_closed(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the relay has closed the connection, reading everything before that."""
        end = time.monotonic() + deadline_s
        while self.step(0.05):
            assert time.monotonic() < end, f"{self.name}: still connected after {deadline_s:g} s"

    def bye(self) -> None:
        """Say goodbye and close."""
        self.send_raw(pack([BYE, self.seq]))
        self.close()


# --- memory that outlives a killed process --------------------------------------------------------------------------

SLOTS = struct.Struct("<QQQQ")


class Shared:
    """Four counters in a file that two processes map; what was written is there even after SIGKILL."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(SLOTS.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SLOTS.size)

    def put(self, index: int, value: int) -> None:
        """Set a counter."""
        struct.pack_into("<Q", self._map, 8 * index, value)

    def take(self, index: int) -> int:
        """Read a counter."""
        return struct.unpack_from("<Q", self._map, 8 * index)[0]

    def close(self) -> None:
        """Unmap."""
        self._map.close()


SENT, ACKED, PRODUCED, STOP = range(4)


class Feeder:
    """A trader in a process of its own that logs at a rate until it is told to finish."""

    def __init__(self, home: Path, path: Path, name: str, *, rate: int = 0, window: int = 20_000) -> None:
        self.name = name
        self.run = os.urandom(16)
        self._shared = Shared(home / f"{name}.shared")
        arguments = [str(path), name, self.run.hex(), str(self._shared.path), str(rate), str(window)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", MODULE, "load", *arguments], env=environment(), stdin=subprocess.DEVNULL
        )

    @property
    def acked(self) -> int:
        """Lines the relay has acked."""
        return self._shared.take(ACKED)

    @property
    def produced(self) -> int:
        """Lines logged."""
        return self._shared.take(PRODUCED)

    def finish(self, at: int | None = None) -> None:
        """Tell it to log no more (or not beyond line `at`), have everything acked, say goodbye and end."""
        self._shared.put(STOP, 1 if at is None else at)

    def wait(self, timeout: float = DEADLINE_S) -> int:
        """Wait for its clean end; returns the number of lines it logged."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} logged {self.produced} lines, {self.acked} acked, and did not end in {timeout} s"
            ) from None
        assert code == 0, f"{self.name} ended with {code}"
        assert self.acked == self.produced
        return self.produced

    def end(self) -> None:
        """End the process whatever its state, and let the memory go; for the end of a test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        self._shared.close()


class Nursery:
    """Forks traders that log as fast as they can until somebody kills them."""

    def __init__(self, path: Path, *, module: str = MODULE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, "nursery", str(path)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pids: list[int] = []

    def spawn(self, name: str, run: bytes, shared: Shared, *, reads_acks: bool) -> int:
        """Start a trader; return its pid."""
        self.process.stdin.write(f"{name} {run.hex()} {shared.path} {int(reads_acks)}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        self.pids.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        """SIGKILL one of its traders, and wait until it is gone; the nursery reaps it."""
        assert pid in self.pids
        os.kill(pid, signal.SIGKILL)
        assert self.process.stdout.readline().split() == ["gone", str(pid)]
        self.pids.remove(pid)

    def end(self) -> None:
        """End the traders that are left, and the nursery."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.stdin.close()
        try:
            self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(DEADLINE_S)
        self.process.stdout.close()


# --- the other end ------------------------------------------------------------------------------------------------


def run_load(path: str, name: str, run: str, shared_path: str, rate: str, window: str) -> None:
    """Log until told to stop; then wait for the last ack and say goodbye."""
    trader = Trader(path, name, bytes.fromhex(run))
    shared = Shared(Path(shared_path))
    per_second, most = int(rate), int(window)
    began = time.monotonic()
    while True:
        stop = shared.take(STOP)
        stopping = stop == 1 or (stop > 1 and trader.seq >= stop)
        if not stopping:
            due = int((time.monotonic() - began) * per_second) + 1 if per_second else trader.seq + 200
            due = min(due, trader.seq + 200, stop if stop > 1 else 1 << 62)
            while trader.seq < due and len(trader.unacked) < most:
                level = ("info", "debug", "info", "warning", "info", "error")[trader.seq % 6]
                trader.add(f"line {trader.seq + 1}", level, symbol="AAPL" if trader.seq % 3 else "MSFT")
            shared.put(PRODUCED, trader.seq)
        if trader.sock is None and not trader.try_connect():
            time.sleep(CONNECT_PAUSE_S)
            continue
        trader.step(0.002 if per_second or len(trader.unacked) >= most or stopping else 0.0)
        shared.put(SENT, trader.sent)
        shared.put(ACKED, trader.acked)
        if stopping and not trader.unacked:
            trader.bye()
            return


def run_nursery(path: str) -> None:
    """Fork a trader for each line on stdin; say its pid, and later that it is gone."""
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        name, run, shared_path, reads_acks = line.split()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            try:
                run_doomed(path, name, run, shared_path, reads_acks == "1")
            finally:
                os._exit(1)
        os.write(1, f"{pid}\n".encode())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def _reap(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            os.write(1, f"gone {pid}\n".encode())


def run_doomed(path: str, name: str, run: str, shared_path: str, reads_acks: bool) -> None:
    """Log as fast as possible, noting each line whose send has returned, until killed."""
    trader = Trader(path, name, bytes.fromhex(run))
    shared = Shared(Path(shared_path))
    trader.connect()
    while True:
        trader.add(f"last words {trader.seq + 1}", padding="x" * (trader.seq * 7 % 200))
        trader.flush_all()
        shared.put(SENT, trader.sent)
        if reads_acks:
            trader.step(0.0)
        else:
            trader.unacked.clear()


if __name__ == "__main__":
    {"load": run_load, "nursery": run_nursery}[sys.argv[1]](*sys.argv[2:])
