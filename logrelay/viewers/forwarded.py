"""Whose request it is when a proxy passes it on: the headers that say so, and when they are believed.

Owns: `client_address` and `forwarding_header`. It must not know what is decided by the address, nor sockets. No I/O.
Read `viewers/access_policy` next.

Anybody can write these headers. So an address in them counts only when the one who wrote it is trusted, hop by hop from
our end: the first address that is not a trusted proxy is the client, whatever stands to the left of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAMES = ("forwarded", "via", "x-real-ip")
_PREFIX = "x-forwarded-"

MAX_HOPS = 32
"""Proxies that a request may have come through. Each is looked at, and a client can claim two thousand."""

_PIECE = re.compile(r'"(?:[^"\\]|\\.)*+"|[^",;]+|[,;]')
"""A quoted string, what stands outside of one, or a mark. Nothing of it can be read in two ways."""
_WITH_PORT = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def forwarding_header(names: Iterable[str]) -> str | None:
    """Return the first header by which a proxy shows itself, or None: the request came as it was sent."""
    return next((name for name in names if name.lower() in _NAMES or name.lower().startswith(_PREFIX)), None)


def client_address(
    peer: str | None, *, forwarded: Sequence[str], x_forwarded_for: Sequence[str], trusted: tuple[str, ...]
) -> str | None:
    """Return the address of who asks: the peer's own, unless it is one of the `trusted` addresses and networks.

    `forwarded` and `x_forwarded_for` are the values of these headers, as often as they were sent. Where both are there
    and do not agree neither is believed: the proxy writes one of them, and the client has written the other. Never
    raises; None only where `peer` is None, which is a Unix socket.
    """
    networks = _networks(trusted)
    start = _address(peer or "")
    if peer is None or start is None or not _is_among(start, networks):
        return peer
    found = []
    if forwarded:
        found.append(_walk(start, _hops(",".join(forwarded)), networks))
    if x_forwarded_for:
        found.append(_walk(start, ",".join(x_forwarded_for).split(","), networks))
    return str(found[0]) if found and all(address == found[0] for address in found) else peer


def _walk(start: Address, hops: Sequence[str], networks: tuple[Network, ...]) -> Address:
    """Follow the chain from the right while who wrote a hop is trusted; what is no address ends it, and `MAX_HOPS`."""
    at = start
    for hop in reversed(hops[-MAX_HOPS:]):
        address = _address(hop)
        if address is None:
            return at
        at = address
        if not _is_among(at, networks):
            return at
    return at


def _hops(text: str) -> list[str]:
    """Return what each element of Forwarded says behind `for=`, an empty text where it says nothing (RFC 7239).

    Where a quote is not closed, what the client wrote could reach into what the proxy has added, so nothing is taken
    from it. Takes one look at each character: it runs before anything is known of who asks.
    """
    elements: list[list[str]] = [[""]]
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            return []
        at = piece.end()
        if piece[0] == ",":
            elements.append([""])
        elif piece[0] == ";":
            elements[-1].append("")
        else:
            elements[-1][-1] += piece[0]
    return [_for_of(parameters) for parameters in elements]


def _for_of(parameters: Sequence[str]) -> str:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "for":
            return value.strip().removeprefix('"').removesuffix('"')
    return ""


@lru_cache(maxsize=4)
def _networks(trusted: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ip_network(text, strict=False) for text in trusted)


def _is_among(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    text = text.strip()
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address
