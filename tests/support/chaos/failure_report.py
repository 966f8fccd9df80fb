"""What the processes of a failed test are doing: the relay's own account, the kernel's, and every Python stack.

Owns: `describe`, for a person who reads a failure and cannot repeat it. It ends the processes it is given: their stacks
are what `faulthandler` writes at SIGABRT. Nothing here raises. Read `feeder` next.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.chaos.real_trader import RealTrader
    from tests.support.chaos.relay import Relay

FAULTHANDLER = {"PYTHONFAULTHANDLER": "1"}
"""The variable that has a process write its stacks at SIGABRT; it costs nothing before."""

METRICS = re.compile(
    r"_(lines_total|commits_total|journal_\w+|pending_lines|traders|traders_\w+|viewers|viewers_behind|"
    r"trader_(connections\w*|refused\w*|duplicate\w*|rejected\w*|lost_lines\w*)) "
)
"""Of /metrics, what says whether lines are read, committed and acked."""

DUMP_S = 5.0
"""How long a process may take to write its stacks."""


def describe(relays: list[Relay], traders: list[RealTrader]) -> str:
    """Return what is to be known of each process that still runs, and end it."""
    parts = []
    for number, relay in enumerate(relays):
        process = relay.process
        if process is None or process.poll() is not None:
            parts.append(f"relay {number}: exit code {process.returncode if process else None}\n{relay.tell()}")
            continue
        parts.append(f"relay {number}, process {process.pid}")
        parts.append(_try(lambda relay=relay: f"healthz: {relay.get('/healthz')[1].decode()}"))
        parts.append(_try(lambda relay=relay: _metrics(relay)))
        parts.append(_try(lambda relay=relay: _files(Path(relay.journal).parent)))
        parts.append(_kernel(process.pid))
        parts.append(_try(lambda relay=relay: _sockets(str(relay.socket))))
    for trader in traders:
        parts.append(f"trader {trader.name}, process {trader.process.pid}, exit code {trader.process.poll()}")
        parts.append(_kernel(trader.process.pid))
    for process in [r.process for r in relays if r.process is not None] + [t.process for t in traders]:
        if process.poll() is None:
            process.send_signal(signal.SIGABRT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DUMP_S)
    for relay in relays:
        if relay.process is not None:
            relay.listened(DUMP_S)
            parts.append(relay.tell(200))
    return "\n".join(parts)


def _try(look: Callable[[], str]) -> str:
    try:
        return look()
    except Exception as error:
        return f"not to be had: {error!r}"


def _metrics(relay: Relay) -> str:
    text = relay.get("/metrics")[1].decode()
    return "\n".join(f"  {line}" for line in text.splitlines() if line[:1] != "#" and METRICS.search(line))


def _files(folder: Path) -> str:
    room = os.statvfs(folder)
    sizes = [f"{path.name} {path.stat().st_size}" for path in sorted(folder.iterdir()) if path.is_file()]
    return f"{folder}: {room.f_bavail * room.f_frsize} bytes free; {', '.join(sizes)}"


def _kernel(pid: int) -> str:
    """Say of each thread in which state it is, and where in the kernel it waits."""
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            name, wchan = (task / "comm").read_text().strip(), (task / "wchan").read_text().strip()
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            lines.append(f"  thread {task.name} {name}: {state} in {wchan}")
    return "\n".join(lines)


def _sockets(path: str) -> str:
    """Say of each connection of a Unix socket, and of its other end, what waits to be read, and what each end is."""
    told = subprocess.run(["ss", "-xpnm"], capture_output=True, text=True, check=False, timeout=DUMP_S).stdout
    lines = told.splitlines()
    ends = [line for line in lines if path in line]
    peers = {line.split()[-1] if "users:" not in line else line.split("users:")[0].split()[-1] for line in ends}
    return "\n".join([*ends, *(line for line in lines if line not in ends and peers & set(line.split()[4:6]))])
