"""SIGHUP before, while and after somebody reacts to it, as a real signal."""

from __future__ import annotations

import os
import signal

import pytest

from logrelay.hangup import Hangups


@pytest.fixture
def hangups():
    before = signal.getsignal(signal.SIGHUP)
    yield Hangups()
    signal.signal(signal.SIGHUP, before)


def hang_up():
    os.kill(os.getpid(), signal.SIGHUP)


def test_what_came_too_early_is_made_up_for_once(hangups):
    """Several early signals ask for one reload."""
    reloads = []
    hang_up()
    hang_up()
    hangups.begin(lambda: reloads.append(1))

    assert reloads == [1]
    hang_up()
    assert reloads == [1, 1]


def test_after_the_end_the_signal_is_ignored(hangups):
    """Ignored by the system, so that the interpreter's own end does not bring the default back."""
    reloads = []
    hangups.begin(lambda: reloads.append(1))
    hangups.end()
    hang_up()

    assert reloads == []
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
