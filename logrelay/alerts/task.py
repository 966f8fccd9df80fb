"""What a worker is told to do, how it gets that, and how its processes are started.

Owns: `Task`, its way over a socket, and the command line of a process of this package. It must not know what a task
leads to. Read `alerts/worker` next.

URLs of services are secrets, and arguments are visible in `ps`, environments to other processes of the same user. So a
task goes over the nameless pair of sockets between the relay and the process that it has started.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import logrelay
from logrelay.config.alert_rules import AlertRule
from logrelay.errors import ConfigError
from logrelay.extras import install_command

STORE_SUFFIX = "-alerts"
"""Behind the name of the journal's file: the file of the alerts."""

LENGTH = struct.Struct("!I")
"""Before the task, how many bytes it has."""

_BEGIN = "import sys; sys.path.append(sys.argv[1]); from logrelay.alerts.{} import main; main()"
"""With the folder of the package at the end of the path: where it is installed anyway nothing changes."""

PRIVATE_PREFIXES = ("LOGRELAY_", "NOTIFY_", "WATCHDOG_", "LISTEN_")
"""Variables that are for the relay alone: its token, and what the service manager has given it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the relay tells its worker to do."""

    rules: tuple[AlertRule, ...]
    page: str
    """URL of the relay's page, without a slash at the end."""
    store: str | None
    """Path of the store; None: there is no place for it, so it is in memory, and ends with the worker."""
    heartbeat: str | None = None
    heartbeat_s: float = 60.0
    expected: tuple[str, ...] = ()

    def as_bytes(self) -> bytes:
        """Return what is sent."""
        body = pickle.dumps(self)
        return LENGTH.pack(len(body)) + body


def missing_apprise() -> str:
    """Return what to say where Apprise is not installed."""
    return f"sending alerts needs Apprise: {install_command('alerts')}"


def require_apprise() -> None:
    """Raise ConfigError where Apprise is not installed. It is not imported."""
    if find_spec("apprise") is None:
        raise ConfigError(missing_apprise())


def command(name: str) -> list[str]:
    """Return the command line of a process, `worker` or `delivery`; nothing is loaded from the current directory."""
    return [
        sys.executable,
        "-P",
        "-c",
        _BEGIN.format(name),
        str(Path(logrelay.__file__).parents[1]),
        f"logrelay-{name}",
    ]


def environment() -> dict[str, str]:
    """Return the environment of the worker."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_PREFIXES)}


def receive_task(channel: socket.socket) -> Task | None:
    """Return what to do; None: the relay has ended before it said so. Blocks."""
    length = _exactly(channel, LENGTH.size)
    body = None if length is None else _exactly(channel, LENGTH.unpack(length)[0])
    # At the other end is the process that has started this one, and nobody else.
    task = None if body is None else pickle.loads(body)  # noqa: S301
    return task if isinstance(task, Task) else None


def _exactly(channel: socket.socket, count: int) -> bytes | None:
    data = b""
    while len(data) < count:
        part = channel.recv(count - len(data))
        if not part:
            return None
        data += part
    return data
