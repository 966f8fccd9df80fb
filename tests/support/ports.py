"""Ports for what the tests start, given to one process of tests only.

Owns: `free_port`, and the blocks of ports that this process holds. It must not know who listens there. Read `waiting`
next.
"""

from __future__ import annotations

import atexit
import os
import socket

PORTS = range(18_000, 32_000)
"""Below the range the kernel takes for outgoing connections (32768 and up): a client that tries again and again while
its server is away could otherwise get the very port as its own end, and be connected to itself."""

BLOCK = 100
"""Ports that are held at once: most test processes need fewer, and 140 blocks are enough for many of them."""

_held: list[socket.socket] = []
"""A name for each block, bound by this process until it ends, however it ends."""
_given: list[range] = []
_used = 0


def free_port() -> int:
    """Return a port nobody listens on, and which no other process of tests gets while this one lives.

    A server that a test has killed thus finds its port free when it is started again.
    """
    global _used
    while True:
        blocks, place = divmod(_used, BLOCK)
        if blocks == len(_given):
            _given.append(_hold_block())
        _used += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _given[blocks][place]))
            except OSError:  # a program that is none of a test's
                continue
        return _given[blocks][place]


def _hold_block() -> range:
    """Take the next block that no other process holds; Linux keeps such names without files, for as long as we live."""
    many = len(PORTS) // BLOCK
    for offset in range(many):
        block = (os.getpid() + offset) % many
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0logrelay-tests-ports-{block}")
        except OSError:
            name.close()
            continue
        _held.append(name)
        atexit.register(name.close)
        return PORTS[block * BLOCK : (block + 1) * BLOCK]
    raise AssertionError(f"all {many} blocks of ports are held, by this process or by other runs of the tests")
