"""The journal file is deleted, damaged, read-only, newer than the program, or not a journal at all."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import sys

import pytest

from tests.support.chaos.ledger import Ledger, check_accounted, check_trader, check_viewer, private_notices
from tests.support.chaos.scale import chance
from tests.support.waiting import wait_for

REFUSED = 4
"""Exit code: the journal cannot be used (logrelay serve --help)."""


def logged(viewer, trader) -> list[int]:
    """Return the numbers of the trader's lines the viewer has, in the order in which they came."""
    mark = f'"feeder":"{trader.name}"'.encode()
    return [got.data["context"]["n"] for got in viewer.lines if mark in got.raw]


def companions(path) -> list:
    """Return the files a journal consists of."""
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm") if path.with_name(path.name + end).exists()]


def refused(relay, *words: str) -> None:
    """Start a relay that must refuse: exit code 4, one line that a person can act on, no traceback."""
    said = len(relay.said)
    relay.spawn()
    assert relay.wait() == REFUSED, relay.tell()
    assert len(relay.said) == said + 1, relay.tell()
    for word in (str(relay.journal), *words):
        assert word in relay.said[-1], relay.said[-1]
    assert not relay.socket.exists(), "a relay that refuses to start leaves no log socket"


def test_journal_deleted_under_the_running_relay(scene):
    """rm of the journal while the relay runs: no line is lost, the file is there again, and the stream says so."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(300)
    trader.wait_acked()
    for file in companions(relay.journal):
        file.unlink()
    trader.burst(300)
    trader.wait_acked()
    viewer.wait_for_notice(notice="relay", state="journal")
    trader.burst(300)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    viewer.wait_for_id(ledger.head)
    check_trader(ledger, "trader", 1, 900)
    check_viewer(viewer, ledger)
    new = scene.viewer(relay, name="new").start()
    new.wait_for_id(ledger.head)
    assert logged(new, trader) == list(range(1, 901))
    relay.restart()
    trader.close()
    trader.connect()
    trader.burst(5)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    check_trader(ledger, "trader", 1, 905)
    viewer.wait_for_id(ledger.head)
    viewer.stop()
    check_viewer(viewer, ledger)


def test_journal_directory_deleted_under_the_running_relay(scene):
    """rm -r of the journal's whole directory: the same, as far as the relay may make a directory."""
    place = scene.home / "state"
    relay = scene.relay(journal=place / "journal.db").start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(300)
    trader.wait_acked()
    shutil.rmtree(place)
    count = trader.burst(300)
    viewer.wait(lambda: len(logged(viewer, trader)) == count, "lines stopped")
    trader.wait_acked()
    viewer.wait_for_notice(notice="relay", state="journal")
    ledger = Ledger.read(relay.journal)
    viewer.wait_for_id(ledger.head)
    check_trader(ledger, "trader", 1, 600)
    check_viewer(viewer, ledger)


def damage(path, dice, *, keep_header: bool = True) -> None:
    """Write random bytes over a third of the file, in its middle; the write-ahead log goes with it."""
    size = path.stat().st_size
    assert size > 100_000, "the journal is too small to have a middle"
    begin = size // 3 if keep_header else 0
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(dice.randbytes(size // 3))


@pytest.mark.parametrize("keep_header", [True, False], ids=["middle", "header"])
def test_journal_damaged_while_the_relay_was_stopped(scene, keep_header):
    """Random bytes in the file: the relay starts, says what became of the file, and takes lines as ever.

    Nothing is silent: whoever wants the old lines is told that they are gone, or gets them.
    """
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(3000, padding="x" * 100)
    trader.wait_acked()
    viewer.wait(lambda: len(logged(viewer, trader)) == 3000, "not 3000 lines")
    first_id = viewer.lines[0].id
    assert relay.stop() == 0
    trader.close()
    damage(relay.journal, chance("damage"), keep_header=keep_header)
    relay.start()
    trader.connect()
    trader.burst(100)
    trader.wait_acked()
    # Somebody reads everything: what is unreadable comes to light now at the latest.
    reader = scene.viewer(relay, name="reader", after=first_id).start()
    reader.wait_for_id(viewer.place())
    trader.burst(100)
    trader.wait_acked()
    for watcher in (viewer, reader):
        watcher.wait(lambda w=watcher: logged(w, trader)[-1:] == [3200], "the stream stopped")
        watcher.stop()
    # Who watched all the time misses nothing; what the reader came too late for was told, number by number.
    assert logged(viewer, trader) == list(range(1, 3201))
    told = check_accounted(reader.lines, int(first_id.rpartition("-")[2]), reader.place())
    assert 0 < told < 2000, "two thirds of the file were readable"
    assert {notice["context"]["cause"] for notice in private_notices(reader.lines)} <= {"corrupt", "retention"}
    assert any(b'"state":"journal"' in got.raw for got in viewer.lines), "nobody said what became of the journal"
    aside = [file.name for file in scene.home.iterdir() if "corrupt" in file.name or "found" in file.name]
    assert aside, f"the damaged file was not set aside: {sorted(f.name for f in scene.home.iterdir())}"
    relay.restart()


def test_journal_damaged_under_the_running_relay(scene):
    """Random bytes while the relay runs: service goes on, no line logged afterwards is lost, and the stream says so."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(3000, padding="x" * 100)
    trader.wait_acked()
    viewer.wait(lambda: len(logged(viewer, trader)) == 3000, "not 3000 lines")
    # The lines are to be in the file itself and nowhere else: as long as the log has a page, nobody reads the file's.
    with contextlib.closing(sqlite3.connect(relay.journal)) as db:
        wait_for(lambda: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, "no checkpoint is possible")
    assert relay.journal.stat().st_size > 300_000
    damage(relay.journal, chance("damage running"))
    # Whoever reads the old lines finds out; until then the new ones are written behind the damage.
    reader = scene.viewer(relay, name="reader").start()
    with contextlib.suppress(OSError, http.client.HTTPException):  # an answer cut off is one way to find out
        relay.get("/logs?limit=100000")

    def told():
        trader.burst(10, padding="x" * 100)
        trader.step(0.01)
        return any(b'"state":"journal"' in got.raw for got in viewer.lines)

    viewer.wait(told, "nobody said that the journal is damaged")
    trader.wait_acked()
    trader.burst(10)
    trader.wait_acked()
    viewer.wait(lambda: len(logged(viewer, trader)) == trader.seq, "lines stopped")
    assert logged(viewer, trader) == list(range(1, trader.seq + 1))
    reader.wait(lambda: logged(reader, trader)[-1:] == [trader.seq], "the reader waits for ever")
    check_accounted(reader.lines, 0, reader.place())
    # A viewer that asks for everything now gets what is kept and hears of the rest.
    ledger = Ledger.read(relay.journal)
    kept = [e.data["context"]["n"] for e in ledger.of("trader")]
    assert kept == list(range(kept[0], trader.seq + 1))
    late = scene.viewer(relay, name="late", after=viewer.lines[0].id).start()
    late.wait(lambda: logged(late, trader)[-1:] == [trader.seq], "who resumes far back waits for ever")
    late.stop()
    there = {entry.seq for entry in ledger.entries}
    assert check_accounted(late.lines, 1, late.place()) == len(set(range(2, ledger.head + 1)) - there)
    wait_for(lambda: relay.get("/readyz")[0] == 200, relay.tell)


def test_journal_replaced_under_the_running_relay(scene):
    """Somebody moves another file into the journal's place: it is set aside untouched, nothing is lost."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(300)
    trader.wait_acked()
    other = scene.home / "other.db"
    other.write_bytes(b"dear diary\n" * 100)
    other.rename(relay.journal)
    trader.burst(300)
    trader.wait_acked()
    viewer.wait_for_notice(notice="relay", state="journal")
    ledger = Ledger.read(relay.journal)
    viewer.wait_for_id(ledger.head)
    check_trader(ledger, "trader", 1, 600)
    check_viewer(viewer, ledger)
    (aside,) = [file for file in scene.home.glob("journal.db.found-*") if not file.name.endswith(("-wal", "-shm"))]
    assert aside.read_bytes() == b"dear diary\n" * 100


@pytest.mark.parametrize("what", ["file", "half", "log", "copied over"])
def test_journal_truncated_in_place_under_the_running_relay(scene, what):
    """`: > journal.db`, `truncate -s`, cp over it: noticed although no line comes, and nothing that was acked is lost.

    The relay's memory still has the newest lines, and the write-ahead log more of them.
    """
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(300)
    trader.wait_acked()
    viewer.wait(lambda: len(logged(viewer, trader)) == 300, "not 300 lines")
    log = relay.journal.with_name(relay.journal.name + "-wal")
    if what == "copied over":
        relay.journal.write_bytes(b"dear diary\n" * 5000)
    else:
        path = log if what == "log" else relay.journal
        # Behind the pages that its header counts the file has room for more, which nobody would miss.
        pages = int.from_bytes(path.read_bytes()[28:32], "big")
        os.truncate(path, pages // 2 * 4096 if what == "half" else 0)
    viewer.wait_for_notice(notice="relay", state="journal")
    wait_for(lambda: relay.get("/healthz")[0] == 200, "the relay stays in trouble")
    trader.burst(300)
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    viewer.wait_for_id(ledger.head)
    check_trader(ledger, "trader", 1, 600)
    check_viewer(viewer, ledger)
    viewer.stop()
    relay.restart()
    new = scene.viewer(relay, name="new").start()
    new.wait_for_id(ledger.head)
    assert logged(new, trader) == list(range(1, 601))


def test_one_bit_in_a_line_is_told_as_a_gap(scene):
    """The relay starts, shows every other line as it was, and says which one is damaged; `check` says it, too."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(300)
    trader.wait_acked()
    viewer.wait(lambda: len(logged(viewer, trader)) == 300, "not 300 lines")
    viewer.stop()
    true = {got.id: got.raw for got in viewer.lines}
    trader.close()
    assert relay.stop() == 0
    victim = next(got for got in viewer.lines if b'"n":150,' in got.raw or b'"n":150}' in got.raw)
    with contextlib.closing(sqlite3.connect(relay.journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a relay that had no time for it leaves the log
    content = bytearray(relay.journal.read_bytes())
    content[content.index(b'"message":"', content.index(victim.raw)) + 12] ^= 4
    relay.journal.write_bytes(content)
    told = subprocess.run(
        [sys.executable, "-m", "logrelay", "check", "--verify-journal", "--journal", str(relay.journal)],
        capture_output=True,
        text=True,
    )
    number = victim.id.rpartition("-")[2]
    assert (told.returncode, f"damaged: 1 lines, numbers {number}" in told.stdout) == (4, True), told.stdout
    relay.start()
    status, body = relay.get("/logs?limit=100000")
    assert status == 200
    gaps = []
    for raw in body.splitlines():
        shape = json.loads(raw)
        if shape["id"] == victim.id:
            gaps.append(shape["context"])
        elif shape["id"] in true:
            assert raw == true[shape["id"]]
    assert gaps == [{"notice": "gap", "cause": "corrupt", "count": 1, "first": victim.id, "last": victim.id}]
    wait_for(lambda: any(f"gap: {victim.id}" in line for line in relay.said), relay.tell)


def test_newer_schema_is_refused_and_left_alone(scene):
    """After a downgrade the older relay refuses the newer file with one line and exit code 4, and does not touch it."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    trader.burst(10)
    trader.wait_acked()
    trader.bye()
    assert relay.stop() == 0
    with contextlib.closing(sqlite3.connect(relay.journal)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {version + 1}")
    content = relay.journal.read_bytes()
    refused(relay, "newer", str(version + 1))
    assert relay.journal.read_bytes() == content
    # And the newer one goes on where it was.
    with contextlib.closing(sqlite3.connect(relay.journal)) as db:
        db.execute(f"PRAGMA user_version = {version}")
    relay.start()
    check_trader(Ledger.read(relay.journal), "trader", 1, 10)


def test_foreign_sqlite_file_is_refused_and_left_alone(scene):
    """The path of another application's database: one line, exit code 4, not a byte changed."""
    relay = scene.relay()
    with contextlib.closing(sqlite3.connect(relay.journal)) as db:
        db.execute("CREATE TABLE trades (symbol TEXT, quantity INTEGER)")
        db.execute("INSERT INTO trades VALUES ('AAPL', 100)")
        db.commit()
    content = relay.journal.read_bytes()
    refused(relay, "another application")
    assert relay.journal.read_bytes() == content


def test_foreign_file_is_refused_and_left_alone(scene):
    """The path of a file that is no database at all: one line, exit code 4, not a byte changed."""
    relay = scene.relay()
    relay.journal.write_text("symbol,quantity\nAAPL,100\n" * 50)
    content = relay.journal.read_bytes()
    refused(relay)
    assert relay.journal.read_bytes() == content


def test_journal_of_a_running_relay_is_refused(scene):
    """A second relay on the same journal: one line that names the first, exit code 4; the first does not notice."""
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    second = scene.relay()
    second.socket = scene.home / "second.sock"
    refused(second, "another relay", str(relay.pid))
    trader.burst(10)
    trader.wait_acked()
    check_trader(Ledger.read(relay.journal), "trader", 1, 10)


def without_override(relay) -> None:
    """Have the relay run without root's power over file permissions; needs setpriv only when the tests run as root."""
    if os.geteuid() != 0:
        return
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("as root, permissions mean nothing without setpriv (util-linux)")
    caps = "-dac_override,-dac_read_search"
    wrapper = relay.home / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {setpriv} --bounding-set={caps} --inh-caps={caps} {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    relay.python = str(wrapper)


def test_read_only_journal_is_told_at_the_start(scene):
    """The journal may not be written when the relay starts: one line and exit code 4; the file is not harmed."""
    relay = scene.relay(journal=scene.home / "state" / "journal.db").start()
    trader = scene.trader(relay).connect()
    trader.burst(10)
    trader.wait_acked()
    trader.bye()
    assert relay.stop() == 0
    without_override(relay)
    place = relay.journal.parent
    for file in place.iterdir():
        file.chmod(0o444)
    place.chmod(0o555)
    scene.on_end(lambda: place.chmod(0o755))
    refused(relay)
    place.chmod(0o755)
    for file in place.iterdir():
        file.chmod(0o644)
    relay.start()
    check_trader(Ledger.read(relay.journal), "trader", 1, 10)


def test_read_only_file_system_under_the_running_relay(scene):
    """The file becomes immutable while the relay runs (as after an error of the disk): told, live, and healed later."""
    if os.geteuid() != 0 or shutil.which("chattr") is None:
        pytest.skip("an immutable file needs root and chattr; the file size limit test stands in for it")
    relay = scene.relay().start()
    trader = scene.trader(relay).connect()
    viewer = scene.viewer(relay).start()
    trader.burst(100)
    trader.wait_acked()
    # Not the -shm file: SQLite maps it, and the kernel answers a write to an immutable mapping with SIGBUS, which ends
    # any program that has a SQLite database in WAL mode open.
    files = [str(file) for file in companions(relay.journal) if not file.name.endswith("-shm")]

    def set_immutable(flag: str) -> None:
        done = subprocess.run(["chattr", flag, *files], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"this file system knows no immutable files: {done.stderr.strip()}")

    scene.on_end(lambda: subprocess.run(["chattr", "-i", *files], capture_output=True, check=False))
    set_immutable("+i")
    try:
        with open(files[1], "r+b") as file:
            file.write(b"")
        pytest.skip("an immutable file can be written here")
    except PermissionError:
        pass
    trader.burst(100)
    told = viewer.wait(
        lambda: trader.step() and (trader.acked >= 200 or any(b'"state":"trouble"' in got.raw for got in viewer.lines)),
        "neither kept nor told",
    )
    assert told
    viewer.wait(lambda: len(logged(viewer, trader)) == 200, "lines stopped")
    set_immutable("-i")
    trader.wait_acked()
    ledger = Ledger.read(relay.journal)
    viewer.wait_for_id(ledger.head)
    check_trader(ledger, "trader", 1, 200)
    check_viewer(viewer, ledger)
