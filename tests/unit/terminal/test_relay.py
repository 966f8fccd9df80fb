"""What a URL says of a relay; how it is spoken to is seen with real relays in tests/system/terminal."""

from __future__ import annotations

from threading import Thread

import pytest
from websockets.sync.server import serve

from logrelay.errors import ConfigError, NoRelayError
from logrelay.terminal import relay
from logrelay.terminal.relay import Address, Follower, parse_address
from tests.support.waiting import DEADLINE_S


@pytest.mark.parametrize(
    ("url", "shown", "token", "given"),
    [
        ("ws://box:8765", "ws://box:8765", "own", []),
        ("http://box:8765/", "ws://box:8765", "own", []),
        ("wss://box", "wss://box:443", "own", []),
        ("ws://[::1]:9/?level=error&token=t1", "ws://[::1]:9", "t1", [("level", "error")]),
        ("https://box:8765/?app=bot#token=t2", "wss://box:8765", "t2", [("app", "bot")]),
        ("ws://box:1?token=t3&device=phone", "ws://box:1", "t3", []),
    ],
)
def test_a_url_names_relay_token_and_filter(url, shown, token, given):
    """Whatever was printed for a phone can be pasted into a terminal."""
    address, rest = parse_address(url, "own")

    assert (address.url, address.token, rest) == (shown, token, given)
    assert address.headers() == {"Authorization": f"Bearer {token}"}
    assert token not in repr(address)


@pytest.mark.parametrize("url", ["ftp://box", "ws://", "ws://box:x", "ws://box:99999"])
def test_what_is_no_url_of_a_relay_is_refused(url):
    """With what is allowed."""
    with pytest.raises(ConfigError, match="is not a URL"):
        parse_address(url, None)


@pytest.mark.parametrize("code", [4400, 4401, 4403])
def test_a_stream_that_would_be_refused_again_is_given_up(code, monkeypatch):
    """A token that is good no longer is said at once, not tried for ever."""
    monkeypatch.setattr(relay, "TIMEOUT_S", DEADLINE_S)
    with serve(lambda stream: stream.close(code, "no"), "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            address = Address("127.0.0.1", server.socket.getsockname()[1])
            follower = Follower(address, "", "", on_state=pytest.fail, pause=pytest.fail)
            with pytest.raises(NoRelayError, match=f"has ended the stream \\({code}\\): no"):
                next(follower.lines())
        finally:
            server.shutdown()
            thread.join()
