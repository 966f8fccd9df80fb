"""A backup that is taken while the relay writes, and put back as docs/upkeep.md says."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.support.chaos.relay import Relay
from tests.support.waiting import DEADLINE_S

ROOT = Path(__file__).parents[2]


def send(relay: Relay, *lines: str) -> None:
    command = [sys.executable, "-m", "logrelay", "send", "--socket", str(relay.socket), "--app", "bot", "--stdin"]
    command.append(f"--timeout={DEADLINE_S:g}")
    subprocess.run(command, input="\n".join(lines), text=True, check=True, cwd=ROOT, timeout=2 * DEADLINE_S)


def test_a_backup_is_whole_and_can_be_put_back(tmp_path):
    """Its lines are in the view `log`; the relay goes on with them under the same ids, and tells of the others."""
    relay = Relay(tmp_path).start()
    try:
        send(relay, *(f"before {n}" for n in range(100)))
        copy = tmp_path / "copy.db"
        with closing(sqlite3.connect(relay.journal)) as live, closing(sqlite3.connect(copy)) as target:
            live.backup(target)  # what .backup of the sqlite3 program calls
        send(relay, "after")
        status, body = relay.get("/logs?notices=no&limit=1000")[:2]
        assert (status, body.count(b"\n")) == (200, 101)
        query = re.search(r'sqlite3 -readonly \S+ "(.*?)"', (ROOT / "docs" / "upkeep.md").read_text())[1]
        with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as db:
            rows = db.execute(query.replace("level = 'ERROR'", "message LIKE 'before%'")).fetchall()
        assert [row[3] for row in rows] == [f"before {n}" for n in range(99, 79, -1)]
        checked = subprocess.run(
            [sys.executable, "-m", "logrelay", "check", "--verify-journal", "--journal", copy],
            cwd=ROOT, timeout=DEADLINE_S,
            capture_output=True, check=False,
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout

        relay.stop()
        for end in ("", "-wal", "-shm"):
            Path(f"{relay.journal}{end}").unlink(missing_ok=True)
        shutil.copy(copy, relay.journal)
        os.chmod(relay.journal, 0o600)
        relay.start()
        kept = relay.get("/logs?notices=no&limit=1000&app=bot")[1]
        assert [b"before" in row for row in kept.splitlines()] == [True] * 100
        assert b'"code":"unsynced"' in relay.get(f"/logs?after={last_id(body)}")[1]
    finally:
        relay.end()


def last_id(body: bytes) -> str:
    """Return the id of the last line that was shown before."""
    return re.findall(rb'"id":"([^"]+)"', body)[-1].decode()
