"""The connection of `logrelay send`, against a socket that behaves as the test says."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import tempfile
import threading
from pathlib import Path

import msgpack
import pytest

from logrelay.errors import NoRelayError, NotAckedError
from logrelay.send import frames
from logrelay.send.frames import Reject
from logrelay.send.link import WINDOW_BYTES, Link, check_directory, first_socket
from tests.support.waiting import DEADLINE_S

HELLO = frames.hello(b"r" * 16, "send", "box", 1, 2)


class FakeRelay:
    """Listens at `path` and runs `behave(connection, number)` for each connection, in a thread."""

    def __init__(self, path, behave):
        self.got = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.settimeout(DEADLINE_S)
        self._behave = behave
        self._stopping = False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        number = 0
        while not self._stopping:
            connection, _ = self.listener.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                if not self._stopping:
                    self._behave(self, connection, number)
            number += 1

    def frames(self, connection):
        """Give the frames of a connection until its end."""
        unpacker = msgpack.Unpacker(raw=False)
        with contextlib.suppress(ConnectionResetError):  # the other side closed and had not read all that was sent
            while data := connection.recv(65536):
                unpacker.feed(data)
                yield from unpacker

    def stop(self):
        self._stopping = True
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.listener.getsockname())
        self.thread.join(DEADLINE_S)
        self.listener.close()


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory(prefix="lr") as name:
        yield Path(name) / "s"


@pytest.fixture
def relay(place):
    made = []

    def start(behave):
        made.append(FakeRelay(place, behave))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def link(place):
    made = []

    def make(timeout_s=DEADLINE_S, **more):
        made.append(Link(str(place), HELLO, timeout_s=timeout_s, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def acking(relay, connection, number):
    """Do what a good relay does."""
    for frame in relay.frames(connection):
        relay.got.append(frame)
        if frame[0] == 0:
            connection.sendall(msgpack.packb([0, {"protocol": 1, "acked": 0}]))
        elif frame[0] == 1:
            connection.sendall(msgpack.packb([1, frame[1]]))


def looks():
    """Make a clock on which a hundredth of a second passes with each look at it, however long this machine stands."""
    return itertools.count(0.0, 0.01).__next__


def line(seq, size=1):
    return frames.log(seq, seq, "info", {"event": "x" * size})


def test_lines_go_out_in_order_and_are_waited_for(relay, link):
    """Hello, the lines, bye; then everything is acked."""
    there, sending = relay(acking), link()
    for seq in range(1, 6):
        sending.send(seq, line(seq))
    sending.finish()
    assert sending.acked == 5
    assert [frame[:2] for frame in there.got[1:6]] == [[1, seq] for seq in range(1, 6)]
    assert there.got[0][0] == 0


def test_nobody_there(link, place):
    """The text names the place and the reason of the system."""
    with pytest.raises(
        NoRelayError, match=f"no relay takes lines at {place}: No such file or directory; start one with logrelay serve"
    ):
        link(0.01).send(1, line(1))


def test_somebody_who_never_answers(relay, link):
    """It may be a relay that stands still, and goes on to read the line: nobody knows."""
    relay(lambda relay, connection, number: list(relay.frames(connection)))
    sending = link(0.2)
    sending.send(1, line(1))
    with pytest.raises(NotAckedError, match=r"has not acked in 0\.2 s"):
        sending.finish()
    sending.close()


def test_what_was_given_to_a_connection_that_ended_may_be_read_too(relay, link, place):
    """The next connections are given nothing, because nobody listens any more."""

    away, left = f"{place}.away", threading.Event()

    def read_and_leave(relay, connection, number):
        frames = relay.frames(connection)
        assert [next(frames)[0], next(frames)[0]] == [0, 1]
        os.rename(place, away)
        connection.close()
        left.set()

    relay(read_and_leave)
    sending = link(0.3, clock=looks())
    sending.send(1, line(1))
    assert left.wait(DEADLINE_S)
    with pytest.raises(NotAckedError, match="No such file"):
        sending.finish()
    sending.close()
    os.rename(away, place)


def test_a_relay_that_does_not_ack(relay, link):
    """It has welcomed us, so the line may come into its journal."""

    def welcome_only(relay, connection, number):
        connection.sendall(msgpack.packb([0, {"protocol": 1, "acked": 0}]))
        list(relay.frames(connection))

    relay(welcome_only)
    sending = link(0.2)
    sending.send(1, line(1))
    with pytest.raises(NotAckedError, match=r"has not acked in 0\.2 s"):
        sending.finish()
    assert sending.acked == 0
    sending.close()


def test_a_relay_that_refuses(relay, link):
    """What it says is told; it is asked again until the time is up."""

    refused = threading.Event()

    def refuse(relay, connection, number):
        connection.sendall(msgpack.packb([3, "256 traders are connected"]))
        refused.set()
        list(relay.frames(connection))

    relay(refuse)
    sending = link(0.2, clock=looks())
    sending.send(1, line(1))
    assert refused.wait(DEADLINE_S)
    with pytest.raises(NoRelayError, match="it refuses: 256 traders are connected"):
        sending.finish()


def test_a_rejected_line_is_known(relay, link):
    """It counts as used, and is not asked for again."""

    def reject(relay, connection, number):
        connection.sendall(msgpack.packb([0, {"protocol": 1, "acked": 0}]))
        for frame in relay.frames(connection):
            if frame[0] == 1:
                connection.sendall(msgpack.packb([2, frame[1], "no"]) + msgpack.packb([1, frame[1]]))

    relay(reject)
    sending = link()
    sending.send(1, line(1))
    sending.finish()
    assert sending.rejected == [Reject(1, "no")]


def test_a_lost_connection_is_made_again_with_what_was_not_acked(relay, link):
    """The first connection ends after an ack: the rest comes once more, behind another hello."""

    def behave(relay, connection, number):
        if number:
            acking(relay, connection, number)
            return
        connection.sendall(msgpack.packb([0, {"protocol": 1, "acked": 0}]))
        for frame in relay.frames(connection):
            if frame[0] == 1 and frame[1] == 2:
                connection.sendall(msgpack.packb([1, 1]))
                connection.shutdown(socket.SHUT_WR)  # to close with anything unread would take the ack along

    there, sending = relay(behave), link()
    for seq in (1, 2, 3):
        sending.send(seq, line(seq))
    sending.finish()
    assert [frame[1] for frame in there.got if frame[0] == 1] == [2, 3]
    assert sending.acked == 3


def test_whoever_gives_more_than_the_window_waits(relay, link):
    """Until the relay acks: what is kept is bounded."""
    go, full = threading.Event(), threading.Event()
    enough = size = 0
    while size <= WINDOW_BYTES:
        enough += 1
        size += len(line(enough, 1000))

    def late(relay, connection, number):
        connection.sendall(msgpack.packb([0, {"protocol": 1, "acked": 0}]))
        for frame in relay.frames(connection):
            if frame[0] == 1 and frame[1] == enough:
                full.set()
                assert go.wait(DEADLINE_S)
                connection.sendall(msgpack.packb([1, enough]))

    relay(late)
    sending = link()
    sent = []

    def give():
        for seq in range(1, enough + 1):
            sending.send(seq, line(seq, 1000))
            sent.append(seq)

    thread = threading.Thread(target=give)
    thread.start()
    assert full.wait(DEADLINE_S)
    assert len(sent) == enough - 1, "the one that filled the window did not wait"
    go.set()
    thread.join(DEADLINE_S)
    assert len(sent) == enough


def test_a_directory_of_another_user_is_refused(tmp_path):
    """The trader's rule, for the names that anybody may take in a shared directory."""
    ours = tmp_path / f"logrelay-{os.getuid()}"
    ours.mkdir(mode=0o700)
    check_directory(str(ours / "s"))
    check_directory(str(tmp_path / "s"))
    ours.chmod(0o770)
    with pytest.raises(PermissionError, match="can be changed by another user"):
        check_directory(str(ours / "s"))
    ours.rmdir()
    ours.symlink_to(tmp_path)
    with pytest.raises(PermissionError):
        check_directory(str(ours / "s"))


def test_the_first_socket_is_found(place):
    """Neither a file nor a missing one counts."""
    other = place.parent / "other"
    place.touch()
    assert first_socket((str(place), str(other))) is None
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(other))
        assert first_socket((str(place), str(other))) == str(other)
