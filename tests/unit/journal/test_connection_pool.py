"""Readers are lent connections while the pool is open; when it is drained, nobody holds one and none is left."""

from __future__ import annotations

import threading

import pytest

from logrelay.journal.connection_pool import ConnectionPool
from tests.support.threads import join
from tests.support.waiting import DEADLINE_S


class Connection:
    """Stands in for a connection of sqlite3."""

    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


@pytest.fixture
def made():
    """Every connection that was opened, in order."""
    return []


@pytest.fixture
def pool(made):
    def connect():
        made.append(Connection())
        return made[-1]

    return ConnectionPool(connect)


def test_nothing_is_lent_before_the_pool_is_open(pool, made):
    """A reader is told so by None, and no connection is opened for it."""
    with pool.lend() as db:
        assert db is None
    assert made == []
    pool.open()
    with pool.lend() as db:
        assert db is made[0]


def test_a_connection_is_lent_again_and_not_to_two_at_once(pool, made):
    """There are as many connections as there ever were readers at once."""
    pool.open()
    for _ in range(3):
        with pool.lend() as one, pool.lend() as two:
            assert one is not two
            assert {one, two} == set(made)
    assert len(made) == 2
    assert [db.closed for db in made] == [0, 0]


def test_a_connection_whose_reader_failed_is_closed(pool, made):
    """Its transaction may hang open: the next reader gets another one, and the error passes through."""
    pool.open()
    with pytest.raises(ZeroDivisionError), pool.lend():
        raise ZeroDivisionError
    assert made[0].closed == 1
    with pool.lend() as db:
        assert db is made[1]
    pool.drain()
    assert [db.closed for db in made] == [1, 1]


def test_a_connection_that_cannot_be_opened_blocks_nobody():
    """The reader gets the error; the pool can be drained, it does not wait for the one who failed."""

    def connect():
        raise OSError("no such file")

    pool = ConnectionPool(connect)
    pool.open()
    with pytest.raises(OSError, match="no such file"), pool.lend():
        pass
    pool.drain()


def test_draining_closes_everything_and_lets_nobody_in(pool, made):
    """Also a second time; after another opening new connections are made."""
    pool.open()
    with pool.lend(), pool.lend():
        pass
    pool.drain()
    pool.drain()
    assert [db.closed for db in made] == [1, 1]
    with pool.lend() as db:
        assert db is None
    pool.open()
    with pool.lend() as db:
        assert db is made[2]


def test_draining_waits_for_those_inside(pool, made):
    """The last connection to a file must be closed before the file is replaced: nobody may still read then."""
    pool.open()
    inside, leave, drained = threading.Event(), threading.Event(), threading.Event()

    def read():
        with pool.lend():
            inside.set()
            leave.wait(DEADLINE_S)

    def drain():
        pool.drain()
        drained.set()

    reader, drainer = threading.Thread(target=read), threading.Thread(target=drain)
    try:
        reader.start()
        assert inside.wait(DEADLINE_S)
        drainer.start()
        while pool._open:
            pass
        with pool.lend() as db:
            assert db is None, "a newcomer was let in while the pool is drained"
        assert not drained.is_set()
        assert made[0].closed == 0
    finally:
        leave.set()
        join(reader, *([drainer] if drainer.ident else []))
    assert drained.is_set()
    assert made[0].closed == 1
