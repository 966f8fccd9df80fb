"""The attacks on the traders' socket. Each is a function of a `Target` that returns when its time is over.

Owns: one function per attack. Read `attack` next: it runs one of them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import time

import msgpack

from tests.siege.target import Target, crowd, hello, log, pump_all

FRAME_BYTES = 64 * 1024


def _log_head(seq: int) -> bytes:
    """Return a log frame up to its event."""
    return b"\x95\x01" + msgpack.packb(seq) + msgpack.packb(time.time_ns()) + msgpack.packb("info")


def _send(sock: socket.socket, data: bytes) -> socket.socket:
    sock.settimeout(2.0)
    with contextlib.suppress(OSError):
        sock.sendall(data)
    return sock


def nested_headers(target: Target) -> None:
    """200 connections, each half a log frame of array16 headers that declare 65,535 items, 480 deep."""
    frame = _log_head(1) + b"\xdc\xff\xff" * 480
    with crowd(lambda: _send(target.trader(), frame), target.count(200)) as many:
        many.hold(target.seconds)


def nested_headers_first(target: Target) -> None:
    """The same instead of a hello."""
    frame = b"\xdc\xff\xff" * 480
    with crowd(lambda: _send(target.unix(), frame), target.count(200)) as many:
        many.hold(target.seconds)


def flat_declared(target: Target) -> None:
    """200 connections whose frame declares four thousand million items."""
    frame = _log_head(1) + b"\xdd\xff\xff\xff\xff" + b"\x01" * 60_000
    with crowd(lambda: _send(target.trader(), frame), target.count(200)) as many:
        many.hold(target.seconds)


def empty_maps_first(target: Target) -> None:
    """40 connections with a megabyte of arrays of empty maps before any hello."""
    block = (b"\xdc\xff\xff" + b"\x80" * 65_535) * 16
    with crowd(lambda: _send(target.unix(), block), target.count(40)) as many:
        many.hold(target.seconds)


def empty_maps(target: Target) -> None:
    """40 connections with log frames full of empty maps."""
    frame = _log_head(1) + b"\x82\xa5event\xa1x\xa1m\xdc\xea\x60" + b"\x80" * 60_000
    with crowd(lambda: _send(target.trader(), frame * 16), target.count(40)) as many:
        many.hold(target.seconds)


def half_frames(target: Target) -> None:
    """500 connections, each with a frame of which the end never comes."""
    frame = _log_head(1) + b"\xdb" + struct.pack(">I", 60_000) + b"x" * 59_000
    with crowd(lambda: _send(target.trader(), frame), target.count(500)) as many:
        many.hold(target.seconds)


def half_frames_dripped(target: Target) -> None:
    """The same 500, of which a byte more comes all the time."""
    frame = _log_head(1) + b"\xdb" + struct.pack(">I", 60_000) + b"x" * 55_000
    ends = target.ends()
    with crowd(lambda: _send(target.trader(), frame), target.count(500)) as many:
        while time.monotonic() < ends:
            many.fill(ends)
            for sock in many.each():
                with contextlib.suppress(OSError):
                    sock.send(b"x")
            many.hold(0.02)


def silent(target: Target) -> None:
    """1,000 connections that say nothing."""
    with crowd(target.unix, target.count(1000)) as many:
        many.hold(target.seconds)


def slow_hello(target: Target) -> None:
    """500 connections that never end their hello."""
    with crowd(lambda: _send(target.unix(), hello()[:40]), target.count(500)) as many:
        many.hold(target.seconds)


def logger_names(target: Target) -> None:
    """12,000 logger names of 60 kB."""
    numbers = itertools.count(1)

    def make(_: int) -> bytes:
        return b"".join(
            log(seq, {"event": "x", "logger": f"{next(numbers):08d}" + "n" * 60_000}) for seq in range(1, 101)
        )

    pump_all(target.trader, make, 4, target.ends(), read=True)


def app_names(target: Target) -> None:
    """Hellos, each of another app with a long name."""
    ends = target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.trader(os.urandom(100).hex()) as sock:
            sock.sendall(log(1, {"event": "one"}))


def hello_flood(target: Target) -> None:
    """New runs without pause on a few connections."""
    pump_all(target.unix, lambda _: b"".join(hello() for _ in range(500)), 4, target.ends(), read=True)


def hello_crash_flood(target: Target) -> None:
    """A hello, and the end without a goodbye, without pause."""
    ends = target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.trader():
            pass


def lost_flood(target: Target) -> None:
    """Frames that say that lines were lost, without pause."""

    def make(_: int) -> bytes:
        return b"".join(msgpack.packb([2, seq, seq, 1, "overflow"]) for seq in range(1, 20_000))

    pump_all(target.trader, make, 4, target.ends(), read=True)


def bad_frames(target: Target) -> None:
    """Frames of a kind that there is not."""
    pump_all(target.trader, lambda _: msgpack.packb([77, 1, "x"]) * 5000, 4, target.ends(), read=True)


def rejected_lines(target: Target) -> None:
    """Log frames that can never be accepted."""

    def make(_: int) -> bytes:
        return b"".join(log(seq, "no event dict", level="no level") for seq in range(1, 5000))

    pump_all(target.trader, make, 4, target.ends(), read=True)


def small_lines(target: Target) -> None:
    """The smallest lines without pause."""

    def make(_: int) -> bytes:
        return b"".join(log(seq, {"event": "x"}) for seq in range(1, 100_000))

    pump_all(target.trader, make, 2, target.ends(), read=True)


def critical_lines(target: Target) -> None:
    """Critical lines without pause: each asks for a sync."""

    def make(_: int) -> bytes:
        return b"".join(log(seq, {"event": "x"}, level="critical") for seq in range(1, 100_000))

    pump_all(target.trader, make, 2, target.ends(), read=True)


def big_lines(target: Target) -> None:
    """The largest lines without pause."""

    def make(_: int) -> bytes:
        return b"".join(log(seq, {"event": "x", "data": "d" * 60_000}) for seq in range(1, 200))

    pump_all(target.trader, make, 4, target.ends(), read=True)


def answers_unread(target: Target) -> None:
    """Frames that are answered, answers unread."""
    pump_all(target.trader, lambda _: msgpack.packb([77, 1, "x"]) * 5000, 20, target.ends())


def poisoned_seq(target: Target) -> None:
    """Runs whose first seq is the largest there is."""
    ends = target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.trader() as sock:
            sock.sendall(log(2**63 - 1, {"event": "x"}) + log(2**64 - 1, {"event": "x"}))


def huge_hellos(target: Target) -> None:
    """Hellos as long as one may be, with names of thousands of characters, without pause."""
    facts = {"protocol": 1, "app": "a" * 5_000, "host": "\u4e2d" * 1_500, "pid": os.getpid(), "started_ns": 1}

    def make(_: int) -> bytes:
        return msgpack.packb([0, facts | {"run": os.urandom(16), "more": [{}] * 6_000}])

    pump_all(target.unix, make, 20, target.ends(), read=True)


def other_pids(target: Target) -> None:
    """Runs of made-up processes, alive and dead ones, each with a line and no goodbye."""
    ends = target.ends()
    for n in itertools.count():
        if time.monotonic() > ends:
            return
        facts = {"protocol": 1, "run": os.urandom(16), "app": "besieger", "host": "siege", "pid": n % 30_000 + 1}
        first = msgpack.packb([0, facts | {"started_ns": time.time_ns(), "dead": n % 2 == 0, "ping": True}])
        with contextlib.suppress(OSError), target.unix() as sock:
            sock.sendall(first + log(1, {"event": "one"}))


def spool_replays(target: Target) -> None:
    """What 50 dead runs have left behind, delivered again and again from the first line on."""
    runs = [os.urandom(16) for _ in range(50)]
    old_ns = time.time_ns() - 7 * 86_400 * 10**9
    lines = b"".join(msgpack.packb([1, seq, old_ns + seq, "info", {"event": "left behind"}]) for seq in range(1, 400))
    numbers = itertools.count()

    def make(_: int) -> bytes:
        facts = {"protocol": 1, "run": runs[next(numbers) % 50], "app": "besieger", "host": "siege", "pid": 1}
        return msgpack.packb([0, facts | {"started_ns": old_ns, "dead": True}]) + lines

    ends = target.ends()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), target.unix() as sock:
            _send(sock, make(0))


def pings(target: Target) -> None:
    """Pings without pause, before hello and behind it, pongs read and unread."""
    frames, makes = b"\x91\x04" * 30_000, itertools.cycle((target.trader, target.unix))
    pump_all(lambda: next(makes)(), lambda _: frames, 8, target.ends(), read=True)


ATTACKS = {
    name: attack
    for name, attack in list(globals().items())
    if callable(attack) and not name.startswith("_") and getattr(attack, "__module__", "") == __name__
}
