"""The processor call by call, without a thread: what becomes of each event, and of the process's ends."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import sys
import types
from collections import deque

import msgpack
import pytest

from robo_trader.log_relay import frames, serializer
from robo_trader.log_relay import processor as module
from robo_trader.log_relay.descriptors import mark
from robo_trader.log_relay.outbox import FRAME_OVERHEAD
from robo_trader.log_relay.processor import LogRelayProcessor

NOW = 1_769_162_400_000_000_000


class Kernel:
    """What takes the bytes of a call: all of them unless told otherwise."""

    def __init__(self):
        self.sent = []
        self.takes = None
        self.error = None

    def send(self, data, flags):
        if self.error is not None:
            raise self.error
        taken = len(data) if self.takes is None else min(self.takes, len(data))
        self.sent.append((data[:taken], flags))
        return taken

    def frames(self):
        unpacker = msgpack.Unpacker()
        unpacker.feed(b"".join(data for data, _ in self.sent))
        return list(unpacker)


class Bench:
    """A processor without a thread, and the descriptor that its outbox sends on."""

    def __init__(self, **options):
        self.started = []
        self.processor = LogRelayProcessor("/nonexistent/s", **{"level": "debug", "app": "bot"} | options)
        self.out = self.processor._out
        self.sender = self.processor._sender
        self.kernel = Kernel()
        self.fd = os.eventfd(0)
        self.mark = mark(self.fd)

    def direct(self):
        """Let calls send themselves."""
        self.out.start_direct(self.kernel.send, self.fd, self.mark)
        self.out.sender_started()
        return self

    def log(self, method="info", **event):
        event = {"event": "e"} | event
        assert self.processor(None, method, event) is event

    def kept(self):
        """Return the frames that wait or are on the wire, by seq."""
        out = self.out
        queues = (out.sent_low, out.sent_high, out.unsent_low, out.unsent_high)
        return sorted((msgpack.unpackb(f) for queue in queues for f in queue), key=lambda frame: frame[1])

    def levels(self):
        return [frame[3] for frame in self.kept()]

    def stats(self):
        stats = self.processor.stats()
        assert stats["produced"] == stats["acked"] + stats["pending"] + sum(stats["dropped"].values())
        return stats


@pytest.fixture
def make(monkeypatch):
    """Make benches; no thread is started, and the time stands still."""
    made = []
    monkeypatch.setattr(module, "_time_ns", lambda: NOW)
    monkeypatch.delenv("LOGRELAY_DISABLED", raising=False)

    def make(**options):
        bench = Bench(**options)
        monkeypatch.setattr(type(bench.sender), "start", lambda sender: made[0].started.append(sender) or False)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.processor._closed = True
        os.close(bench.fd)


@pytest.fixture
def bench(make):
    return make()


# --- one call ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_a_line_goes_to_the_kernel_in_the_call(bench, level):
    """As one frame, remembered until it is acked."""
    bench.direct()
    event = {"event": "hi", "n": 1, "x": 1.5, "b": True, "none": None}
    for seq in (1, 2):
        assert bench.processor(None, level, event) is event
        frame = bench.kernel.frames()[-1]
        assert frame == [1, seq, NOW, level, event]
        assert bench.kernel.sent[-1][1] == module.SEND_FLAGS
        assert msgpack.packb(frame[4]) in bench.kernel.sent[-1][0]
    queue = bench.out.sent_high if level in ("warning", "error", "critical") else bench.out.sent_low
    assert list(queue) == [data for data, _ in bench.kernel.sent]
    assert bench.out.charged_bytes == sum(len(frame) + FRAME_OVERHEAD for frame in queue)
    assert (bench.out.seq, bench.out.baton, bench.started) == (2, [None], [])
    assert len(bench.processor._pool) == 1, "a packer is used again"


def test_without_a_connection_the_line_waits(bench):
    """And a thread is asked for, and woken, until there is one."""
    bench.log()
    assert bench.started == [bench.sender]
    assert bench.kept() == [[1, 1, NOW, "info", {"event": "e"}]]
    assert not bench.out.sent_low
    bench.out.sender_started()
    bench.log("error")
    assert len(bench.started) == 1
    assert bench.levels() == ["info", "error"]


@pytest.mark.parametrize("takes", [0, 5])
def test_what_the_kernel_does_not_take_is_finished_by_the_sender(bench, takes):
    """Callers queue from then on."""
    bench.direct()
    bench.kernel.takes = takes
    bench.log("error")
    assert bench.out.direct_send is None
    frame = frames.log(1, NOW, frames.LEVELS["error"], msgpack.packb({"event": "e"}))
    assert list(bench.out.unsent_high) == ([frame] if not takes else [])
    assert bench.out.to_write == (frame[takes:] if takes else b"")
    assert bench.stats()["pending"] == 1


@pytest.mark.parametrize("fault", ["error", "foreign"])
def test_a_descriptor_that_fails_or_is_not_ours(bench, fault):
    """Nothing is written, and the line stays."""
    bench.direct()
    if fault == "error":
        bench.kernel.error = BrokenPipeError()
    else:
        bench.out.direct_mark += 1
    bench.log()
    assert bench.kernel.sent == []
    assert len(bench.out.unsent_low) == 1
    assert bench.out.direct_send is None


def test_over_the_bound_lines_are_dropped_in_the_call(make):
    """Also those that were just sent."""
    bench = make(max_bytes=module.MIN_BYTES).direct()
    for _ in range(200):
        bench.log(text="x" * 2000)
    assert bench.out.charged_bytes <= module.MIN_BYTES == bench.stats()["max_bytes"]
    assert bench.stats()["pending"] == 200, "in doubt is not dropped"
    assert len(bench.kernel.sent) == 200


def test_lines_that_came_meanwhile_are_admitted(bench):
    """By whoever has just given the baton back."""
    bench.direct()
    bench.out.inbox.append((5, frames.LEVELS["error"], b"\x80"))
    bench.out.inbox_bytes = 1
    bench.log()
    assert [frame[:4] for frame in bench.kernel.frames()] == [[1, 1, NOW, "info"], [1, 2, 5, "error"]]


def test_a_line_beside_a_taken_baton_is_published(bench):
    """And admitted by the next call; a thread is asked for."""
    del bench.out.baton[0]
    bench.log("error", n=1)
    body = msgpack.packb({"event": "e", "n": 1})
    assert list(bench.out.inbox) == [(NOW, frames.LEVELS["error"], body)]
    assert bench.out.inbox_bytes == len(body)
    assert bench.started == [bench.sender]
    bench.out.sender_started()
    bench.log("error", n=1)
    assert len(bench.started) == 1
    bench.out.baton += (None,)
    bench.log()
    assert bench.levels() == ["info", "error", "error"]


class Thrown(BaseException):
    """Thrown into the call from outside."""


def test_an_exception_thrown_into_the_call_is_the_callers(bench):
    """The baton is back, and the sender repairs."""
    bench.direct()
    bench.kernel.error = Thrown()
    with pytest.raises(Thrown):
        bench.processor(None, "info", {"event": "e"})
    out = bench.out
    assert (out.direct_send, out.dirty, out.has_sender, out.baton) == (None, True, False, [None])
    out.repair()
    assert bench.stats()["produced"] == 1


def test_an_error_in_the_call_is_nobodys(bench):
    """The line that is in memory stays; the state is repaired."""
    bench.direct()
    bench.kernel.error = MemoryError()
    bench.log()
    assert (bench.out.direct_send, bench.out.dirty, bench.out.unencoded) == (None, True, 0)
    bench.out.repair()
    assert bench.stats()["pending"] == 1


def test_an_error_before_the_line_is_in_memory_counts_it(bench, monkeypatch):
    """It is told as lost, not forgotten."""
    monkeypatch.setattr(type(bench.out), "queue", lambda *args: (_ for _ in ()).throw(MemoryError()))
    bench.log()
    bench.out.dirty = False
    bench.log()
    assert bench.out.unencoded == 2
    monkeypatch.undo()
    bench.out.repair()
    bench.out.combine()
    assert bench.stats()["dropped"]["encode"] == 2


class Failing(deque):
    """A queue that has no memory for one more, or notices so too late."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def append(self, frame):
        if self.stage == "after":
            super().append(frame)
        raise MemoryError


@pytest.mark.parametrize("level", ["info", "error"])
@pytest.mark.parametrize("others", [[], [b"o"], [b"o", b"p"]])
@pytest.mark.parametrize("stage", ["before", "after"])
def test_a_line_is_counted_whenever_memory_runs_out(bench, level, others, stage):
    """As one that could not be encoded, unless it is in its queue: then the repair counts it."""
    bench.direct()
    failing = Failing(stage)
    failing.extend(others)
    bench.out.sent_low, bench.out.sent_high = (failing, deque(others)) if level == "info" else (deque(others), failing)
    bench.log(level)
    assert bench.out.unencoded == (stage == "before")
    assert (bench.out.seq, bench.out.dirty) == (0, True)
    assert bench.kernel.sent == []


@pytest.mark.parametrize("takes", [0, 5, None])
def test_an_error_after_the_line_was_taken_does_not_count_it_again(bench, monkeypatch, takes):
    """It has its seq, wherever it is."""
    bench.direct()
    bench.kernel.takes = takes
    bench.out.limit = 0
    monkeypatch.setattr(type(bench.out), "shed", lambda out: (_ for _ in ()).throw(MemoryError()))
    bench.log()
    assert (bench.out.seq, bench.out.unencoded, bench.out.dirty) == (1, 0, True)


def test_lines_beside_a_full_memory(bench, monkeypatch):
    """The inbox takes what fits in the bound, and its allowance beyond it; then the newest are counted."""
    size = len(msgpack.packb({"event": "e"}))
    out = bench.out
    del out.baton[0]
    for left, allowance, taken in ((size, 0, 1), (size - 1, 0, 0), (0, size, 1), (0, size - 1, 0), (-99, 3 * size, 3)):
        out.inbox.clear()
        out.inbox_bytes = out.overrun = 0
        out.charged_bytes = out.limit - left
        monkeypatch.setattr(module, "INBOX_BYTES", allowance)
        for _ in range(4):
            bench.log()
        assert (len(out.inbox), out.overrun) == (taken, 4 - taken)
    out.baton += (None,)


def test_the_baton_may_come_back_while_a_line_is_published(bench):
    """Then who published it admits it, as nobody else might."""

    class Inbox(deque):
        def append(self, line):
            super().append(line)
            bench.out.baton += (None,)

    bench.out.inbox = Inbox()
    bench.out.sender_started()
    del bench.out.baton[0]
    bench.log()
    assert len(bench.out.unsent_low) == 1
    assert not bench.out.inbox


def test_nothing_that_follows_the_call_reaches_the_caller(bench, monkeypatch):
    """A thread that cannot be started is counted."""

    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr(type(bench.processor), "_start", fail)
    bench.log()
    bench.log()
    assert bench.stats()["degraded"] == 2
    del bench.out.baton[0]
    bench.log()
    bench.log()
    assert bench.stats()["degraded"] == 4
    monkeypatch.setattr(bench.processor, "_slow_path", fail)
    bench.log(value=object())
    bench.log(value=object())
    bench.out.baton += (None,)
    assert (bench.stats()["degraded"], bench.out.unencoded) == (6, 2)


# --- levels -----------------------------------------------------------------------------------------------------------

NAMES = {
    "debug": ["debug", "trace", "adebug", "atrace", "DEBUG"],
    "info": ["info", "msg", "notice", "success", "log", "ainfo", "INFO", "unheard_of", None, 5],
    "warning": ["warning", "warn", "awarn", "WARNING"],
    "error": ["error", "err", "exception", "failure", "aexception", "ERROR"],
    "critical": ["critical", "fatal", "alert", "emergency", "panic", "afatal", "Critical"],
}


@pytest.mark.parametrize("word", NAMES)
def test_every_method_name_ends_as_one_of_the_five_words(bench, word):
    """As the method's name or as the event's level; the event's level is what counts."""
    for name in NAMES[word]:
        bench.log(name)
        assert bench.levels()[-1] == word
        if isinstance(name, str) and name != "unheard_of":
            for method in ("debug", "critical"):
                bench.log(method, level=name)
                assert bench.levels()[-1] == word
    bench.log(word, level="tier-1")
    assert bench.levels()[-1] == word, "a level that says nothing leaves it to the method"


@pytest.mark.parametrize(
    ("number", "word"),
    [
        *((-5, "debug"), (0, "debug"), (10, "debug"), (19, "debug"), (20, "info"), (29, "info"), (30, "warning")),
        *((39, "warning"), (40, "error"), (49, "error"), (50, "critical"), (99, "critical")),
    ],
)
def test_a_number_ends_as_the_word_below_it(bench, number, word):
    """Wherever it stands."""
    bench.log("trade", level_number=number)
    bench.log("trade", _record=types.SimpleNamespace(levelno=number))
    bench.log("error" if number == 20 else "trade", level=f"{number}", level_number=number)
    if number >= 0:
        bench.log(f"level {number}", level=f"level {number}")
    assert set(bench.levels()[:2]) == {word}
    if number >= 0:
        assert bench.levels()[-1] == word


def test_a_number_that_is_none_is_info(bench):
    """Not digits, too many of them, no int."""
    for method, event in (
        ("level x", {}),
        ("level 1234567890", {}),
        ("trade", {"level_number": "50"}),
        ("trade", {"level_number": True}),
        ("trade", {"_record": types.SimpleNamespace(levelno="50")}),
        ("trade", {"_record": None}),
        (types.SimpleNamespace(), {}),
    ):
        bench.log(method, **event)
    assert bench.levels() == ["info"] * 7
    bench.log("level 999999999")
    assert bench.levels()[-1] == "critical"


@pytest.mark.parametrize(
    ("level", "taken"),
    [
        *(("debug", 5), ("info", 4), ("WARN", 3), ("warning", 3), ("error", 2), ("fatal", 1), (0, 5), (11, 4)),
        *((20, 4), (21, 3), (50, 1), (51, 0)),
    ],
)
def test_lines_below_the_level_are_not_taken(make, level, taken):
    """Neither on the fast way nor on the slow one."""
    bench = make(level=level)
    for word in module.RANKS:
        bench.log(word)
    assert bench.levels() == list(module.RANKS)[5 - taken :]
    for word in module.RANKS:
        bench.log(word, value=[])
    assert len(bench.kept()) == 2 * taken


@pytest.mark.parametrize("level", ["loud", True, 1.5, ""])
def test_a_level_that_makes_no_sense_is_named(level):
    """With what would."""
    with pytest.raises(ValueError, match=r"^level is .*, must be ") as caught:
        LogRelayProcessor(level=level)
    said = "one of debug, info, warning, error, critical or a number" if isinstance(level, str) else "a level's name or"
    assert said in str(caught.value)
    assert repr(level) in str(caught.value)


def test_bounds_that_make_no_sense_are_named():
    """The least values are allowed."""
    least = module.MIN_BYTES
    with pytest.raises(
        ValueError, match=f"^max_bytes is {least - 1}, must be a whole number of bytes, {least} or more; leave it out"
    ):
        LogRelayProcessor(max_bytes=least - 1, disabled=True)
    with pytest.raises(
        ValueError, match=r"^exit_timeout is -0.1, must be a number of seconds, 0 or more; leave it out for 2$"
    ):
        LogRelayProcessor(exit_timeout=-0.1, disabled=True)
    LogRelayProcessor(max_bytes=least, exit_timeout=0, disabled=True)


# --- loggers ----------------------------------------------------------------------------------------------------------


def test_excluded_loggers_and_their_children(make):
    """By default audit and security, as any part of a name; a name may be given alone; only whole parts count."""
    private = ["audit", "audit.a", "x.audit", "bot.security.b", "security.b.c"]
    for options, out in (({}, private), ({"exclude": "risk"}, ["risk", "risk.x"])):
        bench = make(**options)
        for _ in range(2):
            for name in (*out, "auditor", "x.risk", "", None, 5):
                bench.log(logger=name)
                bench.log(logger=name, value=[])
        assert bench.stats()["excluded"] == 4 * len(out)
        assert len(bench.kept()) == 20
    bench = make(exclude=())
    bench.log(logger="audit")
    assert bench.stats()["excluded"] == 0


def test_names_of_loggers_that_are_remembered_are_bounded(bench, monkeypatch):
    """After the bound they are learned anew, and judged as before."""
    monkeypatch.setattr(module, "SOURCES", 5)
    for number in range(20):
        bench.log(logger=f"bot.{number}")
        bench.log(logger="audit")
        assert len(bench.processor._sources) <= 5
        assert bench.processor._sources[None] is False
    assert bench.stats()["excluded"] == 20


# --- the slow way -----------------------------------------------------------------------------------------------------


def slow_calls(bench, monkeypatch):
    calls = []
    real = bench.processor._slow_path
    monkeypatch.setattr(bench.processor, "_slow_path", lambda *args: calls.append(args) or real(*args))
    return calls


@pytest.mark.parametrize(
    ("event", "slow"),
    [
        ({"t": "x" * module.FAST_TEXT}, 0),
        ({"t": "x" * (module.FAST_TEXT + 1)}, 1),
        ({"k" * module.FAST_KEY: 1}, 0),
        ({"k" * (module.FAST_KEY + 1): 1}, 1),
        ({1: 2}, 1),
        ({"v": []}, 1),
        ({"v": 2**70}, 1),
        ({"exc_info": None}, 1),
        ({"v": "\ud800"}, 1),
        ({f"k{n}": n for n in range(300)}, 0),
    ],
    ids=range(10),
)
def test_what_goes_the_slow_way(bench, monkeypatch, event, slow):
    """Everything but short texts and numbers under short keys; either way it is the same line."""
    calls = slow_calls(bench, monkeypatch)
    whole = {"event": "e"} | event
    for _ in range(2):
        assert bench.processor(None, "info", whole) is whole
    assert len(calls) == 2 * slow
    assert len(bench.kept()) == 2
    assert bench.stats()["degraded"] == 0


def test_keys_that_are_remembered_are_bounded(bench, monkeypatch):
    """Beyond the bound they are looked at each time, and the line goes the fast way all the same."""
    monkeypatch.setattr(module, "KEYS", 4)
    calls = slow_calls(bench, monkeypatch)
    bench.processor(None, "info", {"a": 1, "b": 2})
    bench.processor(None, "info", {"c": 1, "d": 2})
    assert bench.processor._keys == {"a", "b", "c", "d"}
    bench.processor(None, "info", {"e": 1, "f": 2})
    assert len(bench.processor._keys) == 4
    assert calls == []
    bench.processor(None, "info", {str(n): 1 for n in range(4)})
    assert len(calls) == 0
    bench.processor(None, "info", {str(n): 1 for n in range(5)})
    assert len(calls) == 1
    assert len(bench.kept()) == 5


def test_a_line_that_is_too_big_is_cut_until_it_fits(bench):
    """And says what was cut."""
    bench.log(small="s", big=["x" * 10_000] * 50)
    (line,) = bench.kept()
    assert line[4]["small"] == "s"
    assert line[4][serializer.MARK] == ["big"]
    assert bench.stats()["truncated"] == 1
    assert bench.stats()["degraded"] == 0
    fast = {f"k{n}": "x" * 4000 for n in range(20)}
    bench.processor(None, "info", fast)
    assert bench.stats()["truncated"] == 2
    assert serializer.MARK not in fast
    assert all(len(frame) <= frames.MAX_FRAME for frame in bench.out.unsent_low)
    bench.log(v=[1])
    assert serializer.MARK not in bench.kept()[-1][4]
    assert bench.stats()["truncated"] == 2


def test_a_line_that_just_fits_is_whole(bench):
    """One more byte, and it is cut."""
    event = {name: "x" * 16_384 for name in "abc"} | {"d": ""}
    left = frames.MAX_BODY - len(msgpack.packb(event | {"d": "x" * 300})) + 300
    for more in (0, 1):
        bench.processor(None, "info", event | {"d": "x" * (left + more)})
        assert bench.stats()["truncated"] == more
    assert len(bench.out.unsent_low[0]) == frames.MAX_BODY + frames.HEADER.size + len(frames.LEVELS["info"])


def test_a_value_that_cannot_be_shown_is_counted(bench):
    """Once for the line."""

    class Failing:
        def __repr__(self):
            raise ValueError

    bench.log(a=Failing(), b=Failing())
    assert bench.stats()["degraded"] == 1
    bench.log(a=Failing())
    assert bench.stats()["degraded"] == 2
    assert bench.kept()[0][4]["a"] == "<Failing (ValueError)>"


@pytest.mark.parametrize(
    ("thing", "event"),
    [
        ("a rendered line", {"event": "a rendered line"}),
        (b"bytes", {"event": "bytes"}),
        (5, {"event": "<int>"}),
        (None, {"event": "<NoneType>"}),
        ((), {"event": "<tuple>"}),
        (((),), {"event": "<tuple>"}),
        ((5,), {"event": "<tuple>"}),
        (((5,),), {"event": "<tuple>"}),
        ((({"event": "wrapped", "n": 1},), {"extra": {}}), {"event": "wrapped", "n": 1}),
        (deque(), {"event": "<deque>"}),
    ],
)
def test_what_is_no_event_is_a_line_all_the_same(bench, thing, event):
    """Something behind us has rendered too early; that is counted, the line is not lost."""
    assert bench.processor(None, "error", thing) is thing
    assert [(frame[3], frame[4]) for frame in bench.kept()] == [("error", event)]
    assert bench.stats()["degraded"] == 1


class Forged(dict):
    def items(self):
        return [("event", "forged")]


def test_no_code_of_an_event_decides_what_is_shipped(bench):
    """A dict of another class is copied as the dict it is."""
    event = Forged(event="real")
    assert bench.processor(None, "info", event) is event
    assert bench.kept()[0][4] == {"event": "real"}


def test_a_line_that_cannot_be_encoded_is_told_as_lost(bench, monkeypatch):
    """At its place."""
    bench.log()
    monkeypatch.setattr(serializer, "copy", lambda *args: 1 / 0)
    bench.log(v=[])
    assert bench.stats()["dropped"]["encode"] == 1
    assert [(gap.first, gap.last, gap.cause) for gap in bench.out.unreported_gaps] == [(2, 2, "encode")]
    assert len(bench.started) == 2
    bench.out.sender_started()
    bench.log(v=[])
    assert len(bench.started) == 2


# --- for people -------------------------------------------------------------------------------------------------------


def test_the_counters_of_a_run(bench, monkeypatch):
    """All of them, at the beginning and later."""
    stats = bench.stats()
    assert stats == {
        "run": bench.processor._run.hex(),
        "state": "idle",
        "produced": 0,
        "acked": 0,
        "pending": 0,
        "buffered_bytes": 0,
        "max_bytes": module.MAX_BYTES,
        "dropped": {"overflow": 0, "too_big": 0, "encode": 0, "rejected": 0, "rejected_repeatedly": 0},
        "degraded": 0,
        "truncated": 0,
        "excluded": 0,
        "ignored": 0,
        "reconnects": 0,
        "given_up": 0,
        "link_errors": 0,
        "bad_answers": 0,
        "refusal": "",
        "oldest_unacked_age": 0.0,
    }
    assert len(bytes.fromhex(stats["run"])) == 16
    bench.log()
    bench.out.inbox_bytes = 7
    bench.sender.refusal, bench.sender.reconnects, bench.sender.link_errors, bench.out.bad_answers = "no", 3, 4, 5
    monkeypatch.setattr(module.time, "time_ns", lambda: NOW + 2_500_000_000)
    stats = bench.processor.stats()
    assert stats["oldest_unacked_age"] == 2.5
    assert stats["buffered_bytes"] == bench.out.charged_bytes + 7
    assert [stats[k] for k in ("refusal", "reconnects", "link_errors", "bad_answers")] == ["no", 3, 4, 5]
    monkeypatch.setattr(module.time, "time_ns", lambda: NOW - 1)
    assert bench.processor.stats()["oldest_unacked_age"] == 0.0
    stats["dropped"]["overflow"] = 99
    assert bench.out.dropped["overflow"] == 0


@pytest.mark.parametrize(("value", "given", "disabled"), [("1", None, True), ("0", None, False), ("1", False, False)])
def test_disabled(make, monkeypatch, value, given, disabled):
    """By the environment unless told otherwise: then every call, flush and close is a no-op."""
    monkeypatch.setenv("LOGRELAY_DISABLED", value)
    bench = make(disabled=given)
    bench.log()
    assert bench.processor.stats()["state"] == ("disabled" if disabled else "idle")
    assert bench.stats()["produced"] == (not disabled)
    assert bench.stats()["ignored"] == disabled
    if disabled:
        assert bench.processor.flush(0.0) is True
        assert bench.processor.close(0.0) is True
        assert bench.processor.stats()["state"] == "disabled"


class Sender:
    """Stands in for the sender, and notes what it is asked for."""

    def __init__(self, state="idle", answer=True):
        self.state, self.answer = state, answer
        self.calls = []
        self.refusal, self.reconnects, self.given_up, self.link_errors = "", 0, 0, 0

    def flush(self, timeout):
        self.calls.append(("flush", timeout))
        return self.answer

    def finish(self, timeout, *, close):
        self.calls.append(("finish", timeout, close))
        return self.answer

    def print_summary(self, when="at exit"):
        self.calls.append(("print_summary",) if when == "at exit" else ("print_summary", when))

    def wake(self):
        self.calls.append(("wake",))

    def start(self):
        self.calls.append(("start",))
        return False

    def abandon(self):
        self.calls.append(("abandon",))

    def forget_in_child(self):
        self.calls.append(("forget_in_child",))


@pytest.mark.parametrize("answer", [True, False])
def test_flush_and_close_ask_the_sender(bench, answer):
    """With the time allowed; what could not be sent is said, and later lines are only counted."""
    sender = bench.processor._sender = Sender("up", answer)
    assert bench.processor.flush() is answer
    assert bench.processor.flush(7.0) is answer
    assert bench.processor.close(3.0) is answer
    said = [] if answer else [("print_summary", "at close")]
    assert sender.calls == [("flush", 2.0), ("flush", 7.0), ("finish", 3.0, True), *said]
    assert bench.processor.stats()["state"] == "closed"
    bench.log()
    bench.log()
    assert (bench.stats()["ignored"], bench.stats()["produced"]) == (2, 0)
    assert bench.processor.flush(7.0) is True
    assert bench.processor.close(7.0) is True
    assert len(sender.calls) == 3 + len(said)


def test_close_takes_as_long_as_an_exit(make):
    """Unless told otherwise; a processor that never had a line has nothing to close."""
    bench = make(exit_timeout=0.75)
    sender = bench.processor._sender = Sender("idle")
    assert bench.processor.close() is True
    assert sender.calls == []
    bench = make(exit_timeout=0.75)
    sender = bench.processor._sender = Sender("idle")
    bench.log()
    sender.calls.clear()
    bench.processor.close()
    assert sender.calls == [("finish", 0.75, True)]


# --- the ends of the process ------------------------------------------------------------------------------------------


def test_at_exit_what_is_there_is_sent(make, monkeypatch):
    """Within the budget, which is spent once; each time it is told what could not be sent, some times."""
    bench = make(exit_timeout=2.0)
    sender = bench.processor._sender = Sender("up")
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    real = sender.finish

    def finish(timeout, *, close):
        now[0] += 1.5
        return real(timeout, close=close)

    sender.finish = finish
    bench.out.sender_started()
    for _ in range(3):
        bench.processor._at_exit()
    assert sender.calls == [
        ("finish", 2.0, False),
        ("print_summary",),
        ("finish", 0.5, False),
        ("print_summary",),
        ("finish", 0.0, False),
        ("print_summary",),
    ]
    assert bench.out.has_sender is False
    for _ in range(20):
        bench.processor._at_exit()
    assert sender.calls.count(("print_summary",)) == module.LATE_REPORTS


def test_at_exit_of_a_run_without_lines_nothing_happens(bench):
    """Nor after close."""
    sender = bench.processor._sender = Sender("idle")
    bench.processor._at_exit()
    assert sender.calls == []
    assert bench.processor._ending == 1
    bench.processor._closed = True
    bench.processor._at_exit()
    assert bench.processor._ending == 1


def test_a_line_after_the_exit_is_sent_by_its_own_thread(bench):
    """There may be no other any more."""
    sender = bench.processor._sender = Sender("up")
    bench.log()
    assert sender.calls == [("start",), ("wake",)]
    bench.processor._at_exit()
    sender.calls.clear()
    bench.log()
    assert [call[0] for call in sender.calls] == ["start", "wake", "finish", "print_summary"]


def test_the_hooks_reach_every_processor_that_lives(make, monkeypatch):
    """Registered once; a processor that is gone, or disabled, is none of theirs."""
    registered = []
    monkeypatch.setattr(module, "_living", {})
    monkeypatch.setattr(module, "_hooked", [])
    monkeypatch.setattr(module.os, "register_at_fork", lambda **kwargs: registered.append(kwargs))
    monkeypatch.setattr(module.atexit, "register", lambda hook: registered.append(hook))
    living = module._living
    monkeypatch.setattr(module._register, "__defaults__", None)
    one, other = make(), make()
    assert registered == [{"after_in_child": module._forked}, module._exiting]
    disabled = make(disabled=True)
    assert len(living) == 2
    senders = []
    for bench in (one, other, disabled):
        bench.processor._sender = Sender("up")
        senders.append(bench.processor._sender)
    module._exiting()
    assert [sender.calls != [] for sender in senders] == [True, True, False]
    module._exit_of(module.weakref.ref(one.processor))
    assert [call[0] for call in senders[0].calls] == ["finish", "print_summary"] * 2
    runs = [bench.processor._run for bench in (one, other)]
    module._forked()
    assert senders[0].calls[-1] == senders[1].calls[-1] == ("forget_in_child",)
    assert one.processor._run != runs[0]
    assert other.processor._run != runs[1]
    assert one.processor._out is not one.out
    assert one.processor._sender is not senders[0]


def test_a_processor_that_is_gone_lets_its_thread_end(monkeypatch):
    """And is forgotten by the hooks."""
    monkeypatch.delenv("LOGRELAY_DISABLED", raising=False)
    processor = LogRelayProcessor("/nonexistent/s")
    key = id(processor)
    assert key in module._living
    sender = processor._sender = Sender("up")
    ref = module.weakref.ref(processor)
    del processor
    gc.collect()
    assert ref() is None
    assert sender.calls == [("abandon",)]
    assert key not in module._living
    module._exit_of(ref)
    LogRelayProcessor.__new__(LogRelayProcessor).__del__()


@pytest.mark.parametrize("late", [False, True])
def test_the_end_of_a_childs_work_is_noted_where_exit_handlers_see_nothing_of_it(monkeypatch, make, late):
    """As multiprocessing does it from Python 3.13 on; the exception looks as it would otherwise."""

    class Process:
        def run(self):
            raise ValueError("out of luck")

        def _bootstrap(self, sentinel):
            try:
                self.run()
            except ValueError as error:
                return [entry.tb_frame.f_code.co_name for entry in traceback(error)], sentinel

    def traceback(error):
        entry = error.__traceback__
        while entry is not None:
            yield entry
            entry = entry.tb_next

    told = []
    monkeypatch.setattr(module, "CHILD_ENDS_UNSEEN", late)
    monkeypatch.setattr(module, "_watching", [])
    monkeypatch.setattr(module, "_ended_by", [])
    monkeypatch.setattr(module, "_living", {})
    monkeypatch.setitem(sys.modules, "multiprocessing.process", types.SimpleNamespace(BaseProcess=Process))
    one = make().processor
    monkeypatch.setattr(LogRelayProcessor, "_at_exit", lambda _, *what: told.append(what))
    module._forked()
    module._forked()  # its child: watched as it is
    assert Process()._bootstrap(7) == (["_bootstrap", "run"], 7)
    module._exit_of(module.weakref.ref(one))
    module._exiting()
    module._exit_of(module.weakref.ref(one))
    assert [(type(error).__name__, words) for error, words in told] == (
        [("ValueError", "uncaught ValueError")] * 2 + [("NoneType", "")] if late else [("NoneType", "")] * 3
    )


def test_a_copy_is_a_processor_of_its_own(make, monkeypatch):
    """With the same settings and another run; also by pickle."""
    options = {"spool": None, "level": 30, "app": "x", "max_bytes": 1 << 20, "exclude": ("risk",), "exit_timeout": 0.25}
    bench = make(**options, disabled=False)
    for other in (
        copy.copy(bench.processor),
        copy.deepcopy(bench.processor),
        pickle.loads(pickle.dumps(bench.processor)),
    ):
        assert other is not bench.processor
        assert other._settings == bench.processor._settings == {
            "socket": "/nonexistent/s", "disabled": False, "redact": True
        } | options  # fmt: skip
        assert other._run != bench.processor._run
        assert other._out.limit == 1 << 20
        other._closed = True


def test_hello_says_who_we_are(make, monkeypatch):
    """As it is when the connection is made."""
    monkeypatch.setattr(module, "gethostname", lambda: "box")
    monkeypatch.setattr(module.time, "time_ns", lambda: NOW)
    bench = make(app="bot")
    monkeypatch.setattr(module.os, "getpid", lambda: 4711)
    assert msgpack.unpackb(bench.sender._make_hello()) == [
        0,
        {
            "protocol": 1,
            "run": bench.processor._run,
            "app": "bot",
            "host": "box",
            "pid": 4711,
            "started_ns": NOW,
            "ping": True,
        },
    ]
    assert bench.sender._out is bench.out
    assert bench.sender._path == "/nonexistent/s"
    assert bench.sender._exit_timeout == 2.0
    assert bench.sender._wakeup.set == bench.out._on_blocked


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/opt/bots/grid.py"], "grid"),
        (["grid"], "grid"),
        (["/opt/robo_trader/__main__.py", "x"], "robo_trader"),
        ([""], "trader"),
        ([], "trader"),
        (None, "trader"),
        (["/__main__.py"], "trader"),
        ([" .py"], "trader"),
    ],
)
def test_a_program_without_a_name_is_called_by_its_script(monkeypatch, argv, name):
    """Or by its package."""
    if argv is None:
        monkeypatch.delattr(sys, "argv")
    else:
        monkeypatch.setattr(sys, "argv", argv)
    assert module._program() == name


def test_a_child_of_multiprocessing_flushes_at_its_end(bench, monkeypatch):
    """Its exit runs no atexit hooks; elsewhere nothing is registered."""
    finalized = []
    util = types.SimpleNamespace(Finalize=lambda *args, **kwargs: finalized.append((args, kwargs)))
    parent = [object()]
    current = types.SimpleNamespace()
    process = types.SimpleNamespace(parent_process=lambda: parent[0], current_process=lambda: current)
    monkeypatch.setitem(sys.modules, "multiprocessing.util", util)
    monkeypatch.setitem(sys.modules, "multiprocessing.process", process)
    starts = [True, False]
    monkeypatch.setattr(type(bench.sender), "start", lambda sender: starts.pop(0))
    bench.processor._start()
    ((args, kwargs),) = finalized
    assert args == (None, module._exit_of)
    assert kwargs["args"][0]() is bench.processor
    assert kwargs["exitpriority"] == -100
    bench.processor._start()
    assert len(finalized) == 1, "another call started the thread"
    parent[0] = None
    module._in_multiprocessing_child(bench.processor)
    later = []
    util.register_after_fork = lambda obj, function: later.append((obj, function))
    current._inheriting = True  # it imports the main module, and its work has not begun
    module._in_multiprocessing_child(bench.processor)
    assert len(finalized) == 2, "a spawned child is told nothing more"
    ((processor, function),) = later
    function(processor)
    assert len(finalized) == 3, "under forkserver multiprocessing has forgotten it"
    assert {call[0] for call in (finalized.pop(), finalized.pop())} == {(None, module._exit_of)}
    parent[0] = object()
    for name in ("multiprocessing.util", "multiprocessing.process"):
        with monkeypatch.context() as patch:
            patch.delitem(sys.modules, name)
            module._in_multiprocessing_child(bench.processor)
    assert len(finalized) == 1
    bench.processor._closed = True
    bench.processor._start()
    assert starts == []
