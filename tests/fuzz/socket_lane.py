"""Gives inputs to the log socket's code in this process, and checks what it makes of them.

Owns: `SocketLane`. Sockets are real, so that answers are what a trader reads; the server and its clock are not.
Read `port_inputs` next.
"""

from __future__ import annotations

import re
import socket
import traceback

import msgpack
import orjson

from logrelay.ingest.connection import UnixConnection
from logrelay.ingest.frames import Unpackers
from logrelay.ingest.half_frames import HalfFrames
from logrelay.ingest.sequencer import Sequencer
from logrelay.ingest.trader import UNKNOWN, End, Trader
from logrelay.ingest.trader_registry import TraderRegistry
from logrelay.model import RELAY_RUN
from tests.fuzz.cases import Case, Piece
from tests.fuzz.socket_inputs import NOW_US, RUNS

LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR"}
TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
EPOCH = "k3f9ab"
FAR = 1 << 40
"""A seq so far ahead of the last one is no honest trader's: what becomes of it is left to the relay."""

SOCKET_BYTES = 4 << 20
"""Room for all answers to one connection."""


class Fault(AssertionError):
    """Something that has to hold does not."""


def require(holds: object, what: str, *values: object) -> None:
    """Raise Fault unless it holds."""
    if not holds:
        raise Fault(" ".join([what, *(f"{value!r:.300}" for value in values)]))


def shown_run(trader: Trader) -> object:
    """Return the name under which viewers are told of a run."""
    return TraderRegistry._summary(trader, 0.0)["run"]


class _Timer:
    def cancel(self) -> None:
        pass


class _Transport:
    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.closed = sock, False

    def close(self) -> None:
        self.closed = True

    abort = close

    def get_extra_info(self, _name: str) -> socket.socket:
        return self.sock

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return True


class _Relay:
    """One registry and what is around it: owner, loop and intake of the connections of one input."""

    def __init__(self, unpackers: Unpackers) -> None:
        self.unpackers, self.loop = unpackers, self
        self.sequencer = Sequencer(EPOCH, 1, on_notice=lambda _rank, _text: None)
        self.registry = TraderRegistry((), self.sequencer, quiet_after_s=0.0, mono=0.0, now_us=0)
        self.traders: dict[object, object] = {}
        self.refusals: list[str] = []
        self.mono = 0.0
        self.greeted = 0
        self.half_frames: HalfFrames[object] = HalfFrames()

    def call_later(self, *_: object) -> _Timer:
        return _Timer()

    def admit(self, _connection: object) -> None:
        return None

    def admit_hello(self, _connection: object) -> None:
        return None

    def read_buffer(self, _connection: object) -> memoryview:
        return memoryview(b"")  # the lane hands its bytes over by itself

    def charge(self, connection: object, count: int, *, is_new: bool) -> None:
        self.half_frames.charge(connection, count, is_new=is_new)

    def was_read(self, _connection: object, _size: int, _frames: int = 0) -> None:
        pass

    def was_greeted(self, _connection: object) -> None:
        self.greeted += 1

    def was_refused(self, _connection: object, reason: str) -> None:
        self.refusals.append(reason)

    def was_lost(self, connection: object) -> None:
        self.half_frames.forget(connection)
        trader = self.traders.pop(connection, None)
        if trader is not None:
            self.registry.ended(trader, connection, End(UNKNOWN), NOW_US, self.mono)

    def objection(self, _hello: object) -> None:
        return None

    def hello(self, connection, hello):
        trader, _replaced = self.registry.hello(connection, hello, NOW_US, self.mono)
        self.traders[connection] = trader
        return trader.committed

    def frames(self, connection, frames):
        return self.registry.receive(self.traders[connection], frames, NOW_US, self.mono)

    def refused(self, _connection: object, reason: str) -> None:
        self.refusals.append(reason)
        self.registry.refused(reason, NOW_US, self.mono, None)


class Expected:
    """What docs/protocol.md makes of the pieces, for as long as their meaning is known."""

    def __init__(self) -> None:
        self.last = dict.fromkeys(range(len(RUNS)), 0)
        self.taken: dict[int, list[int]] = {run: [] for run in range(len(RUNS))}
        self.is_known = True
        self.is_broken = False

    def connection(self, pieces: tuple[Piece, ...]) -> None:
        """Go on with one more connection."""
        run: int | None = None
        self.is_broken = False
        for piece in pieces:
            if piece.meaning is None:
                self.is_known = False
                return
            kind, *numbers = piece.meaning
            if run is None and kind == "ping":
                continue
            if run is None:
                if kind != "hello":
                    self.is_broken = True
                    return
                run = numbers[0]
            elif kind == "broken" or (kind == "hello" and numbers[0] != run):
                self.is_broken = True
                return
            elif kind in ("log", "bad", "lost", "bye"):
                seq = numbers[-1]
                if seq > self.last[run] + FAR:
                    self.is_known = False
                    return
                if kind == "log" and seq > self.last[run]:
                    self.taken[run].append(seq)
                self.last[run] = max(self.last[run], seq)


class SocketLane:
    """Checks one input after another; the decoders' shared state goes on from one to the next."""

    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        for sock in (self._near, self._far):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        self._unpackers = Unpackers()

    def close(self) -> None:
        """Close the sockets."""
        self._near.close()
        self._far.close()

    def check(self, case: Case) -> str | None:
        """Return what does not hold, or None."""
        try:
            self._check(case)
        except Fault as fault:
            self._drain()
            return str(fault)
        except Exception:
            self._drain()
            return traceback.format_exc()
        return None

    def _drain(self) -> bytes:
        data = b""
        try:
            while more := self._far.recv(SOCKET_BYTES):
                data += more
        except BlockingIOError:
            pass
        return data

    def _check(self, case: Case) -> None:
        relay, expected = _Relay(self._unpackers), Expected()
        shown: list[tuple[object, dict]] = []
        for given in case.connections:
            transport = _Transport(self._near)
            connection = UnixConnection(relay, relay, find_process=lambda *_: None)
            before, refused = relay.greeted, len(relay.refusals)
            connection.connection_made(transport)
            for data in given.reads():
                connection.data_received(data)
                if transport.closed:
                    break
            relay.mono += 2.0
            taken = relay.sequencer.take()
            if taken is not None:
                commit, batch = taken
                shown += [(line, orjson.loads(line.body)) for line in commit.lines]
                require(batch is None or batch.count == len(commit.lines), "a batch has other lines than its commit")
                for run in commit.runs:
                    relay.registry.committed(run.id, run.last_seq)
            connection.close()
            connection.connection_lost(None)
            require(self._unpackers.long_bytes == 0, "the shared account is not empty", self._unpackers.long_bytes)
            require(relay.half_frames.total == 0, "half a frame is kept", relay.half_frames.total)
            expected.connection(given.pieces)
            was_refused = len(relay.refusals) - refused
            require(was_refused <= 1, "refused more than once")
            self._check_answers(self._drain(), greeted=relay.greeted > before, refused=bool(was_refused))
            if expected.is_known:
                require(bool(was_refused) == expected.is_broken, "refused:", relay.refusals, expected.is_broken)
        relay.registry.pass_time(NOW_US, relay.mono)
        taken = relay.sequencer.take()
        if taken is not None:
            shown += [(line, orjson.loads(line.body)) for line in taken[0].lines]
        self._check_lines(relay, shown, expected)

    @staticmethod
    def _check_answers(data: bytes, *, greeted: bool, refused: bool) -> None:
        """Require answers of the kinds that docs/protocol.md has, in the order that it has."""
        unpacker = msgpack.Unpacker(strict_map_key=True)
        unpacker.feed(data)
        answers = list(unpacker)
        require(unpacker.tell() == len(data), "half an answer", data)
        for at, answer in enumerate(answers):
            require(type(answer) is list and answer, "not an answer", answer)
            kind, *rest = answer
            if kind == 0:
                require(at == 0 and greeted, "a welcome that nobody expects", answers)
                facts = rest[0]
                require(facts["protocol"] == 1 and type(facts["acked"]) is int and facts["acked"] >= 0, "bad", answer)
                require(set(facts) <= {"protocol", "acked", "ping_s", "dead_s"}, "bad welcome", answer)
            elif kind == 1:
                require(len(rest) == 1 and type(rest[0]) is int and rest[0] > 0, "bad ack", answer)
            elif kind == 2:
                require(len(rest) == 2 and type(rest[0]) is int and type(rest[1]) is str, "bad reject", answer)
                require(len(rest[1]) < 300, "a long reason", answer)
            elif kind == 3:
                require(len(rest) == 1 and type(rest[0]) is str and len(rest[0]) < 300, "bad refused", answer)
                require(at == len(answers) - 1 and refused, "refused is not the last", answers)
            else:
                require(answer == [5], "no answer of the protocol", answer)
        require(not greeted or (answers and answers[0][0] == 0), "no welcome", answers)
        require(not refused or (answers and answers[-1][0] == 3), "no word of the refusal", answers)

    @staticmethod
    def _check_lines(relay: _Relay, shown: list[tuple[object, dict]], expected: Expected) -> None:
        """Require lines as documented, and that lines and gaps of each run account for every seq."""
        stands: dict[str, int] = {}
        times: dict[str, str] = {}
        taken: dict[str, list[object]] = {}
        for number, (line, shape) in enumerate(shown, 1):
            require(shape["type"] == "log" and shape["id"] == f"{EPOCH}-{number}", "ids do not rise by one", shape)
            require(shape["level"] in LEVELS, "level", shape)
            require(type(shape["message"]) is str and type(shape["context"]) is dict, "message or context", shape)
            require(type(shape["source"]) is str, "source", shape)
            require(shape["source"] or not shape["app"], "no source, though the app has a name", shape)
            stamp = shape["timestamp"]
            require(TIMESTAMP.fullmatch(stamp), "timestamp", shape)
            run = shape.get("run", "") if line.run != RELAY_RUN else ""
            require(times.get(run, "") < stamp, "timestamps do not rise", times.get(run), shape)
            times[run] = stamp
            context = shape["context"]
            if line.run != RELAY_RUN:
                require(run, "a line without its run", shape)
                stands[run] = stands.get(run, 0) + 1
                taken.setdefault(run, []).append(context.get("n"))
            elif context.get("notice") == "gap":
                run, first, last = context["run"], context["first"], context["last"]
                first, last = int(first), int(last)
                require(first == stands.get(run, 0) + 1 and last >= first, "a gap at another place", shape, stands)
                require(int(context["count"]) == last - first + 1, "a gap's count", shape)
                stands[run] = last
        names = {trader.run.key: shown_run(trader) for trader in relay.registry.runs.by_id.values()}
        for trader in relay.registry.runs.by_id.values():
            run = names[trader.run.key]
            require(trader.run.last_seq == stands.get(run, 0), "seqs without line or gap", trader.run, stands)
        if expected.is_known:
            for number, key in enumerate(RUNS):
                run, seqs = names.get(key, ""), expected.taken[number]
                got = [int(n) for n in taken.get(run, [])]
                require(got == seqs, "lines that were taken, and expected", got, seqs)
                require(stands.get(run, 0) == expected.last[number], "last", stands.get(run), expected.last[number])
