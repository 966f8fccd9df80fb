"""How much of what was sent the other end's TCP has acknowledged.

Owns: `acknowledged_bytes`. It must not know what the bytes are. Read `viewers/receipts` next: it knows what follows.
"""

from __future__ import annotations

import socket
import struct
import sys

_BYTES_ACKED = struct.Struct("120xQ")
"""`tcpi_bytes_acked` in Linux's `struct tcp_info` (RFC 4898, tcpEStatsAppHCThruOctetsAcked): absolute, so that what the
transport or the kernel still holds, or has thrown away with a broken connection, makes no difference."""


def acknowledged_bytes(sock: socket.socket | None) -> int | None:
    """Return how many bytes of a TCP connection's stream have arrived, also when it has just been lost; None: unknown.

    A FIN of ours counts as one byte more.
    """
    if sock is None or sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    except OSError:
        return None
    return None if len(info) < _BYTES_ACKED.size else int(_BYTES_ACKED.unpack(info)[0])
