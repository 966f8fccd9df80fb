"""What is done with files of dead runs, with a relay's end of a socket that has its answers ready."""

import contextlib
import itertools
import os
import socket
import threading
from types import SimpleNamespace

import msgpack
import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay import spool_recovery as module
from robo_trader.log_relay.descriptors import mark
from robo_trader.log_relay.spool import Spool
from robo_trader.log_relay.spool_format import HEADER_BYTES, RECORD
from robo_trader.log_relay.spool_recovery import Recovery
from tests.support.threads import join
from tests.support.waiting import DEADLINE_S

LIMIT = 1 << 18


def line(seq, level="info", event=b"\x80"):
    return frames.log(seq, seq, frames.LEVELS[level], event)


def hello_of(run, app="bot", pid=41):
    return frames.hello(run=run, app=app, host="h", pid=pid, started_ns=2)


class ScriptedRelay:
    """The far end of a connection, in a thread: reads to the end, and answers.

    An ack waits until the lines up to it have come, an answer to hello for hello. None ends the answers' direction.
    """

    def __init__(self, far, answers):
        self.frames = []
        self._far = far
        self._answers = list(answers)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        unpacker = msgpack.Unpacker()
        seen = 0
        with self._far as far, contextlib.suppress(ConnectionError):
            while data := far.recv(1 << 16):
                unpacker.feed(data)
                for frame in unpacker:
                    self.frames.append(frame)
                    seen = frame[2 if frame[0] == 2 else 1] if frame[0] in (1, 2) else seen
                while self._answers and not self._is_early(self._answers[0], seen):
                    answer = self._answers.pop(0)
                    if answer is None:
                        far.shutdown(socket.SHUT_WR)
                    else:
                        far.sendall(answer if isinstance(answer, bytes) else msgpack.packb(answer))

    def _is_early(self, answer, seen):
        return isinstance(answer, list) and answer[0] == 1 and answer[1] > seen


class Bench:
    """A directory, a recovery, and the far ends of its connections with what the relay answers."""

    def __init__(self, folder):
        self.folder = folder
        self.told = []
        self.answers = []
        """Of each connection, in order."""
        self.relays = []
        self.threads = []
        self.now_ns = 0
        self.recovery = Recovery(
            folder,
            app="bot",
            connect=self.connect,
            start_thread=self.threads.append,
            report=self.told.append,
            now_ns=lambda: self.now_ns,
        )

    def connect(self):
        if not self.answers:
            raise ConnectionRefusedError("nobody there")
        near, far = socket.socketpair()
        self.relays.append(ScriptedRelay(far, self.answers.pop(0)))
        return near, mark(near.fileno())

    def leave(self, run, lines, *, app="bot", acked=0, ended=False, has_failed=False):
        """Leave a file as a dead run would; return its path."""
        spool = Spool(self.folder, run=run, limit=LIMIT, make_hello=lambda: hello_of(run, app))
        for frame in lines:
            spool.append(frame)
        spool.open()
        spool.acked(acked, everything=False)
        if ended:
            spool.ended(everything=False, has_failed=has_failed)
        path = spool.path
        assert not spool.failure
        spool.close()
        return path

    def got(self):
        """Return what each connection has carried."""
        for relay in self.relays:
            join(relay.thread)
        return [relay.frames for relay in self.relays]

    def look(self):
        self.recovery._run()


def welcome(acked=0):
    return [0, {"protocol": 1, "acked": acked}]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", DEADLINE_S)  # the other end may stand still
    folder = str(tmp_path / "spool")
    os.mkdir(folder, 0o700)
    bench = Bench(folder)
    yield bench
    bench.recovery.stop()
    bench.got()


def test_a_dead_run_is_delivered_under_its_own_name(bench):
    """Hello, lines and lost ones in order, and nothing is left."""
    run = b"1" * 16
    bench.leave(run, [line(1), line(2, "error"), line(3)])
    bench.answers = [[welcome(), [1, 3]]]
    bench.look()
    (got,) = bench.got()
    kind, facts = msgpack.unpackb(hello_of(run))
    assert got[0] == [kind, facts | {"ping": True, "dead": True}]
    assert [frame[:2] for frame in got[1:]] == [[1, 1], [1, 2], [1, 3]]
    assert os.listdir(bench.folder) == []
    assert bench.told == ["3 lines that an earlier run (pid 41) had left behind are delivered"]


def test_what_the_welcome_covers_is_not_sent(bench):
    """Nor what the dead run knew to be acked; a run that ended in order says goodbye."""
    bench.leave(b"1" * 16, [line(n) for n in range(1, 8)], acked=3, ended=True)
    bench.answers = [[welcome(5), [1, 7]]]
    bench.look()
    assert [frame[:2] for frame in bench.got()[0][1:]] == [[1, 6], [1, 7], [3, 7]]
    bench.leave(b"2" * 16, [line(n) for n in range(1, 8)], acked=3)
    bench.answers = [[welcome(0), [1, 7]]]
    bench.look()
    assert [frame[1] for frame in bench.got()[1][1:]] == [4, 5, 6, 7], "an earlier journal has the first ones"


@pytest.mark.parametrize("has_failed", [False, True])
def test_a_run_that_ended_with_a_failure_says_so_in_the_end(bench, has_failed):
    """Its goodbye is not one of a run that ended in order."""
    bench.leave(b"1" * 16, [line(1)], ended=True, has_failed=has_failed)
    bench.answers = [[welcome(), [1, 1]]]
    bench.look()
    hello, *rest = bench.got()[0]
    assert hello[1].get("failed") == ("its last lines tell more" if has_failed else None)
    assert rest[-1] == [3, 1]


def test_a_file_with_nothing_left_is_removed_without_a_word(bench):
    """No connection is made for it."""
    bench.leave(b"1" * 16, [line(1), line(2)], acked=2)
    bench.leave(b"2" * 16, [])
    bench.look()
    assert (os.listdir(bench.folder), bench.told, bench.relays) == ([], [], [])


def test_missing_lines_are_told_as_lost(bench):
    """They were dropped from memory and from the file."""
    bench.leave(b"1" * 16, [line(2), line(5)])
    bench.answers = [[welcome(), [1, 5]]]
    bench.look()
    sent = bench.got()[0][1:]
    assert sent[0] == [2, 1, 1, 1, "overflow"]
    assert sent[2] == [2, 3, 4, 2, "overflow"]


def test_a_torn_file_is_delivered_as_far_as_it_is_whole(bench):
    """The rest is told as lost, and the file set aside."""
    path = bench.leave(b"1" * 16, [line(n) for n in range(1, 5)])
    with open(path, "r+b") as file:
        file.seek(HEADER_BYTES + (RECORD.size + len(line(1))) + 30)
        file.write(b"\xff")
    bench.answers = [[welcome(), [1, 4]]]
    bench.look()
    sent = [frame[:2] if frame[0] == 1 else frame for frame in bench.got()[0][1:]]
    assert sent == [[1, 1], [2, 2, 2, 1, "torn"], [1, 3], [1, 4]]
    name = os.path.basename(path)
    assert os.listdir(bench.folder) == [name + ".torn"]
    assert bench.told[0] == (
        f"spool file {path}: 1 places in it are damaged; 3 lines were whole; it was renamed to {path}.torn"
    )
    bench.look()
    assert len(bench.told) == 2


@pytest.mark.parametrize("whole", [0, 5])
def test_a_file_that_has_lost_its_end_ends_with_a_gap(bench, whole):
    """Up to the last line that the run has written, so that the journal says how many are missing."""
    path = bench.leave(b"1" * 16, [line(n) for n in range(1, 21)], ended=True)
    os.truncate(path, HEADER_BYTES + whole * (RECORD.size + len(line(1))) + 7)
    bench.answers = [[welcome(), [1, 20]]]
    bench.look()
    sent = [frame[:2] if frame[0] == 1 else frame for frame in bench.got()[0][1:]]
    gap = [2, whole + 1, 20, 20 - whole, "torn"]
    assert sent == [*([1, n] for n in range(1, whole + 1)), gap, [3, 20]]
    assert os.listdir(bench.folder) == [os.path.basename(path) + ".torn"]


@pytest.mark.parametrize("what", ["text", "fifo", "link", "header", "directory"])
def test_a_foreign_file_is_set_aside(bench, what, tmp_path):
    """And said, once; what a link leads to stays as it is."""
    path = f"{bench.folder}/x.spool"
    if what == "text":
        with open(path, "w") as file:
            file.write("mine")
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        os.mkdir(path)
    elif what == "link":
        (tmp_path / "precious").write_text("mine")
        os.symlink(tmp_path / "precious", path)
    else:
        path = bench.leave(b"1" * 16, [line(1)])
        with open(path, "r+b") as file:
            file.seek(30)
            file.write(b"\xff")
    bench.look()
    bench.look()
    assert os.listdir(bench.folder) == [os.path.basename(path) + ".foreign"]
    assert len(bench.told) == 1
    assert bench.told[0].startswith(f"spool file {path}: it")
    if what == "link":
        assert (tmp_path / "precious").read_text() == "mine"


def test_files_of_others_are_left_alone(bench):
    """Another app's, a later version's, and one whose run lives."""
    other = bench.leave(b"1" * 16, [line(1)], app="other")
    later = bench.leave(b"2" * 16, [line(1)])
    with open(later, "r+b") as file:
        file.write(b"LRSPOOL2")
    alive = Spool(bench.folder, run=b"3" * 16, limit=LIMIT, make_hello=lambda: hello_of(b"3" * 16))
    alive.append(line(1))
    bench.look()
    alive.close()
    assert {f"{bench.folder}/{name}" for name in os.listdir(bench.folder)} == {other, later, alive.path}
    assert (bench.told, bench.relays) == ([], [])


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (None, "ConnectionRefusedError: nobody there"),
        ([[3, "too many"]], "ConnectionError: the relay refused: too many"),
        ([None], "ConnectionError: the relay closed the connection"),
        ([welcome(), [1, 1], None], "ConnectionError: the relay closed the connection"),
        ([b"\xc1"], "ConnectionError: the relay answers nonsense"),
    ],
)
def test_a_relay_that_does_not_take_it_leaves_the_file(bench, answers, why):
    """For the next time; said once."""
    path = bench.leave(b"1" * 16, [line(1), line(2)])
    for _ in range(2):
        bench.answers = [] if answers is None else [answers]
        bench.look()
    assert os.listdir(bench.folder) == [os.path.basename(path)]
    assert bench.told == [f"spool file {path} cannot be delivered now: {why}"]
    bench.answers = [[welcome(1), [1, 2]]]
    bench.look()
    assert os.listdir(bench.folder) == []


def test_a_relay_that_says_nothing_is_given_up(bench, monkeypatch):
    """After a time without progress."""
    monkeypatch.setattr(module, "ANSWER_S", 0.01)
    path = bench.leave(b"1" * 16, [line(1)])
    bench.answers = [[]]
    bench.look()
    assert bench.told == [f"spool file {path} cannot be delivered now: TimeoutError: the relay does not answer"]


def test_time_in_which_the_machine_stands_still_is_no_silence(bench, monkeypatch):
    """An hour goes by at every look at the clock: the relay did not run either, and then it answers."""
    clock = itertools.count(step=3600)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    bench.leave(b"1" * 16, [line(1)])
    bench.answers = [[welcome(), [1, 1]]]
    bench.look()
    assert os.listdir(bench.folder) == []
    assert "delivered" in bench.told[-1]


def test_rejected_lines_are_done_with(bench):
    """The relay has told of them, and its ack covers them."""
    bench.leave(b"1" * 16, [line(1), line(2)])
    bench.answers = [[welcome(), [2, 1, "no"], [1, 2]]]
    bench.look()
    assert os.listdir(bench.folder) == []


@pytest.mark.parametrize("answers", [[b"\x92\x01\x01"], [welcome(), b"\x92\x01\x03"]])
def test_an_ack_of_what_was_not_sent_is_not_believed(bench, answers):
    """The file would be removed for it."""
    path = bench.leave(b"1" * 16, [line(1), line(2)])
    bench.answers = [answers]
    bench.look()
    assert os.path.exists(path)
    assert bench.told == [f"spool file {path} cannot be delivered now: ConnectionError: the relay answers nonsense"]


def test_long_files_go_in_batches(bench):
    """All of it, in order, whatever the kernel takes at once."""
    event = msgpack.packb({"event": "x" * 300})
    bench.leave(b"1" * 16, [line(n, event=event) for n in range(1, 501)])
    bench.answers = [[welcome(), [1, 500]]]
    bench.look()
    assert [frame[1] for frame in bench.got()[0][1:]] == list(range(1, 501))
    assert os.listdir(bench.folder) == []


def test_a_connection_that_became_somebody_else_s_is_not_written_to(bench):
    """Nor closed."""
    bench.leave(b"1" * 16, [line(1)])
    near, far = socket.socketpair()
    connect = bench.connect

    def stolen():
        sock, marked = connect()
        os.dup2(near.fileno(), sock.fileno())
        bench.stolen = sock.fileno()
        return sock, marked

    bench.answers = [[welcome()]]
    bench.recovery._connect = stolen
    bench.look()
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    assert os.fstat(bench.stolen).st_ino == os.fstat(near.fileno()).st_ino
    os.close(bench.stolen)
    near.close()
    far.close()


def test_when_it_looks(bench):
    """Every half minute, sooner behind a welcome, one thread at a time, and not any more once stopped."""
    recovery = bench.recovery
    recovery.start(100.0)
    assert (len(bench.threads), recovery.running) == (1, True)
    recovery.start(200.0)
    assert len(bench.threads) == 1, "it runs"
    bench.threads[0]()
    assert recovery.running is False
    recovery.start(100.0 + module.SCAN_S - 0.1)
    recovery.start(100.0 + module.SOON_S - 0.1, soon=True)
    assert len(bench.threads) == 1
    recovery.start(100.0 + module.SOON_S, soon=True)
    assert len(bench.threads) == 2
    bench.threads[1]()
    recovery.start(101.0 + module.SCAN_S)
    bench.threads[2]()
    recovery.stop()
    recovery.start(1000.0)
    assert len(bench.threads) == 3


def test_a_thread_that_cannot_be_started_is_none(bench):
    """At the interpreter's end; the next time may do."""

    def refuse(run):
        raise RuntimeError("can't start new thread")

    bench.recovery._start_thread = refuse
    bench.recovery.start(100.0)
    assert bench.recovery.running is False


def test_stopping_leaves_the_file(bench):
    """The next run has it."""
    path = bench.leave(b"1" * 16, [line(1)])
    bench.answers = [[welcome(), [1, 1]]]
    connect = bench.connect

    def stopped():
        bench.recovery.stop()
        return connect()

    bench.recovery._connect = stopped
    bench.look()
    assert os.path.exists(path)
    assert bench.told == []
    assert bench.got() == [[]]
    bench.look()
    assert len(bench.relays) == 1


def test_a_directory_that_cannot_be_used_is_not_looked_through(bench):
    """The run's own spool says why. What others may have put there is not sent."""
    path = bench.leave(b"1" * 16, [line(1)])
    os.chmod(bench.folder, 0o777)
    bench.look()
    assert os.path.exists(path)
    os.unlink(path)
    os.rmdir(bench.folder)
    bench.look()
    assert bench.told == []


def test_an_error_of_the_disk_is_said(bench, monkeypatch):
    """Once; the thread ends with it."""

    def fail(folder):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module.spool, "candidates", fail)
    bench.look()
    bench.look()
    text = f"the spool {bench.folder} cannot be looked through: OSError: [Errno 5] Input/output error"
    assert bench.told == [text]


def test_a_forked_child_drops_what_the_parent_has_open(bench):
    """The parent's lock stays."""
    bench.leave(b"1" * 16, [line(1)])
    seen = []
    connect = bench.connect

    def forked():
        made = bench.recovery._sock, bench.recovery._mark = connect()
        file = bench.recovery._file
        pid = os.fork()
        if not pid:
            bench.recovery.forget_in_child()
            os._exit(0 if file._fd < 0 and bench.recovery._sock is None else 1)
        seen.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        seen.append(module.spool.DeadFile.take(file.path))
        return made

    bench.answers = [[welcome(), [1, 1]]]
    bench.recovery._connect = forked
    bench.look()
    assert seen == [0, None]
    assert os.listdir(bench.folder) == []


def test_a_ping_is_answered_while_the_journal_is_waited_for(bench):
    """The relay of a dead run's lines gets a sign of life, too."""
    run = b"p" * 16
    bench.leave(run, [line(1)])
    bench.answers = [[welcome(), [4], [5], [1, 1]]]
    bench.look()
    (got,) = bench.got()
    assert [5] in got


def test_lines_that_a_relay_may_have_forgotten_are_not_sent_again(bench):
    """Older than 28 days: the file is set aside, and it is said once; to the day it is delivered."""
    run = bytes(range(16))
    path = bench.leave(run, [line(2), line(3)], acked=1)
    bench.now_ns = module.MAX_AGE_NS + 3
    bench.answers = [[welcome(1), [1, 3]]]
    bench.look()
    assert bench.got() == []
    assert not os.path.exists(path)
    assert os.path.exists(path + ".expired")
    told = "its lines are older than 28 days, and a relay may have them; it was renamed to"
    assert bench.told == [f"spool file {path}: {told} {path}.expired"]
    path = bench.leave(run, [line(2), line(3)], acked=1)
    bench.now_ns = module.MAX_AGE_NS + 2
    bench.look()
    assert [[frame[0] for frame in frames] for frames in bench.got()] == [[0, 1, 1]]
    assert not os.path.exists(path)
