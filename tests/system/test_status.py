"""What the service manager shows of a relay that serves: `systemctl status` says who is connected."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from pathlib import Path

from tests.support.http import Relay
from tests.support.waiting import DEADLINE_S


def test_the_status_follows_who_is_connected():
    """READY names the address; each later status does as well, and the number of traders."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lr")))
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(directory / "n"))
        manager.settimeout(DEADLINE_S)
        relay = Relay(directory, NOTIFY_SOCKET=str(directory / "n"))
        stack.callback(relay.stop)

        def status(words):
            while True:
                text = manager.recv(4096).decode()
                if words in text:
                    return text

        address = f"ready on ws://127.0.0.1:{relay.port}"
        assert status("READY=1").startswith(f"READY=1\nSTATUS={address}")
        assert address in status("STATUS=serving 0 traders, 0 viewers; ")
        relay.trader()
        assert address in status("STATUS=serving 1 traders, 0 viewers; ")
