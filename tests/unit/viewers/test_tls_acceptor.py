"""TLS handshakes have places of their own: too many cut the oldest, the good ones get through, the end cuts all."""

from __future__ import annotations

import asyncio
import errno
import socket
from functools import wraps

import pytest

from logrelay import budgets
from logrelay.tls import TlsFiles
from logrelay.viewers import tls_acceptor
from logrelay.viewers.tls_acceptor import TlsAcceptor
from tests.support.certificates import Authority
from tests.support.waiting import DEADLINE_S


def on_a_loop(test):
    """Run a test that takes fixtures on a loop of its own."""

    @wraps(test)
    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    return run


class Greeter(asyncio.Protocol):
    """Says hello when the handshake is complete, and closes."""

    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


class Memory:
    """Counts the connections that ended before they began."""

    ended = 0

    def connection_ended(self):
        self.ended += 1


class Door:
    """An acceptor on a free port."""

    def __init__(self, authority, listener=None):
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.client = authority.client()
        self.memory = Memory()
        self.cut = 0
        self._writers = []
        self.acceptor = TlsAcceptor(
            self.listener,
            TlsFiles(*map(str, authority.issue("relay"))).context,
            Greeter,
            handshake_s=DEADLINE_S,
            goodbye_s=DEADLINE_S,
            exceeded=self.exceeded,
            memory=self.memory,
            loop=asyncio.get_running_loop(),
        )
        self.acceptor.begin()

    def exceeded(self):
        self.cut += 1

    async def idle(self, host="127.0.0.1"):
        """Connect from an address and say nothing; return when a place is taken."""
        before = self.acceptor.count + self.cut
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(host, 0))
        self._writers.append(writer)
        await until(lambda: self.acceptor.count + self.cut > before)
        return reader, writer

    async def close(self):
        """Close both ends, and wait until they are."""
        self.acceptor.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def greeting(self):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.client, server_hostname="localhost"
        )
        text = await asyncio.wait_for(reader.read(), DEADLINE_S)
        self._writers.append(writer)
        return text


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  (nothing announces it)
            await asyncio.sleep(0)


async def ended(reader):
    """Wait for the end of a connection, whichever way it comes."""
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE_S)
    except ConnectionResetError:
        return b""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@on_a_loop
async def test_the_oldest_handshake_of_an_address_is_cut(authority, monkeypatch):
    """Its neighbours stay, and who shakes hands at once comes in."""
    monkeypatch.setattr(budgets, "TLS_HANDSHAKES_PER_ADDRESS", 3)
    door = Door(authority)
    other = await door.idle("127.0.0.2")
    crowd = [await door.idle() for _ in range(4)]
    assert (door.cut, door.acceptor.count) == (1, 4)
    assert await ended(crowd[0][0]) == b""
    assert await door.greeting() == b"hello"
    assert door.cut == 2
    assert await ended(crowd[1][0]) == b""
    door.acceptor.close()
    for reader, _ in (other, *crowd[2:]):
        assert await ended(reader) == b"", "the end cuts all handshakes"
    await until(lambda: door.memory.ended == 5)
    assert door.acceptor.count == 0
    await door.close()


@on_a_loop
async def test_the_oldest_of_all_is_cut(authority, monkeypatch):
    """Where many addresses come together."""
    monkeypatch.setattr(budgets, "TLS_HANDSHAKES", 3)
    door = Door(authority)
    crowd = [await door.idle(f"127.0.0.{number}") for number in (2, 3, 4, 5)]
    assert (door.cut, door.acceptor.count) == (1, 3)
    assert await ended(crowd[0][0]) == b""
    assert await door.greeting() == b"hello"
    await door.close()


@on_a_loop
async def test_a_client_that_goes_away_leaves_its_place(authority):
    """Also one that speaks something else."""
    door = Door(authority)
    _, gone = await door.idle()
    gone.transport.abort()
    await until(lambda: door.memory.ended == 1)
    reader, plain = await door.idle()
    plain.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await ended(reader)
    await until(lambda: door.memory.ended == 2)
    assert (door.acceptor.count, door.cut) == (0, 0)
    await door.close()


@on_a_loop
async def test_accepting_goes_on_when_there_are_descriptors_again(authority, monkeypatch):
    """A process without descriptors must not turn its loop for nothing, nor stop accepting for good."""
    monkeypatch.setattr(tls_acceptor, "AGAIN_S", 0.0)
    refusals = [errno.EMFILE, errno.ENFILE]

    class Exhausted(socket.socket):
        def accept(self):
            if refusals:
                raise OSError(refusals.pop(), "no descriptor")
            return super().accept()

    listener = Exhausted()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    door = Door(authority, listener)
    assert await door.greeting() == b"hello"
    assert refusals == []
    await door.close()
