"""What a new journal file holds, how its connections are set up, and the steps between versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from logrelay.errors import JournalError
from logrelay.fanout.filters import Filter
from logrelay.fanout.positions import Epoch
from logrelay.journal import schema
from logrelay.journal.interface import Query
from logrelay.journal.sqlite import SqliteJournal
from logrelay.model import Commit


@pytest.fixture
def path(tmp_path):
    """An empty journal."""
    made = str(tmp_path / "journal.db")
    schema.create(made, epoch="abc123", base=7, created_us=42)
    return made


def ask(db, sql):
    return db.execute(sql).fetchone()[0]


def test_a_new_file_is_marked_and_knows_its_epoch(path, tmp_path):
    """Application, version, page size, write-ahead log, room that can be given back; the source of notices."""
    assert [p.name for p in tmp_path.iterdir()] == ["journal.db"], "no log is left behind"
    with closing(sqlite3.connect(path)) as db:
        assert ask(db, "PRAGMA application_id") == schema.APPLICATION_ID == int.from_bytes(b"logr", "big")
        assert ask(db, "PRAGMA user_version") == schema.VERSION
        assert ask(db, "PRAGMA page_size") == schema.PAGE_SIZE
        assert ask(db, "PRAGMA auto_vacuum") == 2, "incremental"
        assert ask(db, "PRAGMA journal_mode") == "wal"
        assert dict(db.execute("SELECT key, value FROM meta")) == {
            "epoch": "abc123",
            "base": 7,
            "oldest": 8,
            "created_us": 42,
        }
        assert db.execute("SELECT id, name FROM sources").fetchall() == [(0, "logrelay")]
        assert ask(db, "SELECT count(*) FROM log") == 0


def test_the_page_size_is_ours_and_not_that_of_sqlite(tmp_path, monkeypatch):
    """It is set before the first table is made."""
    monkeypatch.setattr(schema, "PAGE_SIZE", 8192)
    path = tmp_path / "journal.db"
    schema.create(str(path), epoch="abc123", base=0, created_us=0)
    with closing(sqlite3.connect(path)) as db:
        assert ask(db, "PRAGMA page_size") == 8192


def test_a_file_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    """Tables and version come in one transaction."""
    monkeypatch.setattr(schema, "_TABLES", schema._TABLES + "CREATE TABLE lines (x);")
    path = tmp_path / "journal.db"
    with pytest.raises(sqlite3.Error):
        schema.create(str(path), epoch="abc123", base=0, created_us=0)
    with closing(sqlite3.connect(path)) as db:
        assert ask(db, "SELECT count(*) FROM sqlite_schema") == 0
        assert ask(db, "PRAGMA user_version") == 0


@pytest.mark.parametrize(("more", "refused"), [(1, True), (0, False), (-1, False)])
def test_an_sqlite_that_is_too_old_is_refused(tmp_path, monkeypatch, more, refused):
    """Before anything is made; trying again is no use."""
    major, minor, patch = sqlite3.sqlite_version_info
    monkeypatch.setattr(schema, "OLDEST_SQLITE", (major, minor, patch + more))
    path = tmp_path / "journal.db"
    if not refused:
        schema.create(str(path), epoch="abc123", base=0, created_us=0)
        assert path.exists()
        return
    with pytest.raises(JournalError) as caught:
        schema.create(str(path), epoch="abc123", base=0, created_us=0)
    assert str(caught.value) == (
        f"SQLite {sqlite3.sqlite_version} is too old; at least {major}.{minor}.{patch + 1} is needed"
    )
    assert caught.value.retry is False
    assert not path.exists()


@pytest.mark.parametrize(("full", "synchronous"), [(True, 2), (False, 1)])
def test_the_connection_that_writes(path, full, synchronous):
    """Checkpoints by hand, a bounded log and cache, nothing overwritten, nothing on the disk for sorting."""
    with closing(schema.connect_writer(path, full=full, log_bytes=12345)) as db:
        assert ask(db, "PRAGMA synchronous") == synchronous
        assert ask(db, "PRAGMA cache_size") == -schema.WRITER_CACHE_KIB
        assert ask(db, "PRAGMA wal_autocheckpoint") == 0
        assert ask(db, "PRAGMA journal_size_limit") == 12345
        assert ask(db, "PRAGMA secure_delete") == 0
        assert ask(db, "PRAGMA temp_store") == 2, "memory"
        assert ask(db, "PRAGMA busy_timeout") == schema.BUSY_S * 1000
        assert db.isolation_level is None
        db.execute("INSERT INTO aliases (alias) VALUES ('x')")
        assert not db.in_transaction, "transactions are begun by hand"


def test_the_connection_that_reads(path):
    """It cannot write, even where the file is opened for it."""
    with closing(schema.connect_reader(f"file:{path}")) as db:
        assert ask(db, "PRAGMA cache_size") == -schema.READER_CACHE_KIB
        assert ask(db, "PRAGMA query_only") == 1
        assert ask(db, "PRAGMA temp_store") == 2
        assert ask(db, "PRAGMA busy_timeout") == schema.BUSY_S * 1000
        assert db.isolation_level is None
        with pytest.raises(sqlite3.OperationalError):
            db.execute("INSERT INTO aliases (alias) VALUES ('x')")


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_a_connection_may_be_used_by_another_thread_and_keeps_its_statements(path, monkeypatch, role):
    """The journal's thread is not the one that opens it."""
    given = {}

    def connect(*args, **kwargs):
        given.update(kwargs)
        raise sqlite3.OperationalError("enough")

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(sqlite3.OperationalError):
        if role == "writer":
            schema.connect_writer(path, full=False, log_bytes=0)
        else:
            schema.connect_reader(f"file:{path}")
    assert given["check_same_thread"] is False
    assert given.get("uri", False) is (role == "reader"), "only readers open a URI, with a mode in it"
    assert given["cached_statements"] == schema.STATEMENTS


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_a_connection_that_cannot_be_set_up_is_closed(monkeypatch, role):
    """No file stays open behind an error."""
    closed = []

    class Broken:
        def execute(self, sql):
            raise sqlite3.OperationalError(sql)

        def close(self):
            closed.append(True)

    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: Broken())
    with pytest.raises(sqlite3.OperationalError):
        if role == "writer":
            schema.connect_writer("x", full=False, log_bytes=0)
        else:
            schema.connect_reader("file:x")
    assert closed == [True]


VERSION_1 = """
CREATE TABLE lines (
    seq INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, level INTEGER NOT NULL, source INTEGER NOT NULL,
    run INTEGER NOT NULL, body TEXT NOT NULL
);
CREATE INDEX lines_warning ON lines (seq, level, source) WHERE level >= 30 OR source = 0;
CREATE INDEX lines_source ON lines (source);
CREATE TABLE marks (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, relay_us INTEGER NOT NULL,
    min_us INTEGER NOT NULL, max_us INTEGER NOT NULL,
    debug INTEGER NOT NULL, info INTEGER NOT NULL, warning INTEGER NOT NULL, error INTEGER NOT NULL,
    critical INTEGER NOT NULL
);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, app TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    started_ns INTEGER NOT NULL, last_seq INTEGER NOT NULL, last_us INTEGER NOT NULL, state TEXT NOT NULL,
    seen_us INTEGER NOT NULL
);
CREATE TABLE aliases (ordinal INTEGER PRIMARY KEY, alias TEXT NOT NULL UNIQUE);
CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE VIEW log AS SELECT l.seq AS seq, r.app AS app FROM lines AS l LEFT JOIN runs AS r ON r.id = l.run;
INSERT INTO sources VALUES (0, 'logrelay'), (1, 'core');
INSERT INTO meta VALUES ('epoch', 'old123'), ('base', 0), ('created_us', 42);
INSERT INTO runs VALUES
    (1, x'01010101010101010101010101010101', 'one', 'host', 11, 1, 1, 1000, 'closed', 1),
    (2, x'02020202020202020202020202020202', 'two', 'host', 22, 1, 1, 2000, 'closed', 1);
INSERT INTO lines VALUES
    (1, 1000, 20, 1, 1, '{"type":"log","id":"old123-1","level":"INFO","source":"core","message":"m","context":{}}'),
    (2, 2000, 20, 1, 2, '{"type":"log","id":"old123-2","level":"INFO","source":"core","message":"m","context":{}}');
INSERT INTO marks VALUES (1, 2, 2000, 1000, 2000, 0, 2, 0, 0, 0);
PRAGMA user_version = 1;
"""
"""A journal as version 1 wrote it, with two lines of two bots that have the same logger."""


def test_a_journal_of_version_1_is_upgraded_in_place(tmp_path, line):
    """Its lines stay, and the filter by app finds them by their run; new ones have the app with their logger."""
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        db.executescript(VERSION_1)
        db.execute("PRAGMA journal_mode = WAL").fetchall()
    epochs = [Epoch("old123", 1, shared=True)]
    for expected, name in ([1], "new123"), ([1, 3], "new124"):
        journal = SqliteJournal(str(path), now_us=lambda: 3000, random_epoch=lambda name=name: name)
        opening = journal.open()
        assert (opening.epoch, opening.earlier) == (name, epochs)
        epochs = [*epochs, Epoch(name, 3)]
        assert [run.app for run in opening.runs] == ["one", "two"]
        assert [notice[:56] for notice in opening.notices] == (
            ["The journal was upgraded in place from schema version 1 "] if expected == [1] else []
        )
        assert journal.page(Query(0, 9, 9, Filter(apps=("one",)))).seqs == expected
        if opening.head == 2:
            journal.append(Commit([line(3, source="core", app="one"), line(4, source="core", app="three")]))
        assert journal.page(Query(0, 9, 9, Filter(apps=("one",)))).seqs == [1, 3]
        assert journal.page(Query(0, 9, 9, Filter(apps=("t*",)))).seqs == [2, 4]
        assert journal.page(Query(0, 9, 9, Filter(sources=("core",)))).seqs == [1, 2, 3, 4]
        journal.close()
    with closing(sqlite3.connect(path)) as db:
        assert ask(db, "PRAGMA user_version") == schema.VERSION
        assert db.execute("SELECT seq, app FROM log").fetchall() == [(1, "one"), (2, "two"), (3, "one"), (4, "three")]


class TestMigrate:
    @pytest.fixture
    def db(self, path):
        """An open journal of today's version."""
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            yield db

    def test_a_journal_of_today_is_left_alone(self, db, monkeypatch):
        """Also one that is newer: whoever opens it refuses it."""
        monkeypatch.setattr(schema, "MIGRATIONS", None)
        schema.migrate(db)
        db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        schema.migrate(db)
        assert ask(db, "PRAGMA user_version") == schema.VERSION + 1

    def test_every_step_in_a_transaction_of_its_own(self, db, monkeypatch):
        """Each sees the version before it; a failing one is undone, the ones before it stay."""
        seen = []

        def step(db):
            version = ask(db, "PRAGMA user_version")
            seen.append((version, db.in_transaction))
            db.execute(f"CREATE TABLE t{version} (x)")
            if version == schema.VERSION - 1 and len(seen) < 4:
                raise sqlite3.OperationalError("no")

        db.execute("PRAGMA user_version = 1")
        monkeypatch.setattr(schema, "VERSION", 4)
        monkeypatch.setattr(schema, "MIGRATIONS", {1: step, 2: step, 3: step})
        with pytest.raises(sqlite3.OperationalError, match="no"):
            schema.migrate(db)
        assert seen == [(1, True), (2, True), (3, True)]
        assert ask(db, "PRAGMA user_version") == 3
        assert not db.in_transaction

        schema.migrate(db)
        assert seen[3:] == [(3, True)]
        assert ask(db, "PRAGMA user_version") == 4
        assert not db.in_transaction

    def test_an_error_that_ended_the_transaction_is_the_one_that_is_raised(self, db, monkeypatch):
        """SQLite rolls back by itself on some errors: there is nothing left to undo."""

        def step(db):
            db.execute("ROLLBACK")
            raise sqlite3.OperationalError("disk full")

        db.execute("PRAGMA user_version = 1")
        monkeypatch.setattr(schema, "VERSION", 2)
        monkeypatch.setattr(schema, "MIGRATIONS", {1: step})
        with pytest.raises(sqlite3.OperationalError, match="disk full"):
            schema.migrate(db)

    def test_another_writer_is_kept_out_from_the_beginning(self, db, path, monkeypatch):
        """A step must not find out at its end that somebody else wrote."""
        db.execute("PRAGMA user_version = 1")
        monkeypatch.setattr(schema, "VERSION", 2)

        def step(_db):
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("BEGIN IMMEDIATE")

        monkeypatch.setattr(schema, "MIGRATIONS", {1: step})
        schema.migrate(db)
        assert ask(db, "PRAGMA user_version") == 2
