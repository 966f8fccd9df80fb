"""A small real relay end for the trader's tests: wire protocol v1 over a real Unix socket, with its own decoder.

It shares no code with either side. Run in a thread (`Peer`) it can stall, stay mute and misbehave on command; run as a
process (`PeerProcess`, or `python -m tests.support.wire_peer SOCKET JOURNAL`) it can be stopped, continued and killed,
and its journal file tells the next one what was committed. It commits before it acks, ignores what it has, and notes
every hole and every broken rule in `complaints`.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path

import msgpack

from tests.support.threads import join
from tests.support.waiting import DEADLINE_S, wait_for

ROOT = str(Path(__file__).resolve().parents[2])

LEVELS = {"debug", "info", "warning", "error", "critical"}
CAUSES = {"overflow", "too_big", "rejected_repeatedly", "encode"}


class Connection:
    def __init__(self, sock):
        self.sock = sock
        self.fd = sock.fileno()
        self.run = None
        self.hello = None
        self.raw = bytearray()
        self.frames = []
        self.used = 0
        self.unpacker = msgpack.Unpacker(max_buffer_size=2**24, strict_map_key=False)
        self.acked = 0
        self.ack_due = None
        self.ended = None
        pid = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid = struct.unpack("3i", pid)[0]


_started = weakref.WeakSet()
"""Peers whose thread runs."""

DRAIN_READS = 1_000
"""Reads of one connection in one `read_all`: a megabyte each, more than any test sends; one that talks on ends it."""


def all_peers_read():
    """Have every peer of this process read what the kernel holds for it, for instance from a bot that has ended."""
    for peer in list(_started):
        peer.read_all()


class Peer:
    """The relay end as a thread. Attributes may be set while it runs; see the defaults in `__init__`."""

    def __init__(self, path, journal=None, backlog=128):
        self.path = str(path)
        self.journal = None if journal is None else str(journal)
        self.backlog = backlog
        # behaviour
        self.reading = True  # False: accept, never read (a stalled relay)
        self.accepting = True
        self.welcoming = True
        self.acking = True
        self.ack_delay = 0.005  # seconds between two acks of a connection
        self.pause = 0.0  # seconds without reading after a read: a relay that coalesces
        self.keep_raw = False
        self.keep_lines = True
        self.on_frame = None  # (connection, frame) -> True: take no further action
        self.refuse = None  # reason: refuse every hello
        # what happened
        self.lines = {}  # run -> [(seq, time_ns, level, event)]
        self.lost = {}  # run -> [(first, last, cause)]
        self.last = Counter()  # run -> last seq used up
        self.byes = {}  # run -> [last_seq]
        self.failures = {}  # run -> why it said that it fails
        self.connections = []
        self.complaints = []
        self.received = Counter()  # run -> frames received, repeats included
        self.repeats = 0
        self._commands = []
        self._thread = None
        self._stop = False
        self._listener = None
        self._book = None
        self._wakeup_fd = None

    # -- life ------------------------------------------------------------------------------------

    def start(self):
        if self.journal is not None:
            self._load()
            self._book = open(self.journal, "ab", buffering=0)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(self.backlog)
        self._listener.setblocking(False)
        self._wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stop = False
        self._thread = threading.Thread(target=self._serve, name="peer", daemon=True)
        self._thread.start()
        _started.add(self)
        return self

    def stop(self, unlink=True):
        """Close everything at once, as a relay that exits does."""
        if self._thread is None:
            return
        _started.discard(self)
        self._stop = True
        self.poke()
        join(self._thread)
        self._thread = None
        if unlink:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        os.close(self._wakeup_fd)
        if self._book is not None:
            self._book.close()

    def poke(self):
        """Make the thread notice a changed attribute now."""
        os.eventfd_write(self._wakeup_fd, 1)

    def do(self, action):
        """Run `action()` in the peer's thread and wait for it; what it raises is raised here."""
        done, raised = threading.Event(), []

        def run():
            try:
                action()
            except Exception as error:
                raised.append(error)

        self._commands.append((run, done))
        self.poke()
        assert done.wait(DEADLINE_S)
        if raised:
            raise raised[0]

    def read_no_more(self):
        """Stop reading; when this returns no byte more is read."""
        self.reading = False
        self.do(lambda: None)

    def read_all(self):
        """Accept and read whatever has been sent up to now, unless this peer is told to be slow.

        What a process has given to the kernel before its end is read then, and a test may look at it.
        """
        if self.accepting and self.reading and not self.pause and threading.current_thread() is not self._thread:
            self.do(self._drain)

    def send(self, data, connection=None):
        """Send raw bytes to a trader (default: the newest connection, which may have to be accepted first)."""
        if connection is None:
            wait_for(self.live, "a connection")
        self.do(lambda: (connection or self.live()[-1]).sock.sendall(data))

    def hang_up(self):
        """Close every connection, also one that is only now accepted; keep listening."""

        def close_all():
            if self.accepting:
                self._accept_all()
            for c in self.live():
                self._end(c, "hung up")

        self.do(close_all)

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.stop()

    # -- questions -------------------------------------------------------------------------------

    def live(self):
        return [c for c in self.connections if c.ended is None]

    def run(self):
        """The only run seen so far."""
        runs = {c.run for c in self.connections if c.run}
        assert len(runs) == 1, runs
        return runs.pop()

    def events(self, run=None):
        """The event dicts of a run (default: of all runs), in order."""
        return [line[3] for key, lines in list(self.lines.items()) if run in (None, key) for line in list(lines)]

    def seqs(self, run=None):
        return [line[0] for key, lines in list(self.lines.items()) if run in (None, key) for line in list(lines)]

    def count(self):
        return sum(len(lines) for lines in list(self.lines.values()))

    def lost_count(self, cause=None):
        return sum(
            last - first + 1
            for spans in list(self.lost.values())
            for first, last, why in list(spans)
            if cause in (None, why)
        )

    def wait_lines(self, count):
        wait_for(lambda: self.count() >= count, lambda: f"{count} lines (has {self.count()})")

    def wait_event(self, name):
        """Wait for a line whose event is `name` and return its event dict."""
        wait_for(lambda: any(e.get("event") == name for e in self.events()), f"the event {name!r}")
        return next(e for e in self.events() if e.get("event") == name)

    # -- the loop --------------------------------------------------------------------------------

    def _serve(self):
        quiet_until = {}
        while not self._stop:
            poll = select.poll()
            poll.register(self._wakeup_fd, select.POLLIN)
            if self.accepting:
                poll.register(self._listener, select.POLLIN)
            now = time.monotonic()
            due = []
            by_fd = {}
            for c in self.live():
                by_fd[c.fd] = c
                if c.ack_due is not None:
                    due.append(c.ack_due)
                until = quiet_until.get(c.fd, 0.0)
                if self.reading and until <= now:
                    poll.register(c.fd, select.POLLIN)
                elif self.reading:
                    due.append(until)
            timeout = None if not due else max(0.0, min(due) - now) * 1000
            for fd, _events in poll.poll(timeout):
                if fd == self._wakeup_fd:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wakeup_fd)
                elif fd == self._listener.fileno():
                    with contextlib.suppress(BlockingIOError):
                        self._accept()
                elif fd in by_fd and by_fd[fd].ended is None:  # a run's other connection may have ended it just now
                    self._read(by_fd[fd])
                    if self.pause:
                        quiet_until[fd] = time.monotonic() + self.pause
            while self._commands:
                action, done = self._commands.pop(0)
                action()
                done.set()
            now = time.monotonic()
            for c in self.live():
                if c.ack_due is not None and c.ack_due <= now:
                    self._ack(c)
        for c in self.live():
            self._end(c, "stopped")
        self._listener.close()

    def _accept(self):
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        self.connections.append(Connection(sock))

    def _accept_all(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                self._accept()

    def _drain(self):
        self._accept_all()
        for c in self.live():
            poll = select.poll()
            poll.register(c.fd, select.POLLIN)
            for _ in range(DRAIN_READS):
                if c.ended or not poll.poll(0):
                    break
                self._read(c)

    def _end(self, c, why):
        c.ended = why
        c.sock.close()

    def _read(self, c):
        try:
            data = c.sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(c, type(error).__name__)
            return
        if not data:
            self._end(c, "EOF")
            return
        if self.keep_raw:
            c.raw += data
        commit = []
        try:
            c.unpacker.feed(data)
            while True:
                before = c.unpacker.tell()
                try:
                    frame = c.unpacker.unpack()
                except msgpack.OutOfData:
                    break
                self._frame(c, frame, c.unpacker.tell() - before, commit)
                if c.ended:
                    break
        except Exception as error:
            self.complaints.append(f"undecodable: {type(error).__name__}: {error}")
            self._end(c, "garbage")
        if self._book is not None and commit:
            self._book.write(b"".join(commit))

    def _frame(self, c, frame, size, commit):
        if size > 65536:
            self.complaints.append(f"a frame of {size} bytes")
        if self.on_frame is not None and self.on_frame(c, frame):
            return
        kind = frame[0]
        if c.hello is None:
            if kind != 0 or frame[1].get("protocol") != 1 or len(frame[1]["run"]) != 16:
                self.complaints.append(f"no hello first: {frame!r}")
                self._end(c, "no hello")
                return
            c.hello = frame[1]
            c.run = c.hello["run"]
            if c.hello["pid"] != c.pid:
                self.complaints.append(f"pid {c.hello['pid']} over a connection of {c.pid}")
            for other in self.live():
                if other is not c and other.run == c.run:
                    self._end(other, "owned by another")
            c.acked = self.last[c.run]
            if self.refuse is not None:
                with contextlib.suppress(BrokenPipeError):
                    c.sock.send(msgpack.packb([3, self.refuse]))
                self._end(c, "refused")
            elif self.welcoming:
                with contextlib.suppress(BrokenPipeError):
                    c.sock.send(msgpack.packb([0, {"protocol": 1, "acked": self.last[c.run]}]))
            return
        run = c.run
        last = self.last[run]
        if kind == 0 and frame[1]["run"] == run:  # hello again says at most why the run fails
            if "failed" in frame[1]:
                self.failures.setdefault(run, []).append(frame[1]["failed"])
            else:
                self.complaints.append("hello again, for nothing")
        elif kind == 1:
            _, seq, time_ns, level, event = frame
            self.received[run] += 1
            if level not in LEVELS or type(event) is not dict or not all(type(k) is str for k in event):
                self.complaints.append(f"a log frame with wrong types: {frame!r}"[:300])
            if depth(event) > 16:
                self.complaints.append(f"depth {depth(event)}")
            if seq <= last:
                self.repeats += 1
            else:
                if seq != last + 1:
                    self.complaints.append(f"a hole: {last} then {seq}")
                if self.keep_lines:
                    self.lines.setdefault(run, []).append((seq, time_ns, level, event))
                self.last[run] = seq  # last: who sees it finds the line
                if self._book is not None:
                    commit.append(msgpack.packb([run, *frame]))
        elif kind == 2:
            _, first, end, count, cause = frame
            if count != end - first + 1 or cause not in CAUSES or first > end:
                self.complaints.append(f"a lost frame that is wrong: {frame!r}")
            if end > last:
                if first > last + 1:
                    self.complaints.append(f"a hole: {last} then lost {first}")
                self.lost.setdefault(run, []).append((max(first, last + 1), end, cause))
                self.last[run] = end
                if self._book is not None:
                    commit.append(msgpack.packb([run, 2, max(first, last + 1), end, count, cause]))
            else:
                self.repeats += 1
        elif kind == 3:
            self.byes.setdefault(run, []).append(frame[1])
            if frame[1] != self.last[run]:
                self.complaints.append(f"bye for {frame[1]} after {self.last[run]}")
            c.ack_due = 0.0
            return
        else:
            self.complaints.append(f"unknown kind: {frame!r}")
        if c.ack_due is None:
            c.ack_due = time.monotonic() + self.ack_delay

    def _ack(self, c):
        if not self.acking:
            c.ack_due = None
            return
        c.ack_due = None
        try:
            c.sock.send(msgpack.packb([1, self.last[c.run]]))
        except BlockingIOError:
            c.ack_due = time.monotonic() + self.ack_delay
        except OSError:
            pass  # the read will say what happened

    def _load(self):
        for entry in read_journal(self.journal):
            run, kind = entry[0], entry[1]
            if kind == 1:
                self.last[run] = entry[2]
                if self.keep_lines:
                    self.lines.setdefault(run, []).append(tuple(entry[2:]))
            else:
                self.last[run] = entry[3]
                self.lost.setdefault(run, []).append((entry[2], entry[3], entry[5]))
        # A kill in the middle of a write leaves half an entry, which was never acked.
        whole = read_journal(self.journal, want_size=True)
        if os.path.exists(self.journal):
            os.truncate(self.journal, whole)


def read_journal(path, want_size=False):
    """The committed entries of a peer's journal: [run, 1, seq, time_ns, level, event] or [run, 2, first, last, n,
    cause]."""
    entries, size = [], 0
    if os.path.exists(path):
        unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=2**30)
        unpacker.feed(Path(path).read_bytes())
        with contextlib.suppress(msgpack.OutOfData):
            while True:
                entries.append(unpacker.unpack())
                size = unpacker.tell()
    return size if want_size else entries


def depth(value):
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        if isinstance(item, dict):
            todo += [(v, level + 1) for v in item.values()]
        elif isinstance(item, list | tuple):
            todo += [(v, level + 1) for v in item]
        else:
            continue
        deepest = max(deepest, level)
    return deepest


def process_state(pid):
    """Return the state letter of a process: T is one that was stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


class PeerProcess:
    """The relay end as a process of its own. `lines()` and `lost()` read its journal; it may be killed at any time."""

    def __init__(self, path, journal):
        self.path, self.journal = str(path), str(journal)
        self.process = None

    def start(self, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.wire_peer", self.path, self.journal, *options],
            env=os.environ | {"PYTHONPATH": ROOT},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert self.process.stdout.readline() == b"ready\n"
        return self

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
            self.process.stdout.close()
            self.process = None

    def pause(self):
        """SIGSTOP, and wait until it stands still."""
        os.kill(self.process.pid, signal.SIGSTOP)
        wait_for(lambda: process_state(self.process.pid) == "T", "the relay end to stand still")

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def entries(self):
        return read_journal(self.journal)

    def lines(self):
        """[(run, seq, time_ns, level, event)] as committed."""
        return [(e[0], *e[2:]) for e in self.entries() if e[1] == 1]

    def lost(self):
        """[(run, first, last, cause)] as committed."""
        return [(e[0], e[2], e[3], e[5]) for e in self.entries() if e[1] == 2]

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.kill()


def main():
    path, journal, *options = sys.argv[1:]
    peer = Peer(path, journal)
    peer.keep_lines = False
    for option in options:
        name, value = option.split("=")
        setattr(peer, name, float(value))
    peer.start()
    print("ready", flush=True)
    peer._thread.join()


if __name__ == "__main__":
    main()
