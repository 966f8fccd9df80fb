"""Read-only connections, lent to whoever reads.

Owns: the pool, and the moment in which nobody reads. It must not know SQL. Read `fanout/hub` next: the
lines are kept now, and the pipeline publishes them.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import Condition
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator


class ConnectionPool:
    """Lends a connection to each reader; there are as many as there ever were readers at once. Any thread."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect` opens another connection; nothing is lent before `open`."""
        self._connect = connect
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._open = False
        self._changed = Condition()

    def open(self) -> None:
        """Let readers in."""
        with self._changed:
            self._open = True

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection | None]:
        """Lend a connection, None when closed. One whose reader failed is closed, not lent again."""
        with self._changed:
            if not self._open:
                allowed, db = False, None
            else:
                allowed, db = True, self._idle.pop() if self._idle else None
                self._lent += 1
        if not allowed:
            yield None
            return
        sound = False
        try:
            if db is None:
                db = self._connect()
            yield db
            sound = True
        finally:
            if db is not None and not sound:
                db.close()
            with self._changed:
                if db is not None and sound:
                    self._idle.append(db)
                self._lent -= 1
                self._changed.notify_all()

    def drain(self) -> None:
        """Let no reader in, wait for those inside (a page takes some 50 ms), close their connections.

        It matters that none is left: the last connection to a deleted file removes a log by its *name*.
        """
        with self._changed:
            self._open = False
            while self._lent:
                self._changed.wait()
            for db in self._idle:
                db.close()
            self._idle.clear()
