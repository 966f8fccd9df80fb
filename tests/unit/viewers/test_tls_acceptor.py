"""TLS handshakes have places of their own: too many cut the oldest, the good ones get through, the end cuts all."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
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


class Port:
    """An acceptor on a free port."""

    def __init__(self, authority, listener=None, handshake_s=DEADLINE_S):
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
            handshake_s=handshake_s,
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

    @property
    def places(self):
        """What is known of those in their handshake."""
        return list(self.acceptor._silent.all.values())

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
    monkeypatch.setattr(budgets, "TLS_SILENT_PER_ADDRESS", 3)
    port = Port(authority)
    other = await port.idle("127.0.0.2")
    crowd = [await port.idle() for _ in range(4)]
    assert (port.cut, port.acceptor.count) == (1, 4)
    assert await ended(crowd[0][0]) == b""
    assert await port.greeting() == b"hello"
    assert port.cut == 2
    assert await ended(crowd[1][0]) == b""
    port.acceptor.close()
    for reader, _ in (other, *crowd[2:]):
        assert await ended(reader) == b"", "the end cuts all handshakes"
    await until(lambda: port.memory.ended == 5)
    assert port.acceptor.count == 0
    await port.close()


@on_a_loop
async def test_the_oldest_of_all_is_cut(authority, monkeypatch):
    """Where many addresses come together."""
    monkeypatch.setattr(budgets, "TLS_SILENT", 3)
    port = Port(authority)
    crowd = [await port.idle(f"127.0.0.{number}") for number in (2, 3, 4, 5)]
    assert (port.cut, port.acceptor.count) == (1, 3)
    assert await ended(crowd[0][0]) == b""
    assert await port.greeting() == b"hello"
    await port.close()


@on_a_loop
async def test_a_client_that_goes_away_leaves_its_place(authority):
    """Also one that speaks something else."""
    port = Port(authority)
    _, gone = await port.idle()
    gone.transport.abort()
    await until(lambda: port.memory.ended == 1)
    reader, plain = await port.idle()
    plain.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await ended(reader)
    await until(lambda: port.memory.ended == 2)
    assert (port.acceptor.count, port.cut) == (0, 0)
    await port.close()


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
    port = Port(authority, listener)
    assert await port.greeting() == b"hello"
    assert refusals == []
    await port.close()


@on_a_loop
async def test_nothing_is_made_before_a_client_hello_is_whole(authority):
    """It comes in three pieces, and then the handshake is as any other."""
    port = Port(authority)
    reader, writer = await port.idle()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = port.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    for piece, wanted in ((hello[:3], 5), (hello[3:100], len(hello))):
        writer.write(piece)
        await until(lambda wanted=wanted: port.places[0].wanted_bytes == wanted)
    writer.write(hello[100:])

    async def step(what):
        while True:
            try:
                return what()
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await asyncio.wait_for(reader.read(65536), DEADLINE_S))

    await step(client.do_handshake)
    writer.write(outgoing.read())
    assert await step(lambda: client.read(100)) == b"hello"
    await port.close()


@on_a_loop
async def test_half_a_client_hello_that_ends_leaves_its_place(authority):
    """The kernel says that more has come, and it is the end."""
    port = Port(authority)
    reader, writer = await port.idle()
    writer.write(b"\x16\x03\x01\x02\x00" + bytes(100))
    await until(lambda: port.places[0].wanted_bytes == 5 + 512)
    writer.write_eof()
    await ended(reader)
    await until(lambda: port.memory.ended == 1)
    assert port.acceptor.count == 0
    await port.close()


@on_a_loop
async def test_whoever_says_nothing_is_cut_at_the_deadline(authority):
    """One after another, by one timer."""
    port = Port(authority, handshake_s=0.05)
    for _ in range(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port.port)
        port._writers.append(writer)
        assert await ended(reader) == b""
    await until(lambda: port.memory.ended == 2)
    assert (port.acceptor.count, port.cut) == (0, 0)
    port.acceptor._handshake_s = DEADLINE_S  # who shakes hands has the time that it takes
    assert await port.greeting() == b"hello"
    await port.close()


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"\x16", 5),
        (b"\x16\x03\x01\x00", 5),
        (b"\x16\x03\x01\x01\x02", 5 + 258),
        (b"\x16\x03\x01\x40\x00", 5 + 16384),
        (b"\x16\x03\x01\x40\x01", 5),
    ],
)
def test_the_length_of_a_record(data, size):
    """One that is too long is not waited for."""
    assert tls_acceptor.record_bytes(data) == size


@on_a_loop
async def test_a_crowd_of_one_address_waits_behind_itself(authority, monkeypatch):
    """Addresses take turns to begin; of one of them the newest is first."""
    monkeypatch.setattr(budgets, "TLS_BEGINS", 1)
    port = Port(authority)
    begun = []
    monkeypatch.setattr(port.acceptor, "_begin_handshake", lambda sock: begun.append(port.acceptor._ready.pop(sock)))
    places = [tls_acceptor._Place(address, 0.0) for address in ("a", "a", "a", "b")]
    socks = [socket.socket() for _ in places]
    for sock, place in zip(socks, places, strict=True):
        port.acceptor._ready.add(sock, place)
    port.acceptor._on_turn()
    await until(lambda: len(begun) == 4)
    assert [places.index(place) for place in begun] == [2, 3, 1, 0]
    for sock in socks:
        sock.close()
    await port.close()
