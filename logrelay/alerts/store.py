"""What alerts must not forget: position in the journal, what the engine remembers, and alerts on their way.

Owns: `Store`, a small SQLite file beside the journal, and who works on which alert. Position, engine and new alerts are
written in one transaction, so that a kill at any point neither loses an alert nor makes it twice. It must not know
rules or services. Read `alerts/retry` next.

An alert is `waiting`, or `sending` while it is on the wire, or `sent`. Who delivers one has a lock on its number, which
the kernel takes away from a process that has died. So whoever looks at an alert that is `sending` and whose lock is
free knows that it is in doubt: the service may have it or not.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from logrelay.alerts.retry import MAX_AGE_S, MAX_DOUBTS, MAX_WAITING
from logrelay.alerts.text import Message

LOCK_SUFFIX = "-lock"
"""Behind the name of the file: nothing is in it, the kernel's locks are on its bytes."""

OWNER_BYTE = 0
"""The byte of the lock file that the one process holds which judges lines; the others are numbers of alerts."""

BUSY_S = 10.0
"""How long to wait for another process that writes; each transaction takes milliseconds."""

LOOK_S = 0.2
"""How often it is looked whether the process before has let go."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remembered (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queue (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  rule TEXT NOT NULL,
  service TEXT NOT NULL,
  title TEXT NOT NULL,
  body TEXT NOT NULL,
  severity TEXT NOT NULL,
  cooldown_s REAL NOT NULL,
  state TEXT NOT NULL,
  tries INTEGER NOT NULL,
  due_at REAL NOT NULL,
  made_at REAL NOT NULL,
  doubtful INTEGER NOT NULL
);
"""


class Queued(NamedTuple):
    """An alert on its way to one service."""

    number: int
    rule: str
    service: str
    """A fingerprint of the service's URL: the file holds no secrets of services."""
    title: str
    body: str
    severity: str
    cooldown_s: float
    state: str
    tries: int
    due_at: float
    """Seconds since 1970."""
    made_at: float
    doubtful: int
    """Attempts after which the service may have had it."""


class Outgoing(NamedTuple):
    """An alert to be put into the queue."""

    rule: str
    service: str
    message: Message
    cooldown_s: float


_COLUMNS = ", ".join(Queued._fields)


class Store:
    """The file at `path`, which is made where there is none; ":memory:" keeps nothing. Belongs to one thread.

    `create` False: there has to be one, because an empty one would answer that nothing is waiting. `set_aside` is what
    a damaged file was renamed to that this one stands in for. Raises sqlite3.Error for a file that
    cannot be used, here and in every method.
    """

    def __init__(self, path: str, *, create: bool = True, set_aside: str = "") -> None:
        self.path = path
        self.set_aside = set_aside
        address = path
        if not create:
            address = f"{Path(path).absolute().as_uri()}?mode=rw"
        elif path != ":memory:":
            # SQLite gives its log the mode of the file. Alerts say what lines say, and are as private.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(address, timeout=BUSY_S, isolation_level=None, uri=not create)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a commit tells what the owner's phone has had
            self._db.execute("PRAGMA secure_delete = ON")  # what was sent is nobody's business any more
            self._db.executescript(_SCHEMA)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def check(self) -> None:
        """Raise sqlite3.DatabaseError, ValueError or TypeError where the file is damaged. Reads all of it."""
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise sqlite3.DatabaseError(str(found))
        cursor, remembered = self.load()
        if not isinstance(cursor, str) or not all(isinstance(body, dict) for body in remembered.values()):
            raise ValueError("what the alerts remember is not what was written")
        for alert in self.queued():
            texts, numbers = alert[1:6] + alert[7:8], (*alert[:1], alert[6], *alert[8:])
            if not all(isinstance(one, str) for one in texts) or not all(isinstance(n, int | float) for n in numbers):
                raise ValueError("an alert is not what was written")

    # --- who judges lines -------------------------------------------------------------------------------------------

    def load(self) -> tuple[str, dict[str, dict[str, Any]]]:
        """Return the position (an id, empty: none) and what the engine remembered."""
        found = self._db.execute("SELECT value FROM meta WHERE key = 'cursor'").fetchone()
        remembered = {name: json.loads(body) for name, body in self._db.execute("SELECT name, body FROM remembered")}
        return (found[0] if found else ""), remembered

    def commit(
        self,
        cursor: str,
        changes: Mapping[str, Mapping[str, Any] | None],
        alerts: Iterable[Outgoing],
        now: float,
        *,
        durable: bool = True,
    ) -> None:
        """Write the position, what has changed in the engine, and new alerts, all or nothing.

        Unless it is `durable`, a power cut may take it back, up to the next one that is: it does not wait for the disk,
        which others write to.
        """
        if not durable:
            self._db.execute("PRAGMA synchronous = NORMAL")
        try:
            with self._transaction():
                self._write(cursor, changes, alerts, now)
        finally:
            if not durable:
                self._db.execute("PRAGMA synchronous = FULL")

    def _write(
        self,
        cursor: str,
        changes: Mapping[str, Mapping[str, Any] | None],
        alerts: Iterable[Outgoing],
        now: float,
    ) -> None:
        if cursor:
            self._db.execute("REPLACE INTO meta VALUES ('cursor', ?)", (cursor,))
        for name, body in changes.items():
            if body is None:
                self._db.execute("DELETE FROM remembered WHERE name = ?", (name,))
            else:
                self._db.execute("REPLACE INTO remembered VALUES (?, ?)", (name, json.dumps(body)))
        for alert in alerts:
            self._db.execute(
                "INSERT INTO queue (rule, service, title, body, severity, cooldown_s, state, tries, due_at, "
                "made_at, doubtful) VALUES (?, ?, ?, ?, ?, ?, 'waiting', 0, ?, ?, 0)",
                (alert.rule, alert.service, *alert.message, alert.cooldown_s, now, now),
            )

    def queued(self) -> list[Queued]:
        """Return every alert that is not sent yet, the oldest first."""
        found = self._db.execute(f"SELECT {_COLUMNS} FROM queue WHERE state != 'sent' ORDER BY number")  # noqa: S608
        return [Queued(*row) for row in found]

    def forget_sent(self) -> None:
        """Take away what was sent."""
        if self._db.execute("SELECT 1 FROM queue WHERE state = 'sent' LIMIT 1").fetchone():
            self._db.execute("DELETE FROM queue WHERE state = 'sent'")

    def give_up(self, services: Iterable[str], now: float) -> dict[str, int]:
        """Take away alerts that are too old, too many, too often in doubt, or for a service that nobody names any more.

        Returns how many by rule.
        """
        wanted, given_up, waiting = set(services), dict[str, int](), dict[str, int]()
        for alert in reversed(self.queued()):
            if alert.state != "waiting":
                continue
            waiting[alert.service] = waiting.get(alert.service, 0) + 1
            in_vain = (
                alert.doubtful >= MAX_DOUBTS or now - alert.made_at > MAX_AGE_S + alert.doubtful * alert.cooldown_s
            )
            if in_vain or waiting[alert.service] > MAX_WAITING or alert.service not in wanted:
                self._db.execute("DELETE FROM queue WHERE number = ? AND state = 'waiting'", (alert.number,))
                given_up[alert.rule] = given_up.get(alert.rule, 0) + 1
        return given_up

    def move(self, rule: str, old: str, new: str) -> None:
        """Have the alerts of a rule that wait for one service go to another."""
        self._db.execute(
            "UPDATE queue SET service = ? WHERE rule = ? AND service = ? AND state != 'sent'", (new, rule, old)
        )

    # --- who delivers -----------------------------------------------------------------------------------------------

    def begin(self, number: int) -> Queued | None:
        """Return an alert that is waiting; None: it is not any more. To be called with its lock."""
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM queue WHERE number = ? AND state = 'waiting'",  # noqa: S608
            (number,),
        ).fetchone()
        return None if found is None else Queued(*found)

    def note_sending(self, number: int) -> None:
        """Write down that the alert goes onto the wire now."""
        self._db.execute("UPDATE queue SET state = 'sending', tries = tries + 1 WHERE number = ?", (number,))

    def note_sent(self, number: int) -> None:
        """Write down that the service has it. Its texts go."""
        self._db.execute("UPDATE queue SET state = 'sent', title = '', body = '' WHERE number = ?", (number,))

    def note_failed(self, number: int, due_at: float, *, doubtful: bool) -> None:
        """Write down that it is to be tried again at a time; `doubtful`: the service may have it."""
        self._db.execute(
            "UPDATE queue SET state = 'waiting', due_at = ?, doubtful = doubtful + ? WHERE number = ?",
            (due_at, int(doubtful), number),
        )

    def postpone(self, number: int, due_at: float) -> None:
        """Try an alert that is waiting not before a time."""
        self._db.execute(
            "UPDATE queue SET due_at = max(due_at, ?) WHERE number = ? AND state = 'waiting'", (due_at, number)
        )

    def resolve_doubts(self, locks: Locks, now: float) -> int:
        """Put alerts that are `sending` while nobody works on them back; returns how many are still worked on.

        Whether the service has such an alert is not known. It is sent again, once its cooldown has passed: so it comes
        at least once, and not twice within that time.
        """
        busy = 0
        for alert in self.queued():
            if alert.state != "sending":
                continue
            if not locks.take(alert.number):
                busy += 1
                continue
            # Whoever had the lock may have written the result meanwhile.
            self._db.execute(
                "UPDATE queue SET state = 'waiting', doubtful = doubtful + 1, due_at = ? "
                "WHERE number = ? AND state = 'sending'",
                (now + alert.cooldown_s, alert.number),
            )
            locks.release(alert.number)
        return busy

    # --- from one file to another -----------------------------------------------------------------------------------

    def copy_to(self, other: Store) -> None:
        """Make the other file what this one is."""
        self._db.backup(other._db)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


class Locks:
    """The locks on the bytes of a file: the kernel takes them away from who dies. `path` None: everything is free."""

    def __init__(self, path: str | None) -> None:
        self._fd = None if path is None else os.open(path + LOCK_SUFFIX, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, byte: int) -> bool:
        """Take a lock for the rest of this process's life; False: another process has it."""
        if self._fd is None:
            return True
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def wait(self, byte: int, *, unless: Callable[[], bool] = lambda: False) -> bool:
        """Take a lock, however long another process has it; False: `unless` has become true before."""
        while not self.take(byte):
            if unless():
                return False
            time.sleep(LOOK_S)
        return True

    def release(self, byte: int) -> None:
        """Give a lock back."""
        if self._fd is not None:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


def open_store(path: str) -> Store:
    """Open the file; one that is damaged is set aside, because alerts of tomorrow matter more than its own.

    `set_aside` of the store says so. Raises sqlite3.Error, or OSError, where there can be none.
    """
    try:
        store = Store(path)
        try:
            store.check()
        except BaseException:
            store.close()
            raise
    except (sqlite3.DatabaseError, ValueError, TypeError) as error:
        # What SQLite calls operational is the machine's: locked, full, not permitted. A text that is no UTF-8 is called
        # so by Python, and has no code of SQLite.
        if isinstance(error, sqlite3.OperationalError) and hasattr(error, "sqlite_errorcode"):
            raise
        aside = f"{path}.damaged-{int(time.time())}"
        with contextlib.suppress(OSError):
            Path(path).replace(aside)
        for companion in ("-wal", "-shm"):
            Path(path + companion).unlink(missing_ok=True)
        return Store(path, set_aside=aside)
    return store
