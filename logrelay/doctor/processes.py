"""Which processes listen where, as far as the kernel tells.

Owns: the look into /proc/net/tcp and the descriptors of processes. It must not know what is to be there. Read
`doctor/units` next.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

TABLES = (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6))
LISTEN = "0A"
"""The state of a listening socket there (proc_net(5); the kernel's net/tcp_states.h)."""

MOST_SHOWN = 5


def listeners(port: int, tables: tuple[tuple[str, socket.AddressFamily], ...] = TABLES) -> list[str]:
    """Return who listens on a TCP port, in words; empty where nobody does or none can be seen. Never raises."""
    inodes = {inode: address for inode, address, at in _listening(tables) if at == port}
    found: dict[str, None] = {}
    for pid, inode in _sockets(set(inodes)):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
            found[f"process {pid} ({command}) on {inodes[inode]}"] = None
    return list(found)[:MOST_SHOWN]


def _listening(tables: tuple[tuple[str, socket.AddressFamily], ...]) -> Iterator[tuple[int, str, int]]:
    for table, family in tables:
        with suppress(OSError):
            for row in Path(table).read_text("ascii").splitlines()[1:]:
                fields = row.split()
                address, _, port = fields[1].rpartition(":")
                if fields[3] == LISTEN:
                    yield int(fields[9]), _text(address, family), int(port, 16)


def _text(address: str, family: socket.AddressFamily) -> str:
    """Write an address of the table, which has it in words of four bytes in the machine's own order."""
    words = struct.pack(f"={len(address) // 8}I", *(int(address[at : at + 8], 16) for at in range(0, len(address), 8)))
    return socket.inet_ntop(family, words)


def _sockets(wanted: set[int]) -> Iterator[tuple[int, int]]:
    """Give process and inode of every descriptor of these sockets; of others' processes only root sees any."""
    if not wanted:
        return
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            for descriptor in (entry / "fd").iterdir():
                with suppress(OSError, ValueError):
                    target = str(descriptor.readlink())
                    if target.startswith("socket:[") and int(target[8:-1]) in wanted:
                        yield int(entry.name), int(target[8:-1])
