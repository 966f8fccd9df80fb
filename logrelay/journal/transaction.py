"""One transaction that writes to the journal's file: all or nothing.

Owns: `Transaction`: begun, committed or taken back, and what its errors become. It must not know what is written.
Read `journal/sqlite_errors` next: what the errors mean.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from logrelay.errors import JournalError
from logrelay.journal import sqlite_errors


class Transaction:
    """Committed behind its block, taken back when that raises. Errors become ours.

    A class and not a generator, which would take a third of the time of a commit of one line.
    """

    __slots__ = ("_db", "_path")

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db, self._path = db, path

    def __enter__(self) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise sqlite_errors.from_sqlite(error, self._path) from error

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error as failed:
                self._roll_back()
                raise sqlite_errors.from_sqlite(failed, self._path) from failed
            except BaseException:
                self._roll_back()
                raise
            return
        self._roll_back()
        if isinstance(error, (TypeError, ValueError, OverflowError)):
            raise JournalError(f"journal {self._path} cannot hold this value: {error}", retry=False) from error
        if isinstance(error, sqlite3.Error):
            raise sqlite_errors.from_sqlite(error, self._path) from error
        if isinstance(error, OSError):
            raise sqlite_errors.from_os(error, self._path) from error

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
