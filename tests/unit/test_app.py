"""What the relay says of itself to the service manager; all else of `app` is tested as a real program."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace

import pytest

from logrelay import app
from tests.support.waiting import DEADLINE_S


@pytest.mark.parametrize(
    ("trouble", "lost", "text"),
    [
        (None, 0, "serving 2 traders, 3 viewers"),
        (None, 1, "serving 2 traders (1 more lost), 3 viewers"),
        ("the disk is full", 0, "journal in trouble: the disk is full; 2 traders, 3 viewers"),
    ],
)
def test_the_summary_names_trouble_and_who_is_connected(trouble, lost, text):
    """Who looks at `systemctl status` should see at once that lines are not being kept."""
    pipeline = SimpleNamespace(
        trouble=trouble, viewer_count=3, lost_traders=lost, trader_server=SimpleNamespace(connection_count=2)
    )

    assert app.Relay.summary(SimpleNamespace(_pipeline=pipeline)) == text


def test_a_status_is_sent_when_it_has_changed(monkeypatch):
    """The manager logs nothing of it, but each message wakes it; one that was not taken is sent again."""
    monkeypatch.setattr(app, "STATUS_INTERVAL_S", 0)
    texts = iter(["a", "a", "a", "b", "b"])
    taken = iter([False, True, True])
    sent = []

    class Notifier:
        connected = True

        def status(self, text):
            sent.append(text)
            return next(taken)

    def summary():
        text = next(texts, None)
        if text is None:
            Notifier.connected = False
            return "b"
        return text

    asyncio.run(app._show_status(Notifier(), summary))
    assert sent == ["a", "a", "b"]


def test_a_watch_that_fails_is_reported_and_begun_again():
    """A watch over the tokens that had ended without a word would leave a revoked one good for ever."""
    failures = [RuntimeError("can't start new thread"), OSError("no memory")]
    reported = []

    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))

        async def watch():
            if len(reported) < len(failures):
                raise failures[len(reported)]
            done.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(app._keep_up(watch))
        await asyncio.wait_for(done.wait(), DEADLINE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert reported == failures


def test_a_reload_that_fails_is_over_for_the_manager(tmp_path):
    """It would wait for READY=1 otherwise, and end the relay in the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "n"))
        manager.settimeout(DEADLINE_S)
        notifier = app.Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")})
        with pytest.raises(RecursionError):
            app._reload(notifier, lambda: _again(0), "s")
        told = [manager.recv(1000).decode().partition("=1")[0] for _ in range(2)]
        notifier.close()
    assert told == ["RELOADING", "READY"]


def _again(depth):
    return _again(depth + 1)
