"""Writes wire-v1.json and wire-v1-streams.json: wire protocol v1, assembled without either side's codec.

wire-v1.json has whole frames, described in JSON. wire-v1-streams.json has what a trader may write behind hello without
waiting for the welcome, as one string of bytes, and what a relay makes of it: `has` is the last seq of the run that the
relay has when hello comes, `welcome` the seq in its answer, `takes` the new lines, `gaps` the losses it notes
([first, last, cause]), and `last` the last seq of the run it has in the end.

Run it from anywhere; it prints nothing if the file is up to date. Values that JSON lacks are written as
{"$bytes": hex}, {"$float": "nan" | "inf" | "-inf"} and {"$int": "digits"} (beyond 2**53). `direction` is who sends the
frame. `canonical` says that the trader's encoder produces these very bytes (its integers in log headers have a
fixed width); a decoder must accept all of them alike.
"""

import json
import math
import struct
from pathlib import Path

import msgpack

TIME = 1_769_162_400_123_456_789
RUN = bytes(range(16))
HELLO = {"protocol": 1, "run": RUN, "app": "robo_trader", "host": "box", "pid": 4242, "started_ns": TIME}


def described(value):
    """Return `value` in JSON's terms."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return {"$int": str(value)}
    if isinstance(value, dict):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, list):
        return [described(item) for item in value]
    return value


def wide(frame):
    """Return a log frame as the trader writes it: seq and time as 64-bit unsigned, whatever their size."""
    _, seq, time_ns, level, event = frame
    head = b"\x95\x01" + b"\xcf" + struct.pack(">Q", seq) + b"\xcf" + struct.pack(">Q", time_ns)
    return head + msgpack.packb(level) + msgpack.packb(event)


def nested(depth):
    """Return an event that nests `depth` deep, itself included."""
    value = {"bottom": True} if depth > 1 else {}
    for _ in range(depth - 2):
        value = {"in": value}
    return value


LOGS = {
    "a trade": [1, 1, TIME, "info", {"event": "trade.executed", "logger": "robo_trader.runner", "symbol": "AAPL",
                                      "quantity": 100, "price": 187.25, "level": "info"}],
    "empty event": [1, 2, TIME, "debug", {}],
    "seq above 32 bits": [1, 2**32 + 7, TIME, "warning", {"event": "late"}],
    "highest seq": [1, 2**63 - 1, 2**63 - 1, "error", {"event": "end"}],
    "smallest header": [1, 1, 0, "critical", {"event": ""}],
    "nested event": [1, 3, TIME, "info", {"event": "n", "order": {"legs": [{"qty": 1}, {"qty": -2}], "tags": []}}],
    "deepest event": [1, 4, TIME, "info", nested(16)],
    "unicode": [1, 5, TIME, "info", {"event": "\u00e9\u4e2d\U0001f600\u0000\n", "\u043a\u043b\u044e\u0447": "\u2028"}],
    "bytes": [1, 6, TIME, "info", {"event": "b", "raw": b"\x00\xff\xc1", "empty": b""}],
    "numbers": [1, 7, TIME, "info", {"event": "n", "zero": 0, "neg": -1, "min": -(2**63), "max": 2**64 - 1,
                                      "fix": 127, "u8": 128, "i8": -33, "u16": 65535, "u32": 2**32 - 1, "safe": 2**53,
                                      "f": 0.1, "big": 1e308, "minus": -0.0}],
    "not finite": [1, 8, TIME, "info", {"event": "f", "nan": math.nan, "inf": math.inf, "ninf": -math.inf}],
    "constants": [1, 9, TIME, "info", {"event": None, "yes": True, "no": False}],
    "event is no text": [1, 10, TIME, "info", {"event": {"a": [1]}}],
    "traceback": [1, 11, TIME, "error", {"event": "failed", "exception": "Traceback\n  File\nValueError: boom"}],
    "truncated": [1, 12, TIME, "info", {"event": "cut", "blob": "x" * 300 + "\u2026", "_truncated": ["blob"]}],
    "long text": [1, 13, TIME, "info", {"event": "t", "blob": "y" * 5_000}],
    "sixteen keys": [1, 14, TIME, "info", {f"k{i}": i for i in range(16)}],
}  # fmt: skip


def vectors():
    """Yield every vector."""
    out = []

    def add(name, direction, data, frame, canonical):
        out.append(
            {
                "name": name,
                "direction": direction,
                "canonical": canonical,
                "hex": data.hex(),
                "frame": described(frame),
            }
        )

    add("hello", "trader", msgpack.packb([0, HELLO]), [0, HELLO], True)
    extra = [0, HELLO | {"version": "9", "more": [1]}]
    add("hello with unknown keys", "trader", msgpack.packb(extra), extra, False)
    for key in ("ping", "dead"):
        more = [0, HELLO | {"ping": True} | {key: True}]
        add(f"hello: {key}", "trader", msgpack.packb(more), more, key == "ping")
    for side in ("trader", "relay"):
        add(f"ping from the {side}", side, msgpack.packb([4]), [4], True)
        add(f"pong from the {side}", side, msgpack.packb([5]), [5], True)
    for name, frame in LOGS.items():
        add(f"log: {name}", "trader", wide(frame), frame, True)
        if msgpack.packb(frame) != wide(frame):
            add(f"log: {name}, shortest integers", "trader", msgpack.packb(frame), frame, False)
    ascii_only = [1, 15, TIME, "info", {"event": "x"}]
    long_forms = (
        b"\xdd\x00\x00\x00\x05" + b"\xcc\x01" + b"\xcd\x00\x0f" + b"\xd3" + struct.pack(">q", TIME)
        + b"\xd9\x04info" + b"\xde\x00\x01" + b"\xda\x00\x05event" + b"\xdb\x00\x00\x00\x01x"
    )  # fmt: skip
    add("log: long forms of everything", "trader", long_forms, ascii_only, False)
    for cause in ("overflow", "too_big", "rejected_repeatedly", "encode"):
        add(f"lost: {cause}", "trader", msgpack.packb([2, 5, 5, 1, cause]), [2, 5, 5, 1, cause], True)
    many = [2, 2**32, 2**33, 2**33 - 2**32 + 1, "overflow"]
    add("lost: many", "trader", msgpack.packb(many), many, True)
    for last in (0, 1, 2**32 + 1):
        add(f"bye: {last}", "trader", msgpack.packb([3, last]), [3, last], True)
    for acked in (0, 127, 128, 2**32 + 5, 2**63 - 1):
        welcome = [0, {"protocol": 1, "acked": acked}]
        add(f"welcome: {acked}", "relay", msgpack.packb(welcome), welcome, False)
        add(f"ack: {acked}", "relay", msgpack.packb([1, acked]), [1, acked], False)
    add("ack: 64-bit form", "relay", b"\x92\x01\xcf" + struct.pack(">Q", 3), [1, 3], False)
    welcome = [0, {"acked": 3, "protocol": 1, "server": "logrelay 9"}]
    add("welcome: unknown key", "relay", msgpack.packb(welcome), welcome, False)
    welcome = [0, {"protocol": 1, "acked": 3, "ping_s": 5.0, "dead_s": 12.0}]
    add("welcome: pings", "relay", msgpack.packb(welcome), welcome, False)
    add("reject", "relay", msgpack.packb([2, 9, "unknown level"]), [2, 9, "unknown level"], False)
    add("reject: no reason", "relay", msgpack.packb([2, 2**40, ""]), [2, 2**40, ""], False)
    add(
        "refused",
        "relay",
        msgpack.packb([3, "protocol 2 is not spoken here"]),
        [3, "protocol 2 is not spoken here"],
        False,
    )
    return out


def line(seq):
    """Return a log frame as the trader writes it."""
    return wide([1, seq, TIME + seq, "info", {"event": f"line {seq}"}])


def streams():
    """Return every stream."""
    first = msgpack.packb([0, HELLO])
    lost, bye = msgpack.packb([2, 3, 5, 3, "overflow"]), msgpack.packb([3, 6])

    def stream(name, has, parts, takes, gaps=()):
        last = max([has, *takes, *(gap[1] for gap in gaps)])
        return {
            "name": name, "has": has, "hex": b"".join(parts).hex(),
            "welcome": has, "takes": takes, "gaps": list(gaps), "last": last,
        }  # fmt: skip

    return [
        stream("a first line in one breath with hello", 0, [first, line(1)], [1]),
        stream("a whole run before the welcome", 0, [first, line(1), line(2), msgpack.packb([3, 2])], [1, 2]),
        stream("a reconnect: everything not acked again, and new lines", 2, [first, *map(line, range(1, 5))], [3, 4]),
        stream("a reconnect: the relay has it all", 4, [first, *map(line, range(1, 5))], []),
        stream("a loss that is certain, before the welcome", 2, [first, lost, line(6), bye], [6], [[3, 5, "overflow"]]),
        stream("a loss of which the relay has a part", 4, [first, lost, line(6), bye], [6], [[5, 5, "overflow"]]),
        stream("a loss that the relay knows", 5, [first, lost, line(6), bye], [6]),
        stream("half a frame, then the end", 1, [first, line(2), line(3)[:-1]], [2]),
        stream("the welcome came in the middle: what it covers is left out", 4, [first, line(1), line(5)], [5]),
    ]


def written(values):
    """Return the text of a file of vectors."""
    return "[\n" + ",\n".join(json.dumps(value) for value in values) + "\n]\n"


FILES = {"wire-v1.json": vectors, "wire-v1-streams.json": streams}


if __name__ == "__main__":
    for name, make in FILES.items():
        path = Path(__file__).with_name(name)
        if not path.exists() or path.read_text() != written(make()):
            path.write_text(written(make()))
            print(f"wrote {path}")
