"""Two users of one machine at the log socket: a run belongs to who opened it, and the relay says who may log at all.

The users are numbers that nobody has here. Who logs is a process of its own, which gives up being root before it
connects; where the tests do not run as root there is only one user, and they are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgpack
import pytest

from tests.support.http import Relay
from tests.support.waiting import DEADLINE_S, wait_for
from tests.system.test_log_socket import ROOT, messages

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become two other users (run as root)")

ALICE, MALLORY, LOGGERS, FRIENDS = 47_101, 47_102, 47_103, 47_104
"""Both are loggers: the system lets them open the socket."""

SPEAK = """
import os, socket, sys
uid, gid, limit, path = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
groups = [int(group) for group in sys.argv[5:]]
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(limit)
os.setgroups(groups); os.setgid(gid); os.setuid(uid)
def say(data):
    sys.stdout.buffer.write(len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()
try:
    sock.connect(path)
    say(b"")
except OSError as error:
    say(type(error).__name__.encode())
    sys.exit()
while size := int.from_bytes(sys.stdin.buffer.read(4), "big"):
    data = sys.stdin.buffer.read(size)
    try:
        sock.sendall(data)
    except OSError:
        pass  # refused already: what was said then can still be read
    try:
        say(sock.recv(65536))
    except OSError:
        say(b"")
"""
"""Connects as a user; sends what stands in stdin, answers each time with what the relay says, empty for its end."""


class Person:
    """A process of one user with one connection."""

    def __init__(self, uid: int, path: Path, *, gid: int | None = None, groups: tuple[int, ...] = (LOGGERS,)) -> None:
        arguments = map(str, (uid, uid if gid is None else gid, DEADLINE_S, path, *groups))
        self.process = subprocess.Popen(
            [sys.executable, "-c", SPEAK, *arguments], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.refused = self._answer().decode()
        """Why the system did not let it connect; empty: it is connected."""

    def _answer(self) -> bytes:
        return self.process.stdout.read(int.from_bytes(self.process.stdout.read(4), "big"))

    def say(self, *frames: list) -> list:
        """Send frames; return what the relay answers first, nothing when it hangs up."""
        data = b"".join(map(msgpack.packb, frames))
        self.process.stdin.write(len(data).to_bytes(4, "big") + data)
        self.process.stdin.flush()
        answers = msgpack.Unpacker()
        answers.feed(self._answer())
        return list(answers)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def place():
    """Make a directory that other users may look into, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="two-users-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def scene(place):
    """Make relays and people; all of them end with the test."""
    made: list[Relay | Person] = []

    def add(what):
        made.append(what)
        return what

    yield add
    for one in reversed(made):
        one.end() if isinstance(one, Person) else one.stop()


SENDS = """
import os, sys
from logrelay.errors import NoRelayError
from logrelay.send.link import Link
link = Link(sys.argv[2], b"", timeout_s=0.01)
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
try:
    link.send(1, b"x")
except NoRelayError as error:
    print(error)
"""
"""What `logrelay send` has, as a user: the interpreter is started by one who may read it."""


def hello(run: bytes, app: str) -> list:
    return [0, {"protocol": 1, "run": run, "app": app, "host": "box", "pid": 1, "started_ns": 1}]


def log(seq: int, event: str) -> list:
    return [1, seq, 1_769_162_400_000_000_000, "info", {"event": event}]


def test_nobody_goes_on_with_the_run_of_another_user(scene, place):
    """Not while it is connected, nor when it has lost its connection: no line, bye or seq of another user counts."""
    relay = scene(Relay(place, LOGRELAY_SOCKET_GROUP=str(LOGGERS)))
    run = bytes(range(16))
    alice = scene(Person(ALICE, relay.socket))
    assert alice.say(hello(run, "alice"))[0][0] == 0
    assert alice.say(log(1, "alice 1")) == [[1, 1]]

    def attack():
        for frames in (
            [log(2, "forged"), [3, 2]],
            [log(2**62, "poisoned")],
            [[2, 2, 2**62, "overflow"]],
            [[3, 1]],
        ):
            mallory = scene(Person(MALLORY, relay.socket))
            answers = mallory.say(hello(run, "alice"), *frames)
            assert [answer[0] for answer in answers] == [3], answers
            assert "belongs to another user" in str(answers[0]), "and nothing of what has come is told"
            assert "1" not in str(answers[0][1:]).replace(str(ALICE), "").replace(str(MALLORY), "")

    attack()
    assert alice.say(log(2, "alice 2")) == [[1, 2]], "nobody noticed"
    alice.end()
    attack()
    alice = scene(Person(ALICE, relay.socket))
    (welcome,) = alice.say(hello(run, "alice"))
    assert welcome[1]["acked"] == 2
    assert alice.say(log(3, "alice 3")) == [[1, 3]]
    said = messages(relay)
    assert [text for text in said if text.startswith("alice ") and text[-1:].isdigit()] == [
        "alice 1",
        "alice 2",
        "alice 3",
    ]
    assert not {"forged", "poisoned"} & set(said)
    assert not [text for text in said if "ended cleanly" in text]


def test_another_user_reads_nothing(scene, place):
    """Not the journal, not the token file, not the spool of the socket: files are the relay's user's, and stay so."""
    relay = scene(Relay(place, LOGRELAY_SOCKET_GROUP=str(LOGGERS)))
    alice = scene(Person(ALICE, relay.socket))
    alice.say(hello(bytes(16), "alice"), log(1, "a secret position"))
    subprocess.run(
        [sys.executable, "-m", "logrelay", "token", "add", "phone"],
        cwd=ROOT,
        env=os.environ | {"LOGRELAY_JOURNAL": str(place / "j.db"), "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    files = [path for path in place.iterdir() if path.is_file()]
    assert {"j.db", "tokens.json"} <= {path.name for path in files}
    look = "import os,sys; os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))\n"
    look += "for path in sys.argv[2:]:\n try: open(path,'rb').read(); print('read', path)\n except OSError: pass"
    done = subprocess.run(
        [sys.executable, "-c", look, str(MALLORY), *map(str, files)],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("allow", "gid"),
    [({"LOGRELAY_ALLOW_UID": str(ALICE)}, None), ({"LOGRELAY_ALLOW_GID": str(FRIENDS)}, FRIENDS)],
    ids=["uid", "gid"],
)
def test_only_who_is_named_may_log(scene, place, allow, gid):
    """By user or by group; the other is told why, nothing of what it says arrives, and the notice names its number."""
    relay = scene(Relay(place, LOGRELAY_SOCKET_GROUP=str(LOGGERS), **allow))
    alice = scene(Person(ALICE, relay.socket, gid=gid))
    (welcome, *_) = alice.say(hello(bytes(16), "alice"), log(1, "from alice"))
    assert welcome[0] == 0
    mallory = scene(Person(MALLORY, relay.socket))
    answers = mallory.say(hello(b"m" * 16, "mallory"), log(1, "from mallory"))
    assert f"uid {MALLORY} may not log here" in str(answers)
    wait_for(lambda: any(f"uid {MALLORY} may not log here" in text for text in messages(relay)))
    assert "from mallory" not in messages(relay)


def test_the_mode_of_the_socket_keeps_others_out(scene, place):
    """As it is by default: whoever is not of the relay's group cannot connect."""
    relay = scene(Relay(place))
    assert scene(Person(MALLORY, relay.socket, groups=())).refused == "PermissionError"
    told = subprocess.run(
        [sys.executable, "-c", SENDS, str(MALLORY), str(relay.socket)], cwd=ROOT, capture_output=True, text=True,
        timeout=DEADLINE_S,
    )  # fmt: skip
    assert told.stdout.endswith(": Permission denied; the user who sends has to be in the group of the socket\n")
