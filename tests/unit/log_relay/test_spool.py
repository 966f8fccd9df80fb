"""The spool's file: made safely, locked while its run lives, taken when it is dead, never in the trader's way."""

import fcntl
import os
import resource
import stat
import subprocess
import sys

import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay import spool as module
from robo_trader.log_relay.spool import DeadFile, Spool, candidates
from robo_trader.log_relay.spool_format import Reader
from tests.support.waiting import DEADLINE_S

LIMIT = 1 << 18
RUN = b"r" * 16
HELLO = frames.hello(run=RUN, app="a", host="h", pid=1, started_ns=2)


def line(seq, level="info"):
    return frames.log(seq, seq, frames.LEVELS[level], b"\x80")


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "spool")


@pytest.fixture
def make(folder):
    made = []

    def make(run=RUN, **options):
        options = {
            "limit": LIMIT,
            "make_hello": lambda: frames.hello(run=run, app="a", host="h", pid=1, started_ns=2),
        } | options
        made.append(Spool(options.pop("folder", folder), run=run, **options))
        return made[-1]

    yield make
    for spool in made:
        spool.close()


def seqs(path):
    dead = DeadFile.take(path)
    try:
        return [entry.first for entry in Reader(dead.read_at).entries()]
    finally:
        dead.close()


def test_the_file_is_ours_alone_and_all_of_it_is_there(make, folder):
    """Directory and file are closed to others; every block is allocated, so that no write can find the disk full."""
    old = os.umask(0)
    try:
        spool = make()
        spool.open()
    finally:
        os.umask(old)
    assert spool.failure == ""
    assert spool.path == f"{folder}/{RUN.hex()}.spool"
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    seen = os.stat(spool.path)
    assert stat.S_IMODE(seen.st_mode) == 0o600
    assert seen.st_size == module.spool_format.file_bytes(module.spool_format.ring_bytes(LIMIT))
    assert seen.st_blocks * 512 >= seen.st_size
    assert os.listdir(folder) == [f"{RUN.hex()}.spool"]
    before = spool.path
    spool.open()
    assert spool.path == before


def test_the_first_line_makes_the_file(make, folder):
    """Nothing is opened before it, as in a forked child that never logs."""
    spool = make()
    assert not os.path.exists(folder)
    spool.append(line(1))
    spool.append(line(2, "error"))
    frame = line(3)
    assert spool.has(frame) is False
    spool.append(frame)
    assert spool.has(frame) is True
    assert spool.has(line(3)) is False
    spool.close()
    assert seqs(spool.path) == [1, 2, 3]


def test_lost_lines_too(make):
    """They may be the first that there is to say."""
    spool = make()
    spool.append_lost(frames.lost(1, 2, "encode"))
    spool.append(line(3))
    spool.close()
    assert seqs(spool.path) == [1, 3]


def test_a_live_run_s_file_is_not_taken(make):
    """Also when every descriptor of the process was closed: the mapping keeps the lock."""
    spool = make()
    spool.append(line(1))
    assert DeadFile.take(spool.path) is None
    code = """
import os, sys
sys.path.insert(0, sys.argv[1])
from robo_trader.log_relay.spool import Spool, DeadFile
from robo_trader.log_relay import frames
run = b"x" * 16
hello = frames.hello(run=run, app="a", host="h", pid=1, started_ns=2)
spool = Spool(sys.argv[2], run=run, limit=1 << 18, make_hello=lambda: hello)
spool.open()
assert spool.path, spool.failure
os.closerange(3, 1024)
assert DeadFile.take(spool.path) is None
pid = os.fork()
if not pid:
    spool.close()
    os._exit(0)
os.waitpid(pid, 0)
assert DeadFile.take(spool.path) is None
other = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
spool.close()
assert [os.fstat(fd).st_rdev for fd in other]
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(module.__file__)))
    subprocess.run([sys.executable, "-c", code, root, spool.folder], check=True, timeout=DEADLINE_S)
    spool.close()
    dead = DeadFile.take(spool.path)
    assert dead is not None
    assert DeadFile.take(spool.path) is None, "one takes it"
    dead.close()


def test_a_file_that_was_delivered_meanwhile_is_not_taken(make, monkeypatch):
    """Two runs that start at once look at the same file; the second gets the lock of what the first has removed."""
    spool = make()
    spool.append(line(1))
    spool.close()
    flock = fcntl.flock

    def removed_first(fd, how):
        os.unlink(spool.path)
        flock(fd, how)

    monkeypatch.setattr(module.fcntl, "flock", removed_first)
    assert DeadFile.take(spool.path) is None
    monkeypatch.undo()
    assert DeadFile.take(spool.path) is None, "it is gone"


def test_no_descriptor_is_left(make, tmp_path):
    """Whatever became of the file."""
    before = set(os.listdir("/proc/self/fd"))
    spool = make()
    spool.append(line(1))
    spool.close()
    dead = DeadFile.take(spool.path)
    dead.close()
    dead.close()
    os.mkfifo(tmp_path / "fifo.spool")
    with pytest.raises(ValueError, match="no regular file"):
        DeadFile.take(str(tmp_path / "fifo.spool"))
    failed = make(folder="/proc/nowhere")
    failed.append(line(1))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_descriptor_that_became_somebody_else_s_is_not_closed(make, monkeypatch):
    """The mapping is left as it is then."""
    if sys.version_info >= (3, 13):
        pytest.skip("the mapping keeps no descriptor")
    monkeypatch.setattr(module, "_left_alone", [])
    spool = make()
    spool.append(line(1))
    copy = spool._mapping._copy
    assert copy >= 0
    other = os.open(os.devnull, os.O_RDONLY)
    kept = os.dup(copy)
    os.dup2(other, copy)
    spool.close()
    assert os.fstat(copy).st_rdev == os.fstat(other).st_rdev
    assert len(module._left_alone) == 1
    os.dup2(kept, copy)
    module._left_alone.pop().close()
    for fd in (other, kept):
        os.close(fd)
    spool = make(b"s" * 16)
    spool.append(line(1))
    spool.close()
    assert module._left_alone == []


@pytest.mark.parametrize("wrong", ["file", "writable", "link", "missing parent", "other"])
def test_a_directory_that_is_not_ours_alone_is_not_used(make, folder, tmp_path, monkeypatch, wrong):
    """Lines in it could be read or forged. The run goes on without."""
    if wrong == "file":
        open(folder, "w").close()
    elif wrong == "writable":
        os.mkdir(folder)
        os.chmod(folder, 0o770)
    elif wrong == "link":
        os.symlink(tmp_path, folder)
    elif wrong == "missing parent":
        folder = str(tmp_path / "no" / "spool")
    else:
        os.mkdir(folder)
        uid = os.getuid()
        monkeypatch.setattr(module.os, "getuid", lambda: uid + 1)
    spool = make(folder=folder)
    spool.append(line(1))
    spool.append_lost(frames.lost(2, 2, "encode"))
    assert spool.path == ""
    assert spool.failure.startswith("FileNotFoundError" if wrong == "missing parent" else "PermissionError")
    spool.acked(1, everything=True)
    spool.ended(everything=True)
    spool.ended(everything=False)


def test_a_disk_that_is_full_is_found_before_any_line(make, folder):
    """The half-made file is removed."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, old[1]))
    try:
        spool = make()
        spool.append(line(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert spool.failure.startswith("OSError: [Errno 27]")
    assert os.listdir(folder) == []
    spool.append(line(2))
    assert spool.path == "", "it is tried once"


def test_a_bot_that_dies_again_and_again_does_not_fill_the_disk(make, folder, monkeypatch):
    """Beyond so many files that wait for a relay it goes without. Those of runs that live do not count."""
    monkeypatch.setattr(module, "MAX_DEAD", 2)
    alive = [make(bytes([65 + n]) * 16) for n in range(3)]
    for spool in alive:
        spool.append(line(1))
        assert spool.path
    os.mkfifo(f"{folder}/other.spool")
    for spool in alive[:2]:
        spool.close()
    spool = make()
    spool.append(line(1))
    assert spool.failure.startswith("OSError: [Errno 122] 2 files of dead runs of this app wait to be delivered: ")
    os.unlink(alive[0].path)
    again = make()
    again.append(line(1))
    assert again.path


def test_what_other_apps_have_left_denies_nobody_the_spool(make, folder, monkeypatch):
    """Only their own next runs could take it away. Nor does what is no spool file count."""
    monkeypatch.setattr(module, "MAX_DEAD", 2)
    for number in range(3):
        run = bytes([65 + number]) * 16
        hello = frames.hello(run=run, app="other", host="h", pid=1, started_ns=2)
        dead = make(run, make_hello=lambda hello=hello: hello)
        dead.append(line(1))
        dead.close()
        with open(f"{folder}/{number}.spool", "wb") as file:
            file.write((b"", b"text" * 2_000, b"LRSPOOL1" + bytes(5_000))[number])
    assert dead.failure.startswith("OSError: [Errno 122]"), "its own do count"
    spool = make()
    spool.append(line(1))
    assert (spool.failure, bool(spool.path)) == ("", True)


def test_a_system_that_cannot_allocate_goes_without(make, monkeypatch):
    """A write that finds the disk full would end the process."""
    monkeypatch.delattr(module.os, "posix_fallocate")
    spool = make()
    spool.append(line(1))
    assert spool.failure.startswith("OSError: [Errno 38] this system cannot allocate")


def test_a_hello_that_cannot_be_made(make, folder):
    """Costs the spool, not the line."""
    spool = make(make_hello=lambda: 1 / 0)
    spool.append(line(1))
    assert spool.failure == "ZeroDivisionError: division by zero"
    spool = make(make_hello=lambda: bytes(5000))
    spool.append(line(1))
    assert spool.failure.startswith("ValueError: hello is too long")
    assert os.listdir(folder) == []


def test_an_error_while_writing_ends_the_taking_of_lines(make):
    """What is there stays, locked."""
    spool = make()
    spool.append(line(1))
    writer = spool._writer
    writer._view, view = None, writer._view
    spool.append(line(2))
    assert spool.failure.startswith("TypeError")
    writer._view = view
    spool.append(line(3))
    assert DeadFile.take(spool.path) is None
    writer.release()
    spool.close()
    assert seqs(spool.path) == [1]


def test_the_end_of_a_run(make, folder):
    """With everything acked the file goes; else it says that the run ended in order."""
    spool = make()
    spool.append(line(1))
    spool.ended(everything=False)
    spool.append(line(2))
    spool.close()
    dead = DeadFile.take(spool.path)
    assert Reader(dead.read_at).ended is True
    dead.remove()
    dead.remove()
    dead.close()
    spool = make(b"s" * 16)
    spool.append(line(1))
    spool.acked(1, everything=True)
    spool.ended(everything=True)
    assert os.listdir(folder) == []
    spool.append(line(2))
    spool.close()
    spool.append(line(3))
    assert spool.failure == ""
    assert os.listdir(folder) == []


def test_which_files_are_looked_at(make, folder, monkeypatch):
    """Spool files, the oldest first; one whose making was interrupted long ago is removed, others are left alone."""
    for run in (b"z" * 16, b"a" * 16):
        spool = make(run)
        spool.append(line(1))
        os.utime(spool.path)
    for name in ("README", "x.spool.torn", "fresh.spool.new"):
        open(f"{folder}/{name}", "w").close()
    monkeypatch.setattr(module.time, "time", lambda: os.stat(f"{folder}/fresh.spool.new").st_ctime + 59)
    names = [f"{folder}/{(letter * 16).hex()}.spool" for letter in (b"z", b"a")]
    assert candidates(folder) == names
    assert "fresh.spool.new" in os.listdir(folder)
    monkeypatch.setattr(module.time, "time", lambda: os.stat(f"{folder}/fresh.spool.new").st_ctime + 61)
    assert candidates(folder) == names
    assert sorted(os.listdir(folder))[-2:] == ["README", "x.spool.torn"] or "fresh.spool.new" not in os.listdir(folder)


def test_a_read_through_a_closed_descriptor_is_an_error(make):
    """Not somebody else's file."""
    spool = make()
    spool.append(line(1))
    spool.close()
    dead = DeadFile.take(spool.path)
    fd = dead._fd
    kept = os.dup(fd)
    other = os.open(os.devnull, os.O_RDONLY)
    os.dup2(other, fd)
    with pytest.raises(OSError, match="closed by somebody else"):
        dead.read_at(0, 10)
    dead.close()
    assert os.fstat(fd).st_rdev == os.fstat(other).st_rdev
    for number in (fd, kept, other):
        os.close(number)


def test_a_file_set_aside_is_not_found_again(make, folder):
    """Its name says why."""
    spool = make()
    spool.append(line(1))
    assert module.set_aside(spool.path, "torn") == spool.path + ".torn"
    assert candidates(folder) == []
