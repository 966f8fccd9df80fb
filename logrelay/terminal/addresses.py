"""At which addresses other machines reach this one.

Owns: the list of the interfaces' addresses, the one that leads out first, and whether something listens at one. It must
not know who asks. Read `terminal/selection` next.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from contextlib import suppress
from pathlib import Path

from logrelay.config.settings import is_loopback

SIOCGIFCONF = 0x8912
"""Linux: the IPv4 addresses of all interfaces (netdevice(7))."""

IFREQ_BYTES = 40
"""struct ifreq on 64-bit systems: 16 bytes of name, then a sockaddr_in, in 24."""

MOST_INTERFACES = 256

IPV6_ADDRESSES = "/proc/net/if_inet6"

ELSEWHERE = ("192.0.2.1", 9)
"""An address for documentation (RFC 5737): asking which way leads there sends nothing."""

CONNECT_S = 0.5
"""To an address of this very machine, which answers at once or not at all."""


def own_addresses() -> list[str]:
    """Return the addresses of this machine that others may reach, the one of the way out first; at times none."""
    found = [*filter(None, [_way_out()]), *_ipv4(), *_ipv6()]
    return list(dict.fromkeys(address for address in found if not _is_local(address)))


def answers(host: str, port: int) -> bool:
    """Tell whether something accepts connections there."""
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError:
        return False
    return True


def _is_local(address: str) -> bool:
    return is_loopback(address) or ipaddress.ip_address(address).is_link_local


def _way_out() -> str | None:
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(ELSEWHERE)
        return str(probe.getsockname()[0])
    return None


def _ipv4() -> list[str]:
    """Return the IPv4 addresses of all interfaces, where the kernel tells them in Linux's form."""
    room = array.array("B", bytes(IFREQ_BYTES * MOST_INTERFACES))
    address, _ = room.buffer_info()
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        done = fcntl.ioctl(probe.fileno(), SIOCGIFCONF, struct.pack("iL", len(room), address))
        size = struct.unpack("iL", done)[0]
        data = room.tobytes()[:size]
        return [socket.inet_ntoa(data[at + 20 : at + 24]) for at in range(0, size, IFREQ_BYTES)]
    return []


def _ipv6() -> list[str]:
    """Return the IPv6 addresses of all interfaces, where /proc tells them."""
    with suppress(OSError):
        rows = Path(IPV6_ADDRESSES).read_text("ascii").splitlines()
        return [str(ipaddress.IPv6Address(bytes.fromhex(row.split()[0]))) for row in rows]
    return []
