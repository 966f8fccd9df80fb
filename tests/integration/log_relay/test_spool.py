"""The spool in real bots: what a dead one leaves, the next one delivers; a live one's file is nobody else's."""

import os
import signal
from pathlib import Path

import pytest

from robo_trader.log_relay import outbox
from tests.support.bots import Bot, run_bot
from tests.support.waiting import DEADLINE_S, wait_for


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


def files(folder):
    return sorted(path.name for path in folder.glob("*.spool"))


def complaints(peer):
    """Return what the peer complains of, but that a dead process's lines come from another one."""
    return [text for text in peer.complaints if "over a connection of" not in text]


def names(peer, run):
    return [event["event"] for _, _, _, event in peer.lines.get(bytes.fromhex(run), [])]


def test_off_unless_asked_for(ship, folder, monkeypatch, tmp_path):
    """No directory, no file; an empty variable or argument is none."""
    monkeypatch.setenv("LOGRELAY_SPOOL", "")
    assert ship()._out.spool is None
    monkeypatch.setenv("LOGRELAY_SPOOL", str(folder))
    assert ship(spool="")._out.spool is None
    assert not folder.exists()
    monkeypatch.chdir(tmp_path)
    assert ship(spool="spool")._out.spool.folder == str(folder), "the bot may go elsewhere"
    assert ship(spool=tmp_path / "spool")._out.spool.folder == str(folder)
    assert ship()._out.spool.folder == str(folder)


def test_a_bot_that_could_not_deliver_leaves_it_to_the_next(ship, make_peer, folder, capfd):
    """Every line under its own run, with a goodbye, as it had ended in order; what is there is said in plain words."""
    first = ship(spool=folder)
    for number in range(100):
        first(None, "error" if number % 9 == 0 else "info", {"event": f"line {number}"})
    run = first.stats()["run"]
    assert first.close(0.05) is False
    said = capfd.readouterr().err
    assert "100 of 100 lines NOT DELIVERED YET (" in said
    assert f"the next run sends them from {folder}/{run}.spool" in said
    with make_peer() as peer:
        second = ship(spool=folder)
        second(None, "info", {"event": "second"})
        wait_for(lambda: files(folder) == [f"{second.stats()['run']}.spool"], "the old file to be removed")
        assert names(peer, run) == [f"line {number}" for number in range(100)]
        assert peer.byes[bytes.fromhex(run)] == [100]
        assert second.close(DEADLINE_S) is True
        assert files(folder) == []
        assert complaints(peer) == []
    assert "100 lines that an earlier run (pid" in capfd.readouterr().err


@pytest.mark.parametrize("replaced", [False, True])
def test_a_spool_that_was_removed_is_not_promised(ship, folder, capfd, replaced):
    """The lines are lost with the process then, and a person reads just that; also if another file is in its place."""
    processor = ship(spool=folder)
    processor(None, "info", {"event": "x"})
    path = folder / f"{processor.stats()['run']}.spool"
    other = folder / "other"
    other.write_bytes(b"")
    path.unlink()
    if replaced:
        other.rename(path)
    assert processor.close(0.05) is False
    said = capfd.readouterr().err
    assert "1 of 1 lines NOT DELIVERED: 1 never left this process (" in said
    assert "the next run" not in said


def test_a_bot_that_delivered_everything_leaves_nothing(peer, sock, folder):
    """At its end, at close, and when its processor is thrown away; also one that said nothing."""
    code = """
LogRelayProcessor(SOCK, spool=sys.argv[2])
ship = LogRelayProcessor(SOCK, spool=sys.argv[2])
ship(None, "info", {"event": "thrown away"})
del ship
until(lambda: len(os.listdir(sys.argv[2])) == 0)
closed = LogRelayProcessor(SOCK, spool=sys.argv[2])
closed.close()
silent = LogRelayProcessor(SOCK, spool=sys.argv[2])
ship = LogRelayProcessor(SOCK, spool=sys.argv[2])
ship(None, "info", {"event": "x"})
"""
    bot = run_bot(code, sock, folder)
    assert (bot.code, bot.err, os.listdir(folder)) == (0, "", [])
    assert len(peer.events()) == 2


KILLED = """
ship = LogRelayProcessor(SOCK, app="test", spool=sys.argv[2])
tell(ship._run.hex())
for n in range(int(sys.argv[3])):
    ship(None, "info", {"event": f"line {n}"})
"""


def test_lines_that_were_sent_and_not_acked_are_kept_too(make_peer, ship, sock, folder):
    """The relay had read them and died with them, and so did the bot."""
    peer = make_peer()
    peer.acking = False
    peer.start()
    code = (
        KILLED
        + """
tell("sent")
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    with Bot(code, sock, folder, 50) as bot:
        run = bot.line()
        assert bot.line() == "sent"
        bot.wait()
    peer.stop()
    with make_peer() as other:
        ship(spool=folder)(None, "info", {"event": "next"})
        wait_for(lambda: len(names(other, run)) == 50, "the lines")
        assert names(other, run) == [f"line {n}" for n in range(50)]
        assert complaints(other) == []


def test_what_the_relay_has_is_not_repeated(make_peer, ship, sock, folder):
    """It acked nothing before the bot was killed, but took everything: the welcome says so."""
    peer = make_peer()
    peer.acking = False
    peer.start()
    with Bot(KILLED + "time.sleep(1000)", sock, folder, 50) as bot:
        run = bot.line()
        wait_for(lambda: len(names(peer, run)) == 50, "the lines")
    peer.acking = True
    ship(spool=folder)(None, "info", {"event": "next"})
    wait_for(lambda: len(files(folder)) == 1, "the old file to be removed")
    assert names(peer, run) == [f"line {n}" for n in range(50)]
    assert peer.repeats == 0
    assert complaints(peer) == []


def test_a_live_bot_s_file_is_left_alone(make_peer, ship, sock, folder):
    """However long it cannot deliver. Once it is dead the next look finds it."""
    with Bot(KILLED + "tell('there')\ntime.sleep(1000)", f"{sock}-elsewhere", folder, 20) as bot:
        run = bot.line()
        assert bot.line() == "there"
        with make_peer() as peer:
            processor = ship(spool=folder)
            processor(None, "info", {"event": "next"})
            assert processor.flush(DEADLINE_S)
            wait_for(lambda: not processor._sender._recovery.running, "the look to end")
            assert f"{run}.spool" in files(folder)
            assert names(peer, run) == []
            bot.kill()
            processor._sender._recovery._next_look = 0.0
            processor._sender.wake()
            wait_for(lambda: len(names(peer, run)) == 20, "the lines")


def test_another_app_s_lines_are_not_ours_to_send(make_peer, ship, sock, folder):
    """It may be redacted, or meant for another relay."""
    with Bot(KILLED.replace('"test"', '"other"') + "os._exit(0)", f"{sock}-elsewhere", folder, 5) as bot:
        run = bot.line()
        bot.wait()
    with make_peer() as peer:
        processor = ship(spool=folder)
        processor(None, "info", {"event": "next"})
        assert processor.close(DEADLINE_S)
        assert files(folder) == [f"{run}.spool"]
        assert names(peer, run) == []


def test_a_forked_child_has_a_file_of_its_own(make_peer, ship, sock, folder):
    """Made by its first line; it neither writes to its parent's nor releases it."""
    code = """
ship = LogRelayProcessor(SOCK, app="test", spool=sys.argv[2])
tell(ship._run.hex())
ship(None, "info", {"event": "parent 0"})
for n in range(3):
    pid = os.fork()
    if not pid:
        if n:
            ship(None, "info", {"event": "child"})
            tell(ship._run.hex())
        else:
            tell("silent")
        os._exit(0)
    os.waitpid(pid, 0)
    ship(None, "info", {"event": f"parent {n + 1}"})
tell(len(os.listdir(sys.argv[2])))
time.sleep(1000)
"""
    with Bot(code, f"{sock}-elsewhere", folder) as bot:
        parent = bot.line()
        assert bot.line() == "silent"
        children = [bot.line(), bot.line()]
        assert bot.line() == "3"
        with make_peer() as peer:
            processor = ship(spool=folder)
            processor(None, "info", {"event": "next"})
            wait_for(lambda: all(names(peer, run) for run in children), "the children's lines")
            assert [names(peer, run) for run in children] == [["child"], ["child"]]
            wait_for(lambda: not processor._sender._recovery.running, "the look to end")
            assert f"{parent}.spool" in files(folder)
            os.kill(bot.pid, signal.SIGKILL)
            bot.wait()
            processor._sender._recovery._next_look = 0.0
            processor._sender.wake()
            wait_for(lambda: names(peer, parent), "the parent's lines")
            wait_for(lambda: len(names(peer, parent)) == 4, "all of them")
            assert names(peer, parent) == [f"parent {n}" for n in range(4)]
            assert complaints(peer) == []


def test_a_child_that_lives_on_does_not_keep_its_parent_s_file(make_peer, ship, sock, folder):
    """The lock goes with the parent."""
    code = (
        KILLED
        + """
pid = os.fork()
if pid:
    os.kill(os.getpid(), signal.SIGKILL)
tell("child")
sys.stdin.readline()
"""
    )
    with Bot(code, f"{sock}-elsewhere", folder, 5) as bot:
        run = bot.line()
        assert bot.line() == "child"
        with make_peer() as peer:
            ship(spool=folder)(None, "info", {"event": "next"})
            wait_for(lambda: len(names(peer, run)) == 5, "the parent's lines")


def test_a_full_spool_keeps_what_the_outbox_keeps(make_peer, ship, sock, folder):
    """The oldest below WARNING go first; what is missing is told with its cause, nothing silently."""
    code = """
ship = LogRelayProcessor(SOCK, app="test", spool=sys.argv[2], max_bytes=1 << 22)
tell(ship._run.hex())
for n in range(30_000):
    ship(None, "error" if n % 300 == 0 else "info", {"event": n, "text": "x" * (n % 3_000)})
out = ship._out
assert not out.inbox
kept = [*out.sent_low, *out.sent_high, *out.unsent_low, *out.unsent_high]
tell(*(int.from_bytes(frame[3:11], "big") for frame in kept))
os.kill(os.getpid(), signal.SIGKILL)
"""
    with Bot(code, f"{sock}-elsewhere", folder) as bot:
        run = bytes.fromhex(bot.line())
        kept = set(map(int, bot.line().split()))
        bot.wait()
    with make_peer() as peer:
        ship(spool=folder)(None, "info", {"event": "next"})
        wait_for(lambda: peer.last[run] == 30_000, "the last line")
        seqs = [seq for seq, *_ in peer.lines[run]]
        assert kept <= set(seqs)
        assert {n + 1 for n in range(0, 30_000, 300)} <= set(seqs), "errors outlive the others"
        assert seqs == sorted(set(seqs))
        lost = sum(last - first + 1 for first, last, cause in peer.lost[run])
        assert len(seqs) + lost == 30_000
        assert {cause for *_, cause in peer.lost[run]} == {"overflow"}
        assert complaints(peer) == []


def test_lines_that_could_not_be_encoded_are_told_by_the_next_run(make_peer, ship, sock, folder, monkeypatch):
    """With their own cause."""
    first = ship(spool=folder)
    first(None, "info", {"event": "one"})
    first._count_unencoded()
    first(None, "info", {"event": "two"})
    run = bytes.fromhex(first.stats()["run"])
    first.close(0.0)
    with make_peer() as peer:
        ship(spool=folder)(None, "info", {"event": "next"})
        wait_for(lambda: peer.last[run] == 3, "the lines")
        assert peer.lost[run] == [(2, 2, "encode")]


def test_threads_that_log_at_once_lose_nothing(make_peer, ship, sock, folder):
    """A call that finds another one in the middle sees to it that its line is in the file before it returns."""
    code = """
sys.setswitchinterval(1e-5)
ship = LogRelayProcessor(SOCK, app="test", spool=sys.argv[2])
tell(ship._run.hex())
counts = [0] * 4
def log(thread):
    for n in range(2_000):
        ship(None, "info", {"event": "x", "thread": thread, "n": n})
        counts[thread] = n + 1
threads = [threading.Thread(target=log, args=(t,), daemon=True) for t in range(4)]
for thread in threads: thread.start()
until(lambda: sum(counts) > 3_000)
assert not ship._out.dirty
tell(*counts)
until(lambda: not ship._out.inbox)  # who has the outbox may stand still for longer than a call waits for it
os.kill(os.getpid(), signal.SIGKILL)
"""
    with Bot(code, f"{sock}-elsewhere", folder) as bot:
        run = bytes.fromhex(bot.line())
        counts = list(map(int, bot.line().split()))
        bot.wait()
    with make_peer() as peer:
        ship(spool=folder)(None, "info", {"event": "next"})
        wait_for(lambda: len(files(folder)) == 1, "the old file to be removed")
        lines = peer.lines[run]
        for thread, count in enumerate(counts):
            numbers = [event["n"] for *_, event in lines if event["thread"] == thread]
            assert numbers == list(range(len(numbers)))
            assert len(numbers) >= count
        assert peer.lost.get(run, []) == []


def test_whoever_has_the_baton_is_given_a_moment_only(ship, folder, monkeypatch):
    """A call waits for nobody: it looks a few times."""
    processor = ship(spool=folder)
    slept = []
    monkeypatch.setattr(outbox.time, "sleep", slept.append)
    del processor._out.baton[0]
    processor._out.inbox.append((1, b"\xa4info", b"\x80"))
    processor._out.wait_for_spool()
    assert slept == [outbox.POLL_FIRST_S] * outbox.SPOOL_LOOKS
    processor._out.baton += (None,)
    processor._out.wait_for_spool()
    assert not processor._out.inbox


def test_a_call_that_finds_another_in_the_middle_waits_for_the_file(ship, folder, monkeypatch):
    """The other is over in a moment: then the line is in the file before the call returns."""
    processor = ship(spool=folder)
    out = processor._out
    monkeypatch.setattr(processor, "_start", lambda: None)
    monkeypatch.setattr(outbox.time, "sleep", lambda _: out.baton.append(None))
    del out.baton[0]
    processor(None, "info", {"event": "x"})
    assert out.spool._last[3:11] == (1).to_bytes(8, "big")


@pytest.mark.parametrize("wrong", ["missing", "shared"])
def test_a_directory_that_cannot_be_used_is_said_once(peer, sock, tmp_path, wrong):
    """The bot runs without, and its lines arrive."""
    folder = Path(tmp_path / "no" / "spool")
    if wrong == "shared":
        folder.mkdir(parents=True)
        folder.chmod(0o777)
    bot = run_bot(KILLED, sock, folder, 300)
    assert bot.code == 0
    assert bot.err.count("no spool in") == 1
    assert f"no spool in {folder} (" in bot.err
    assert bot.err.endswith("going on without it\n")
    assert len(peer.events()) == 300


def test_a_descriptor_closed_by_somebody_else_costs_no_line_its_place_in_the_file(ship, peer, folder):
    """The line was not even offered to the kernel."""
    processor = ship(spool=folder)
    processor(None, "info", {"event": "one"})
    wait_for(lambda: processor._out.direct_send is not None and processor.stats()["acked"] == 1, "to be up")
    processor._out.direct_mark = -2
    processor(None, "info", {"event": "two"})
    assert processor._out.spool._last[3:11] == (2).to_bytes(8, "big")
    assert processor.flush(DEADLINE_S)
