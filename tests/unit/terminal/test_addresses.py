"""The addresses of this machine, as its own tools tell them."""

from __future__ import annotations

import ipaddress
import socket

from logrelay.terminal.addresses import answers, own_addresses


def test_only_addresses_that_others_may_reach_are_listed():
    """No loopback and nothing link-local; each once, and each of them ours: it can be bound."""
    found = own_addresses()

    assert len(found) == len(set(found))
    for address in found:
        assert not ipaddress.ip_address(address).is_loopback
        assert not ipaddress.ip_address(address).is_link_local
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))


def test_whether_somebody_answers():
    """A port that is listened on does, one that is not does not."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers("127.0.0.1", port)
    assert not answers("127.0.0.1", port)
