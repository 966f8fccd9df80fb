"""The relay under test, as a process of its own.

Owns: starting it, hearing what it says, signals, its resources. Read `failure_report` next.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.chaos.failure_report import FAULTHANDLER
from tests.support.ports import free_port
from tests.support.threads import join
from tests.support.waiting import DEADLINE_S, wait_for

ROOT = Path(__file__).resolve().parents[3]
"""The repository: `python -m logrelay` is to find this checkout's package, installed or not."""

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


TAKE_SOCKET = """
import os, sys
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.dup2(int(sys.argv[1]), 3)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the program in its arguments, which then has a socket the way systemd gives it."""


class Relay:
    """`python -m logrelay serve` on a port, a socket and a journal that stay the same from start to start."""

    def __init__(self, home: Path, *options: str, journal: Path | str | None = None) -> None:
        self.home = home
        self.port = free_port()
        self.socket = home / "ingest.sock"
        self.journal = journal if journal is not None else home / "journal.db"
        self.options = list(options)
        self.python = sys.executable
        self.held: socket.socket | None = None
        """A listening socket that outlives the relay, as one that systemd holds; None: the relay binds its own."""
        self.environ: dict[str, str] = {}
        """More variables for the process."""
        self.process: subprocess.Popen[bytes] | None = None
        self.said: list[str] = []
        """Every line on stderr, of all starts."""
        self.starts = 0

    # --- start and end -----------------------------------------------------------------------------------------

    def spawn(self) -> None:
        """Start the process and do not wait for anything."""
        assert self.process is None or self.process.poll() is not None, "the relay runs already"
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LOGRELAY_")}
        environ |= {"PYTHONPATH": str(ROOT)} | FAULTHANDLER | self.environ
        command = [self.python, "-m", "logrelay", "serve", "--port", str(self.port)]
        command += ["--socket", str(self.socket), "--journal", str(self.journal), *self.options]
        held = () if self.held is None else (self.held.fileno(),)
        if held:
            command = [self.python, "-c", TAKE_SOCKET, str(held[0]), *command]
        self.starts += 1
        self.process = subprocess.Popen(
            command,
            pass_fds=held,
            cwd=self.home,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._ready = threading.Event()
        self._listener = threading.Thread(target=self._listen, args=(self.process, self._ready), daemon=True)
        self._listener.start()

    def start(self) -> Relay:
        """Start the process and wait for its ready line."""
        self.spawn()
        wait_for(lambda: self._ready.is_set() or self.process.poll() is not None, self.tell)
        if not self._ready.is_set():
            join(self._listener)
            raise AssertionError(f"the relay ended with exit code {self.process.returncode}\n{self.tell()}")
        return self

    def _listen(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        with process.stderr:
            for raw in process.stderr:
                line = raw.decode(errors="replace").rstrip()
                self.said.append(line)
                if re.search(r"\bready\b.*wss?://", line):
                    ready.set()

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has cleaned up."""
        self.process.kill()
        self.process.wait(DEADLINE_S)
        join(self._listener)

    def terminate(self) -> None:
        """SIGTERM; do not wait."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = DEADLINE_S) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(timeout)
        join(self._listener)
        return code

    def stop(self) -> int:
        """SIGTERM and wait; return the exit code."""
        self.terminate()
        return self.wait()

    def pause(self) -> None:
        """SIGSTOP; return when it does not run any more."""
        self.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: self._stat()[0] == "T", "the relay to stand still")

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def restart(self) -> Relay:
        """Kill -9 and start again."""
        self.kill()
        return self.start()

    def end(self) -> None:
        """End it whatever its state; for the end of a test."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
            join(self._listener)

    @property
    def pid(self) -> int:
        """The process id of the running relay."""
        return self.process.pid

    # --- looking at it -------------------------------------------------------------------------------------------

    def tell(self, lines: int = 30) -> str:
        """Return what the relay said last, for messages of failed tests."""
        return "relay said:\n" + "\n".join(f"  {line}" for line in self.said[-lines:])

    def listened(self, timeout: float) -> None:
        """Wait until everything has been heard that a process that has ended said."""
        self._listener.join(timeout)

    def _stat(self) -> list[str]:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()

    def rss(self) -> int:
        """Return the resident memory in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def cpu_s(self) -> float:
        """Return the processor time used so far."""
        fields = self._stat()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def limit_file_size(self, size: int | None) -> None:
        """Let no write of the relay go beyond `size` bytes into a file (None: lift it): to SQLite, a full disk."""
        soft = resource.RLIM_INFINITY if size is None else size
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask for a page over plain HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def health(self) -> dict[str, object]:
        """Return what /healthz says."""
        return json.loads(self.get("/healthz")[1])

    def metric(self, name: str) -> float:
        """Return one number of /metrics, by the end of its name."""
        text = self.get("/metrics")[1].decode()
        for line in text.splitlines():
            key, _, value = line.rpartition(" ")
            if not key.startswith("#") and key.endswith(name):
                return float(value)
        raise AssertionError(f"no metric {name} in\n{text}")
