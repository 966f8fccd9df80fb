"""Viewers at the head, one step at a time: what is counted, who gets what form, when the compressor is too slow."""

from __future__ import annotations

import json
import zlib

import pytest

from logrelay.fanout import batch as batch_module
from logrelay.fanout import hub as hub_module
from logrelay.fanout.batch import Batch
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub import Hub
from logrelay.fanout.hub_types import Pack, PageFetch
from logrelay.fanout.line_json import log_line
from logrelay.model import DEBUG, ERROR, INFO


def batch(first, last, level=INFO):
    made = [
        log_line("k3f9ab", seq, 1, "app", seq, level(seq) if callable(level) else level, {"event": "e", "n": seq})
        for seq in range(first, last + 1)
    ]
    return Batch([line for line, _, _ in made], [message for _, message, _ in made], [context for *_, context in made])


class Socket:
    """Takes as many messages as there is room for, and reads frames back."""

    def __init__(self, room=1000):
        self.raw, self.room, self.at = b"", room, 0
        self.inflater = zlib.decompressobj(-15)

    def write(self, payload):
        assert self.room > 0, "the hub wrote to a full socket"
        self.raw += payload
        self.room -= 1
        return self.room > 0

    def messages(self):
        """Return what came since the last call."""
        raw, out = self.raw, []
        while self.at < len(raw):
            kind, size, self.at = raw[self.at], raw[self.at + 1], self.at + 2
            if size == 126:
                size, self.at = int.from_bytes(raw[self.at : self.at + 2], "big"), self.at + 2
            payload = raw[self.at : self.at + size]
            self.at += size
            out.append(json.loads(self.inflater.decompress(payload + b"\0\0\xff\xff") if kind == 0xC1 else payload))
        return out

    def numbers(self):
        """The same, as the numbers of the lines."""
        return [message["context"]["n"] for message in self.messages()]


@pytest.fixture
def hub():
    """A hub at line 10 of a journal."""
    return Hub(head=10, oldest=1, max_lag=1000, landing_lines=10, render_gap=lambda gap: b'{"gap":%d}' % gap.last)


def live(hub, wanted=Filter(), form="single", room=1000, *, deflate=False):  # noqa: B008  (a filter is a value)
    """Join at the head."""
    socket = Socket(room)
    viewer = hub.join(socket, wanted, form, deflate=deflate)
    hub.start_after(viewer, hub.head)
    assert viewer.group is not None
    return viewer, socket


def test_what_was_sent_is_counted(hub):
    """Lines and bytes, for every viewer, from zero on."""
    assert (hub.lines_sent, hub.bytes_sent, hub.gaps, hub.lines_skipped) == (0, 0, 0, 0)
    sockets = [live(hub)[1] for _ in range(3)]
    hub.publish(batch(11, 13))
    hub.publish(batch(14, 14))

    assert [socket.numbers() for socket in sockets] == [[11, 12, 13, 14]] * 3
    assert hub.lines_sent == 12
    assert hub.bytes_sent == sum(len(socket.raw) for socket in sockets)


def test_a_batch_of_several_messages_is_counted_as_well(hub, monkeypatch):
    """Each is written by itself."""
    monkeypatch.setattr(batch_module, "SEGMENT_BYTES", 300)
    _, socket = live(hub)
    hub.publish(batch(11, 20))

    assert socket.numbers() == list(range(11, 21))
    assert (hub.lines_sent, hub.bytes_sent) == (10, len(socket.raw))


def test_a_subscription_without_a_match_does_not_stop_the_others(hub):
    """Whichever of them came first."""
    _, first = live(hub, Filter(ERROR))
    _, second = live(hub)
    _, third = live(hub, Filter(ERROR), deflate=True)
    _, fourth = live(hub, Filter(INFO))
    hub.publish(batch(11, 12))

    assert [socket.numbers() for socket in (first, second, third, fourth)] == [[], [11, 12], [], [11, 12]]
    assert hub.take_requests() == ()


def test_each_viewer_gets_the_form_it_asked_for(hub):
    """One message a line, or one array."""
    _, plain = live(hub)
    _, arrays = live(hub, form="batch")
    hub.publish(batch(11, 13))

    assert plain.numbers() == [11, 12, 13]
    [array] = arrays.messages()
    assert [line["context"]["n"] for line in array] == [11, 12, 13]


def test_a_viewer_whose_socket_is_full_stands_behind_the_whole_batch(hub, monkeypatch):
    """Lines at its end that it does not want are behind it, too; it goes on when there is room."""
    monkeypatch.setattr(batch_module, "SEGMENT_BYTES", 1)
    viewer, socket = live(hub, Filter(ERROR), room=2)
    hub.publish(batch(11, 15, lambda seq: ERROR if seq < 13 else DEBUG))
    assert socket.numbers() == [11, 12]
    assert (viewer.group, viewer.stalled, hub.position(viewer), hub.behind()) == (None, True, 15, 1)

    hub.publish(batch(16, 16, ERROR))
    assert socket.numbers() == []
    socket.room = 100
    hub.drained(viewer)
    assert socket.numbers() == [16]
    assert (viewer.group is not None, hub.behind()) == (True, 0)


def test_a_viewer_whose_socket_is_full_in_the_middle_stands_there(hub, monkeypatch):
    """The rest of the batch comes when there is room."""
    monkeypatch.setattr(batch_module, "SEGMENT_BYTES", 1)
    viewer, socket = live(hub, room=2)
    hub.publish(batch(11, 15))
    assert (socket.numbers(), hub.position(viewer)) == ([11, 12], 12)

    socket.room = 100
    hub.drained(viewer)
    assert socket.numbers() == [13, 14, 15]


class TestCompressed:
    def test_packs_come_in_order_and_go_to_those_they_are_for(self, hub):
        """A viewer that joined after a batch does not get its pack."""
        _, first = live(hub, deflate=True)
        hub.publish(batch(11, 12))
        late, second = live(hub, deflate=True)
        hub.publish(batch(13, 13))
        packs = hub.take_requests()
        assert [(pack.number, list(pack.seqs), pack.last) for pack in packs] == [(1, [11, 12], 12), (2, [13], 13)]
        assert [pack.fresh for pack in packs] == [True, True]
        for pack in packs:
            hub.packed(pack, pack.compressed())

        assert (first.numbers(), second.numbers()) == ([11, 12, 13], [13])
        assert hub.position(late) == 13

    def test_a_viewer_whose_socket_is_full_waits_for_room(self, hub):
        """Nothing is written to it, and it is not served again before there is some."""
        viewer, socket = live(hub, room=1, deflate=True)
        hub.publish(batch(11, 11))
        hub.publish(batch(12, 12))
        one, two = hub.take_requests()
        hub.packed(one, one.compressed())
        assert (viewer.group, viewer.stalled, hub.position(viewer)) == (None, True, 11)
        hub.packed(two, two.compressed())
        hub.retry()
        assert socket.numbers() == [11]

        socket.room = 100
        hub.drained(viewer)
        assert socket.numbers() == [12]

    @pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
    def test_a_compressor_that_does_not_keep_up_is_left_alone(self, hub, monkeypatch, spare, fits):
        """Beyond the bound its viewers read from memory what is not on its way; each line comes once, in order."""
        batches = [batch(11, 12), batch(13, 14)]
        size = sum(len(body) for made in batches for body in made.bodies())
        monkeypatch.setattr(hub_module, "PACK_BYTES", size + spare)
        viewer, socket = live(hub, deflate=True)
        for made in batches:
            hub.publish(made)
        packs = hub.take_requests()
        assert [type(pack) for pack in packs] == [Pack] * (2 if fits else 1)
        assert socket.numbers() == ([] if fits else [11, 12, 13, 14])
        for pack in packs:
            hub.packed(pack, pack.compressed())

        assert socket.numbers() == ([11, 12, 13, 14] if fits else [])
        hub.publish(batch(15, 15))
        [pack] = hub.take_requests()
        hub.packed(pack, pack.compressed())
        assert (socket.numbers(), hub.position(viewer)) == ([15], 15)

    def test_a_batch_beyond_the_bound_is_compressed_where_nothing_waits(self, hub, monkeypatch):
        """Else no batch so large ever would be."""
        monkeypatch.setattr(hub_module, "PACK_BYTES", 1)
        _, socket = live(hub, deflate=True)
        hub.publish(batch(11, 12))
        [pack] = hub.take_requests()
        hub.packed(pack, pack.compressed())

        assert socket.numbers() == [11, 12]


class TestMemory:
    def asks_the_journal(self, hub, after):
        viewer = hub.join(Socket(), Filter(), "single")
        hub.start_after(viewer, after)
        requests = hub.take_requests()
        hub.leave(viewer)
        return [(fetch.after, fetch.until) for fetch in requests if isinstance(fetch, PageFetch)]

    @pytest.mark.parametrize("bound", ["RECENT_LINES", "RECENT_BYTES"])
    def test_recent_batches_are_kept_up_to_their_bounds(self, hub, monkeypatch, bound):
        """Exactly at a bound all stay; beyond it the oldest goes, as soon as the journal has it."""
        batches = [batch(11, 12), batch(13, 14), batch(15, 16)]
        monkeypatch.setattr(hub_module, bound, 4 if bound == "RECENT_LINES" else batches[0].size + batches[1].size)
        hub.publish(batches[0])
        hub.publish(batches[1])
        hub.commit(14, 1)
        assert self.asks_the_journal(hub, 10) == []
        hub.publish(batches[2])
        assert self.asks_the_journal(hub, 10) == [(10, 12)]
        assert self.asks_the_journal(hub, 12) == []

    def test_what_the_journal_does_not_have_yet_is_kept(self, hub, monkeypatch):
        """And the newest batch always, however large."""
        monkeypatch.setattr(hub_module, "RECENT_LINES", 1)
        for first in (11, 13, 15):
            hub.publish(batch(first, first + 1))
        assert self.asks_the_journal(hub, 10) == []
        hub.commit(13, 1)
        assert self.asks_the_journal(hub, 10) == [(10, 12)], "half of a batch is not in the journal"
        hub.commit(16, 1)
        assert self.asks_the_journal(hub, 12) == [(12, 14)]
        assert self.asks_the_journal(hub, 14) == []

    def test_all_but_the_newest_batch_are_made_small(self, hub, monkeypatch):
        """Only the newest is likely to be asked for as a whole again."""
        made, compacted = [batch(seq, seq) for seq in range(11, 14)], []
        monkeypatch.setattr(Batch, "compact", lambda self: compacted.append(self.first))
        for one in made:
            hub.publish(one)

        assert compacted == [11, 12]


def test_a_subscription_whose_last_viewer_leaves_meanwhile_does_not_stop_the_others(hub):
    """A socket that breaks while it is written to may make another viewer leave."""

    class Breaking(Socket):
        def write(self, payload):
            hub.leave(gone)
            return super().write(payload)

    first = hub.join(Breaking(), Filter(), "single")
    hub.start_after(first, 10)
    gone, silent = live(hub, Filter(INFO))
    _, last = live(hub, form="batch")
    hub.publish(batch(11, 11))

    assert silent.raw == b""
    assert [line["context"]["n"] for line in last.messages()[0]] == [11]


@pytest.mark.parametrize("lines", [0, -1])
def test_a_viewer_that_wants_no_old_line_is_at_the_head_at_once(hub, lines):
    """Without a question to the journal, also when it filters."""
    for wanted in (Filter(), Filter(ERROR)):
        socket = Socket()
        viewer = hub.join(socket, wanted, "single")
        hub.start_tail(viewer, lines)
        assert (viewer.group is not None, hub.take_requests()) == (True, ())
    hub.publish(batch(11, 11, ERROR))
    assert socket.numbers() == [11]
