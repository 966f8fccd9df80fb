"""Who listens on a port."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from logrelay.doctor.processes import LISTEN, listeners


def test_the_process_that_listens_is_named_with_its_address():
    """By IPv4 and IPv6; a connection is no listener, and a port that nobody has is nobody's."""
    name = Path("/proc/self/comm").read_text().strip()
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        assert listeners(port) == [f"process {os.getpid()} ({name}) on 127.0.0.1"]
        with socket.create_connection(("127.0.0.1", port)) as client:
            assert listeners(client.getsockname()[1]) == []
    assert listeners(port) == []
    if socket.has_ipv6:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
            assert listeners(six.getsockname()[1]) == [f"process {os.getpid()} ({name}) on ::1"]


def test_where_nothing_is_told_nobody_is_seen(tmp_path):
    """As in a service that may not look at the network of others."""
    assert LISTEN == "0A"
    assert listeners(1, ((str(tmp_path / "none"), socket.AF_INET),)) == []
