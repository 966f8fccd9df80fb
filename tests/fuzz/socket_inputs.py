"""Inputs for the log socket: streams of frames, good ones, odd ones, and good ones that were damaged.

Owns: `make_case`. The meaning of a piece is one of ("hello", run), ("log", seq), ("bad", seq), ("lost", first, last),
("bye", seq), ("ping",), ("broken",), as docs/protocol.md has it. Read `socket_lane` next.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import msgpack

from tests.fuzz.cases import Case, Connection, Piece, cuts, mutate

NOW_US = 1_769_162_400_000_000
NOW_NS = NOW_US * 1000
MAX_SEQ = 2**63 - 1
LEVELS = ("debug", "info", "warning", "error", "critical")
MAX_HELLO_BYTES = 16 * 1024
MAX_FRAME_BYTES = 64 * 1024
VECTORS = Path(__file__).parents[1] / "contract" / "vectors"

RUNS = tuple(bytes([number]) * 16 for number in range(3))


def packed(value: object) -> bytes:
    """Encode."""
    data: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass")
    return data


def _nest(depth: int, *, in_map: bool) -> bytes:
    return (b"\x81\xa1k" if in_map else b"\x91") * depth + b"\xc0"


def _vector_streams() -> list[bytes]:
    streams = [bytes.fromhex(entry["hex"]) for entry in _load("wire-v1-streams.json") + _load("wire-v1-odd.json")]
    return [stream for stream in streams if len(stream) < MAX_FRAME_BYTES]


def _load(name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())
    return entries


VECTOR_STREAMS = _vector_streams()

TEXTS = (
    "", "x", "trade.executed", "a" * 300, "\x00", "\x1b[31mred\x1b[0m", "\r\n\u2028\u2029", "\u202eabc", "é",
    "\U0001f600", "\ufffe\uffff", '"\\/', "</script>", "NaN", "logrelay", "k3f9ab-1", "\x7f\x80\x9f", "ß" * 200,
    "," * 50,
)  # fmt: skip

SCALARS: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 - 1, -(2**63), 0.0, -0.0, 1.5, 1e308,
    5e-324, float("inf"), float("-inf"), float("nan"), b"", b"\xff\x00", *TEXTS,
    msgpack.ExtType(0, b""), msgpack.ExtType(5, b"x" * 20), msgpack.ExtType(127, b"\x00" * 4),
    msgpack.Timestamp(0, 0), msgpack.Timestamp(2**34, 999_999_999), msgpack.Timestamp(-(2**60), 1),
)  # fmt: skip

KEYS: tuple[object, ...] = (
    "event", "message", "msg", "logger", "level", "timestamp", "severity", "clock", "time_ns", "notice", "source",
    "id", "type", "run", "app", "context", "level_", "level__", "timestamp_", "logger_", "severity_", "time_ns_",
    "clock_", "k", "exception", "", "\x00", "é", 0, 1, -1, 1.5, float("nan"), None, True, False, b"", b"k", b"\xff",
    2**64 - 1, msgpack.Timestamp(1, 1),
)  # fmt: skip

RAW_VALUES: tuple[bytes, ...] = (
    b"\xa2\xff\xfe",  # a str that is not UTF-8
    b"\xa3\xed\xa0\x80",  # half a surrogate pair
    b"\xd9\x04\xf0\x9f\x98\x80",
    b"\xda\x00\x01x",
    b"\xdb\x00\x00\x00\x01x",
    b"\xc6\x00\x00\x00\x01x",
    b"\xd3\x00\x00\x00\x00\x00\x00\x00\x01",
    b"\xca\x7f\xc0\x00\x00",  # a NaN of four bytes
    b"\xd6\xff\xff\xff\xff\xff",
    b"\xc7\x0c\xff\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00",
    b"\xc7\x00\x01",
    b"\xdc\x00\x00",
    b"\xde\x00\x00",
    b"\xdf\x00\x00\x00\x01\xa1k\x01",
    b"\x82\xa1k\x01\xa1k\x02",  # a key twice
    b"\x81\x01\x02",
    b"\x82\x01\x02\xa11\x03",  # 1 and "1"
    b"\x82\xc3\x01\xa4true\x02",
    b"\x81\xc0\x02",
    b"\x82\xa1k\x01\xc4\x01k\x02",  # k as str and as bin
    *(_nest(depth, in_map=in_map) for depth in (15, 16, 17, 31, 32, 33, 200, 500) for in_map in (False, True)),
)

HOSTILE: tuple[bytes, ...] = (
    b"\xc1",
    b"\x92\x01\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # a timestamp with too many nanoseconds
    b"\x92\x01\xc7\x03\xff\x00\x00\x00",  # and one of a length that is none
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\x7f\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xdc\xff\xff" * 40,
    b"\x95\x01\x01\x01\xa4info" + b"\xdc\xff\xff" * 480,
    b"\xdd\x00\x10\x00\x00" + b"\x80" * 3000,
    b"\x81\x90\x01",  # a key that is an array
    b"\x81\x80\x01",
    b"\x91" * 1100,
    b"\x81\xa1k" * 1100,
    b"\x81" * 600,
    b"\x00",
    b"\xa5hello",
    b"\x80",
    b"\x90",
    b"\xc0",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b'{"type":"ping"}\n',
)

ODD_SEQS: tuple[object, ...] = (0, -1, 1.0, 2**63, 2**64 - 1, -(2**63), None, True, "1", b"1", [1], float("nan"))
ODD_LEVELS: tuple[object, ...] = ("INFO", 20, None, "", b"info", True, "trace", ["info"], "warn", 1.0)
ODD_TIMES: tuple[object, ...] = (1.5, None, "now", b"", True, float("inf"), [], msgpack.Timestamp(1, 1))
TIMES = (0, 1, -1, -(2**63), 2**64 - 1, NOW_NS // 10**9, NOW_NS // 10**6, NOW_NS // 1000, 946_684_800 * 10**9,
         946_684_799_999_999_999, NOW_NS + 86_400 * 10**9, NOW_NS + 86_401 * 10**9, NOW_NS - 10**18)  # fmt: skip
CAUSES = (
    "overflow",
    "too_big",
    "rejected_repeatedly",
    "encode",
    "torn",
    "unexplained",
    "lag",
    "",
    "x" * 500,
    "\x1b[2J",
)


def _pick(rng: Random, choices: Any) -> Any:
    return choices[int(rng.random() * len(choices))]


def _time(rng: Random) -> int:
    chance = rng.random()
    if chance < 0.8:
        return NOW_NS + int(rng.random() * 10**9)
    if chance < 0.9:
        return NOW_NS - int(rng.random() * 10**13)
    time_ns: int = _pick(rng, TIMES)
    return time_ns


def _event_bytes(rng: Random, seq: int) -> bytes:
    """Return an event that names its seq as `n`; what else is in it is as odd as msgpack allows."""
    chance = rng.random()
    if chance < 0.45:
        return packed({"event": _pick(rng, TEXTS), "n": seq})
    count = int(rng.random() * 5)
    fields = b"".join(
        packed(_pick(rng, KEYS)) + (packed(_pick(rng, SCALARS)) if rng.random() < 0.6 else _pick(rng, RAW_VALUES))
        for _ in range(count)
    )
    return bytes([0x81 + count]) + fields + packed("n") + packed(seq)


def _log(rng: Random, seq: int) -> Piece:
    head = b"\x95\x01" + packed(seq) + packed(_time(rng)) + packed(_pick(rng, LEVELS))
    return Piece(head + _event_bytes(rng, seq), ("log", seq))


def _hello_facts(rng: Random, run: bytes) -> dict[object, object]:
    facts: dict[object, object] = {
        "protocol": 1,
        "run": run,
        "app": _pick(rng, TEXTS) if rng.random() < 0.3 else "bot",
        "host": _pick(rng, TEXTS) if rng.random() < 0.1 else "box",
        "pid": 4711,
        "started_ns": _pick(rng, (0, 1, NOW_NS, MAX_SEQ)),
    }
    if rng.random() < 0.3:
        facts["ping"] = _pick(rng, (True, False, 1, None))
    if rng.random() < 0.1:
        facts["dead"] = _pick(rng, (True, False, 1, "yes"))
    if rng.random() < 0.1:
        facts[_pick(rng, KEYS)] = _pick(rng, SCALARS)
        if facts["run"] != run or facts["app"] is None or type(facts["app"]) is not str:
            facts["run"], facts["app"] = run, "bot"
    return facts


def _hello(rng: Random, run: int) -> Piece:
    return Piece(packed([0, _hello_facts(rng, RUNS[run])]), ("hello", run))


def _bad_hello(rng: Random) -> Piece:
    facts = _hello_facts(rng, RUNS[0])
    name, value = _pick(
        rng,
        (
            ("protocol", 2), ("protocol", None), ("protocol", "1"), ("run", b"short"), ("run", "x" * 16), ("run", None),
            ("app", 1), ("app", b"bot"), ("host", None), ("pid", "1"), ("pid", -1), ("pid", 2**64 - 1), ("pid", 1.0),
            ("started_ns", -1), ("started_ns", 1.5), ("started_ns", True), ("pid", False),
        ),
    )  # fmt: skip
    facts[name] = value
    return Piece(packed([0, facts] if rng.random() < 0.9 else [0, facts, 1]), ("broken",))


def _odd_lost(rng: Random, seq: int) -> Piece:
    first = seq
    last = min(MAX_SEQ, seq + int(rng.random() * 4))
    count, cause = last - first + 1, "overflow"
    chance = rng.random()
    if chance < 0.4:
        return Piece(packed([2, first, last, count + _pick(rng, (1, -1, 100, 2**40)), cause]), ("bad", last))
    if chance < 0.6:
        return Piece(packed([2, first, last, count, _pick(rng, (None, 1, b"overflow", []))]), ("bad", last))
    if chance < 0.8:
        return Piece(packed([2, _pick(rng, ODD_SEQS), last, count, cause]), ("broken",))
    return Piece(packed([2, first, last, count]), ("broken",))


def _bad_log(rng: Random, seq: int) -> Piece:
    chance = rng.random()
    frame: list[object] = [1, seq, NOW_NS, "info", {"event": "x"}]
    if chance < 0.3:
        frame[3] = _pick(rng, ODD_LEVELS)
    elif chance < 0.6:
        frame[2] = _pick(rng, ODD_TIMES)
    elif chance < 0.8:
        frame[4] = _pick(rng, SCALARS)
    elif chance < 0.95:
        del frame[2 + int(rng.random() * 3) :]
    else:
        frame.append(None)
    return Piece(packed(frame), ("bad", seq))


def _long(rng: Random, seq: int) -> Piece:
    """Return a frame near or over what is allowed."""
    size = _pick(rng, (MAX_FRAME_BYTES - 200, MAX_FRAME_BYTES, MAX_FRAME_BYTES + 200, 200_000, 1_100_000))
    data = packed([1, seq, NOW_NS, "info", {"event": "x" * size, "n": seq}])
    if len(data) > 1024 * 1024:
        return Piece(data, ("broken",))
    return Piece(data, ("bad" if len(data) > MAX_FRAME_BYTES else "log", seq))


def _piece(rng: Random, seq: int, run: int) -> Piece:
    """Return one frame of a run that comes to `seq`."""
    chance = rng.random()
    if chance < 0.56:
        return _log(rng, seq)
    if chance < 0.62:
        return _log(rng, max(1, min(MAX_SEQ, seq + _pick(rng, (-1, -2, -5, 1, 2, 10, 2**39, MAX_SEQ - seq)))))
    if chance < 0.68:
        return _bad_log(rng, seq)
    if chance < 0.74:
        first = max(1, seq - int(rng.random() * 4))
        last = min(MAX_SEQ, first + int(rng.random() ** 8 * _pick(rng, (100, 2**38, 2**64))))
        return Piece(packed([2, first, last, last - first + 1, _pick(rng, CAUSES)]), ("lost", first, last))
    if chance < 0.77:
        return _odd_lost(rng, seq)
    if chance < 0.81:
        last = _pick(rng, (seq - 1, seq - 1, seq - 1, seq, 0, min(MAX_SEQ, seq + 3), MAX_SEQ))
        return Piece(packed([3, last]), ("bye", last))
    if chance < 0.86:
        return Piece(_pick(rng, (b"\x91\x04", b"\x91\x05", b"\x91\xcc\x04", b"\xdc\x00\x01\x04")), ("ping",))
    if chance < 0.88:
        return _hello(rng, run)
    if chance < 0.90:
        return _hello(rng, int(rng.random() * len(RUNS)))
    if chance < 0.92:
        return Piece(packed([_pick(rng, (1, 3)), _pick(rng, ODD_SEQS[1:])]), ("broken",))
    if chance < 0.94:
        kind = _pick(rng, (6, 7, 100, -1, True, 1.0, None, "1", b"1", [], {}))
        return Piece(packed([kind, *SCALARS[: int(rng.random() * 6)]]), ("broken",))
    if chance < 0.96:
        return Piece(_pick(rng, HOSTILE))
    if chance < 0.98:
        return Piece(_pick(rng, VECTOR_STREAMS))
    if chance < 0.9975:
        return Piece(rng.randbytes(1 + int(rng.random() * 40)))
    return _long(rng, seq)


def _connection(rng: Random, run: int, seq: int) -> tuple[Connection, int]:
    pieces: list[Piece] = []
    chance = rng.random()
    if chance < 0.95:
        pieces.append(_hello(rng, run))
    elif chance < 0.98:
        pieces.append(_bad_hello(rng))
    seq = max(1, seq - int(rng.random() * 4))  # what is in doubt is sent again
    for _ in range(int(rng.random() ** 2 * 14)):
        piece = _piece(rng, seq, run)
        pieces.append(piece)
        if piece.meaning is not None and piece.meaning[0] in ("log", "bad", "lost"):
            seq = min(MAX_SEQ, max(seq, piece.meaning[-1] + 1))  # type: ignore[operator]
    if rng.random() < 0.4:
        mutate(rng, pieces)
    return Connection(tuple(pieces), cuts(rng)), seq


def make_case(rng: Random) -> Case:
    """Return one input: up to three connections, mostly of the same run."""
    connections: list[Connection] = []
    run, seq = 0, 1
    while not connections or (len(connections) < 3 and rng.random() < 0.25):
        if rng.random() < 0.1:
            run, seq = int(rng.random() * len(RUNS)), 1
        connection, seq = _connection(rng, run, seq)
        connections.append(connection)
    return Case(tuple(connections))
