"""The servers under test: how each is found, started, fed, viewed and ended.

Owns: one class per server, and nothing about measuring. To add a server, add a class and put it into SERVERS.
`fanout` starts them through `processes.Fleet`. Read `fanout` next.

Every server listens on loopback only, with everything it writes in a folder of its own that the benchmark deletes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from processes import BenchError, Fleet, children_of, last_words

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
HOST = "127.0.0.1"
START_SECONDS = 20.0
"""The longest a server may take until it answers; Node on a busy machine takes about 1."""
LOOK_SECONDS = 0.001
"""How often a starting server is looked at; the error of a start-up time."""
INSTALL_SECONDS = 120.0
"""The longest npm may take to fetch one package."""
WS_VERSION = "8"
"""The major version of the npm package ws that is installed where none is cached."""
NCHAN_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/share/nginx/modules/ngx_nchan_module.so"),
)
"""Where Debian, Fedora and Arch put it."""


def free_port() -> int:
    """Return a TCP port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def accepts(where: int | str) -> bool:
    """Tell whether the TCP port, or the Unix socket at the path, accepts a connection."""
    family, address = (socket.AF_UNIX, where) if isinstance(where, str) else (socket.AF_INET, (HOST, where))
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def first_line(*command: str) -> str:
    """Return the first line a command prints, "" if it cannot be run."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        return (done.stdout or done.stderr).strip().split("\n")[0]
    return ""


class Server:
    """One server under test. Class attributes say how it is talked to; a started one has a port and an address."""

    name = ""
    """What --servers takes."""
    label = ""
    """What the tables call it."""
    fairness = ""
    """What it does more or less than logrelay; printed below the tables."""
    trader = ""
    """The kind of trader (feeders.KINDS) it is fed by."""
    dialect = "plain"
    """The dialect of its viewer stream (streams)."""
    path = "/"
    """The URL path of a viewer that wants all new lines and none of the past."""
    acks = False
    ids = False
    """Whether its ids rise by one from line to line."""

    def __init__(self) -> None:
        self.port = 0
        self.address = ""
        """Where the trader connects."""
        self.start_seconds = 0.0
        """From the start of the process until it was ready."""
        self._fleet: Fleet | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = Path()

    def missing(self) -> str:
        """Say why it cannot run here; "" when it can."""
        raise NotImplementedError

    def version(self) -> str:
        """Say what exactly is measured."""
        raise NotImplementedError

    def command(self, folder: Path, deflate: bool) -> list[str]:
        """Set port and address, write what configuration it needs, and return the command."""
        raise NotImplementedError

    def start(self, fleet: Fleet, folder: Path, *, deflate: bool = False) -> None:
        """Start it and return when it is ready. Raises BenchError saying what it said."""
        folder.mkdir(parents=True, exist_ok=True)  # a relay may find the journal of one before
        self._fleet = fleet
        command = self.command(folder, deflate)
        began = time.perf_counter()
        env = {key: value for key, value in os.environ.items() if not key.startswith("LOGRELAY_")}
        self._process, self._errors = fleet.start(self.name, command, cwd=CHECKOUT, env=env)
        end = began + START_SECONDS
        while not self.ready():
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended at once: {last_words(self._errors)}")
            if time.perf_counter() > end:
                raise BenchError(f"{self.name} was not ready in {START_SECONDS:.0f} s: {last_words(self._errors)}")
            time.sleep(LOOK_SECONDS)
        self.start_seconds = time.perf_counter() - began

    def ready(self) -> bool:
        """Tell whether it takes viewers and lines; here: whether both its port and its socket accept a connection."""
        return accepts(self.port) and (not self.address.startswith("/") or accepts(self.address))

    def pids(self) -> list[int]:
        """Return the processes whose CPU time and memory are the server's."""
        if self._process is None or self._process.poll() is not None:
            raise BenchError(f"{self.name} has ended: {last_words(self._errors)}")
        return [self._process.pid]

    def stop(self) -> None:
        """End it and wait for its end."""
        if self._fleet is not None and self._process is not None:
            self._fleet.stop(self._process)
        self._process = None


class LogRelay(Server):
    """The product as a user starts it."""

    name = "logrelay"
    label = "logrelay"
    fairness = "journals every line in SQLite and acks it before viewers get it; ids, replay, filters"
    trader = "wire"
    path = "/?tail=0"
    acks = True
    ids = True
    program: tuple[str, ...] = (sys.executable, "-m", "logrelay")
    """How it is called; --relay replaces it, to measure another version."""

    def missing(self) -> str:
        done = subprocess.run(
            [*self.program, "serve", "--help"], capture_output=True, text=True, timeout=30, check=False, cwd=CHECKOUT
        )
        return "" if done.returncode == 0 else f"{shlex.join(self.program)} serve: {done.stderr.strip()[-160:]}"

    def version(self) -> str:
        commit = first_line("git", "-C", str(CHECKOUT), "describe", "--always", "--dirty")
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{importlib.metadata.version('logrelay')} {commit}".strip()
        return commit or "no git here"

    def command(self, folder: Path, deflate: bool) -> list[str]:
        self.address = str(folder / "ingest.sock")
        journal = str(folder / "journal.db")
        compression = ["--compression", "on"] if deflate else []  # its default on loopback is not to compress
        addresses = ["--host", HOST, "--port", "0", "--socket", self.address]
        return [*self.program, "serve", *addresses, "--journal", journal, *compression]

    def ready(self) -> bool:
        found = re.search(rb"ready.*?ws://[^\s:/]+:(\d+)", self._errors.read_bytes(), re.DOTALL)
        if found:
            self.port = int(found[1])
        return bool(found)


class Broadcast(Server):
    """websockets.broadcast, one call per line."""

    name = "websockets"
    label = "websockets.broadcast"
    fairness = "same input, same JSON to make (orjson), uvloop; no journal, no acks, no ids to resume from, no filters"
    trader = "unacked"

    def missing(self) -> str:
        gone = [name for name in ("websockets", "uvloop", "orjson", "msgpack") if not importlib.util.find_spec(name)]
        return f"Python packages not installed: {', '.join(gone)}" if gone else ""

    def version(self) -> str:
        return " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("websockets", "uvloop"))

    def command(self, folder: Path, deflate: bool) -> list[str]:
        self.port, self.address = free_port(), str(folder / "in.sock")
        mode = "deflate" if deflate else "plain"
        return [sys.executable, str(HERE / "websockets_peer.py"), self.address, str(self.port), mode]


class NodeWs(Server):
    """The npm package ws."""

    name = "ws"
    label = "ws on Node.js"
    fairness = "gets ready JSON: nothing to decode or encode; no journal, no acks, no replay, no filters"
    trader = "json"

    def missing(self) -> str:
        if not shutil.which("node"):
            return "Node.js (node) is not installed"
        if self._package().exists():
            return ""
        if not shutil.which("npm"):
            return "the npm package ws is not cached and npm is not installed"
        folder = self._folder()
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"ws@{WS_VERSION}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"npm did not fetch ws in {INSTALL_SECONDS:.0f} s"
        return "" if self._package().exists() else f"npm could not install ws: {done.stderr.strip()[-160:]}"

    def version(self) -> str:
        found = re.search(r'"version":\s*"([^"]+)"', self._package().read_text())
        return f"ws {found[1] if found else '?'}, Node {first_line('node', '--version')}"

    def command(self, folder: Path, deflate: bool) -> list[str]:
        self.port, self.address = free_port(), str(folder / "in.sock")
        mode = "deflate" if deflate else "plain"
        return ["node", str(HERE / "ws_peer.mjs"), str(self._folder()), self.address, str(self.port), mode]

    def _folder(self) -> Path:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logrelay-bench"

    def _package(self) -> Path:
        return self._folder() / "node_modules" / "ws" / "package.json"


class Nats(Server):
    """nats-server, core NATS (no JetStream) with its WebSocket listener."""

    name = "nats"
    label = "nats-server"
    fairness = "gets ready JSON: passes bytes on, in Go, on all cores; no journal here (that is JetStream), no acks"
    trader = "nats"
    dialect = "nats"

    def missing(self) -> str:
        return "" if self._program() else "nats-server is not installed"

    def version(self) -> str:
        return first_line(self._program(), "--version").replace("nats-server: v", "nats-server ")

    def command(self, folder: Path, deflate: bool) -> list[str]:
        self.port, client = free_port(), free_port()
        self.address = f"{HOST}:{client}"
        config = folder / "nats.conf"
        config.write_text(
            f'host: "{HOST}"\nport: {client}\n'
            f'websocket {{ host: "{HOST}", port: {self.port}, no_tls: true, compression: {str(deflate).lower()} }}\n'
        )
        return [self._program(), "--config", str(config)]

    def ready(self) -> bool:
        return super().ready() and accepts(int(self.address.rpartition(":")[2]))

    def _program(self) -> str:
        return shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") or ""


class Nchan(Server):
    """The Nchan module of nginx, one worker process."""

    name = "nchan"
    label = "Nchan on nginx"
    fairness = "gets ready JSON: passes bytes on, in C; keeps messages in memory (here 100,000), no journal, no filters"
    trader = "nchan"
    path = "/sub"

    def missing(self) -> str:
        if not self._program():
            return "nginx is not installed"
        return "" if self._module() else "nginx has no Nchan module (Debian: libnginx-mod-nchan)"

    def version(self) -> str:
        nginx = first_line(self._program(), "-v").replace("nginx version: nginx/", "nginx ")
        nchan = first_line("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan")
        return f"Nchan {nchan}, {nginx}" if nchan[:1].isdigit() else nginx

    def command(self, folder: Path, deflate: bool) -> list[str]:
        self.port = free_port()
        self.address = f"{self.port} /pub"
        temporary = " ".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = folder / "nginx.conf"
        config.write_text(
            f"load_module {self._module()};\n"
            + ("user root;\n" if os.geteuid() == 0 else "")
            + f"daemon off; pid {folder}/nginx.pid; error_log stderr error; worker_processes 1;\n"
            "worker_rlimit_nofile 20000; events { worker_connections 10000; }\n"
            f"http {{ access_log off; {temporary} nchan_shared_memory_size 1024M;\n"
            f" server {{ listen {HOST}:{self.port};\n"
            "  location /sub { nchan_subscriber websocket; nchan_channel_id logs;\n"
            "   nchan_subscriber_first_message newest; }\n"
            "  location /pub { nchan_publisher websocket; nchan_channel_id logs;\n"
            "   nchan_message_buffer_length 100000;\n"
            + ("   nchan_deflate_message_for_websocket on;\n" if deflate else "")
            + "  } } }\n"
        )
        return [self._program(), "-c", str(config), "-p", str(folder), "-e", "stderr"]

    def pids(self) -> list[int]:
        master = super().pids()
        return master + children_of(master[0])

    def _program(self) -> str:
        return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") or ""

    def _module(self) -> Path | None:
        return next((path for path in NCHAN_MODULES if path.exists()), None)


SERVERS: tuple[type[Server], ...] = (LogRelay, Broadcast, NodeWs, Nats, Nchan)
"""All of them, the one the others are compared with first."""


def machine() -> dict[str, str]:
    """Describe what the numbers were measured on."""
    cpu = ""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = found[1].strip() if found else ""
    packages = []
    for name in ("websockets", "uvloop", "orjson", "msgpack", "structlog"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages.append(f"{name} {importlib.metadata.version(name)}")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": f"{cpu or platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}",
        "libraries": ", ".join(packages),
        "load_before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }
