"""The processes of one benchmark run: starting, asking, measuring and ending them.

Owns: every process the benchmark starts, by pid, and the end of each. It must not know what the processes do.
`peers` starts servers with it, `fanout` starts viewers and traders. Linux only: it reads /proc. Read `lines` next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import orjson

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal a process gets when its parent dies, so that killing the benchmark leaves no servers."""
TERM_SECONDS = 5.0
"""How long a process may take from SIGTERM to its end before it gets SIGKILL; closing 1,000 viewers takes about 1."""
STDERR_TAIL_BYTES = 600
"""How much of a process's last words is looked at: more than a line that says something."""

COUNTER_SECONDS = 0.3
"""perf has begun to count after so long."""

_libc = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """A measurement could not be made. The text is what the report says about it."""


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Fleet:
    """Every process of the run. `stop_all` ends and reaps what is left, newest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where the processes' stderr goes, one file each."""
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._count = 0

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        pipes: bool = False,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> tuple[subprocess.Popen[bytes], Path]:
        """Start a process in a session of its own (Ctrl-C reaches the benchmark only, which ends it in order).

        Returns the process and the file its stderr goes to. Raises BenchError if it cannot be started.
        """
        self._count += 1
        errors = self.folder / f"{self._count:03d}-{name}.stderr"
        try:
            with errors.open("wb") as err:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if pipes else subprocess.DEVNULL,
                    stderr=err,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
        except OSError as error:
            raise BenchError(f"{name} could not be started: {error}") from error
        self._running[process.pid] = process
        return process, errors

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End one process: SIGTERM, a wait, SIGKILL, reaped in any case."""
        self._running.pop(process.pid, None)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(TERM_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that outlived it; the session is its own (nginx)

    def stop_all(self) -> None:
        """End everything that still runs."""
        for process in reversed(list(self._running.values())):
            self.stop(process)


class Child:
    """A process that takes one JSON object per line on stdin and answers each with one on stdout, in order."""

    def __init__(self, fleet: Fleet, name: str, command: Sequence[str], **options: Any) -> None:
        self.name = name
        self._fleet = fleet
        self._process, self._errors = fleet.start(name, command, pipes=True, **options)
        self._pending: deque[str] = deque()
        self._buffer = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, do: str, **arguments: Any) -> None:
        """Send a command without waiting for the answer; `answer` fetches it."""
        assert self._process.stdin is not None
        self._pending.append(do)
        try:
            self._process.stdin.write(orjson.dumps({"do": do, **arguments}) + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise BenchError(f"{self.name} is gone: {last_words(self._errors) or error}") from error

    def answer(self, timeout: float) -> dict[str, Any]:
        """Return the answer to the oldest command not answered yet. Raises BenchError if it failed or is late."""
        do = self._pending.popleft()
        line = self._read_line(do, timeout)
        reply: dict[str, Any] = orjson.loads(line)
        if "error" in reply:
            raise BenchError(f"{self.name}: {do}: {reply['error']}")
        return reply

    def answered(self, timeout: float) -> bool:
        """Tell whether the next answer begins to arrive within `timeout` seconds."""
        assert self._process.stdout is not None
        return bool(self._buffer or select.select([self._process.stdout.fileno()], [], [], timeout)[0])

    def ask(self, do: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.tell(do, **arguments)
        return self.answer(timeout)

    def stop(self) -> None:
        self._fleet.stop(self._process)

    def _read_line(self, do: str, timeout: float) -> bytes:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        end = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise BenchError(f"{self.name} did not answer {do} within {timeout:.0f} s")
            data = os.read(fd, 1 << 20)
            if not data:
                raise BenchError(f"{self.name} ended during {do}: {last_words(self._errors)}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line


def serve_commands(commands: Mapping[str, Any]) -> None:
    """Be the other end of a Child: call `commands[do](**arguments)` per line of stdin until it ends."""
    source: IO[bytes] = open(0, "rb", buffering=0, closefd=False)
    buffer = b""
    while data := source.read(1 << 20):
        buffer += data
        while b"\n" in buffer:
            line, buffer = buffer.split(b"\n", 1)
            request = orjson.loads(line)
            try:
                reply = commands[request.pop("do")](**request) or {}
            except Exception as error:  # the benchmark reports it and goes on with the next measurement
                reply = {"error": f"{type(error).__name__}: {error}"}
            data_out = memoryview(orjson.dumps(reply) + b"\n")
            while data_out:
                data_out = data_out[os.write(1, data_out) :]


def last_words(path: Path) -> str:
    """Return the last line of a stderr file: of a traceback the one that says what it was."""
    with contextlib.suppress(OSError):
        lines = path.read_bytes()[-STDERR_TAIL_BYTES:].decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return user + system time of the processes, all threads, also ended ones, in seconds.

    The kernel's per-process CPU clock (clock_getcpuclockid(3): the pid's complement shifted by three, 2 for the
    scheduler's count) has nanoseconds where /proc/PID/stat has hundredths: 75 lines a cell would vanish in those.
    """
    try:
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)
    except OSError as error:
        raise BenchError("the server is gone") from error


def rss_bytes(pids: Sequence[int]) -> int:
    """Return the resident memory of the processes in bytes (VmRSS, summed)."""
    return _status_bytes(pids, "VmRSS")


def _status_bytes(pids: Sequence[int], name: str) -> int:
    total = 0
    for pid in pids:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError as error:
            raise BenchError("the server is gone") from error
        total += next((int(row.split()[1]) for row in status.splitlines() if row.startswith(name)), 0) * 1024
    return total


def peak_bytes(pids: Sequence[int]) -> int:
    """Return the most resident memory that the processes have had so far, in bytes (VmHWM, summed)."""
    return _status_bytes(pids, "VmHWM")


def sleeps(pids: Sequence[int]) -> int:
    """Return how often the threads of the processes have gone to sleep: each sleep ends with a change of context."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            with contextlib.suppress(OSError):  # a thread that has ended
                rows = status.read_text().splitlines()
                total += next((int(row.split()[1]) for row in rows if row.startswith("voluntary_ctxt_switches")), 0)
    return total


class CallCounter:
    """Counts the system calls of processes with perf, which hardly slows them down."""

    def __init__(self, fleet: Fleet, pids: Sequence[int]) -> None:
        """Begin to count. Where perf is missing or may not, `stop` returns None."""
        self._fleet, self._process, self._out = fleet, None, fleet.folder / "calls"
        self._out.unlink(missing_ok=True)
        command = ["perf", "stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o", str(self._out)]
        if shutil.which("perf"):
            self._process, _ = fleet.start("perf", [*command, "-p", ",".join(map(str, pids))])
            time.sleep(COUNTER_SECONDS)

    def stop(self) -> int | None:
        """End, and return the number."""
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_SECONDS)
        self._fleet.stop(self._process)
        with contextlib.suppress(OSError, ValueError):
            rows = [row for row in self._out.read_text().splitlines() if "sys_enter" in row]
            return int(rows[0].split(",")[0]) if rows else None
        return None


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children (nginx: the master's workers)."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
