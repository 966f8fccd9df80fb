"""The bytes of a spool file: what is written is read again, whatever else is in the file."""

import random

import msgpack
import pytest

from robo_trader.log_relay import frames
from robo_trader.log_relay import spool_format as module
from robo_trader.log_relay.spool_format import Entry, NewerVersionError, Reader, Writer, resend

RUN = bytes(range(16))
HELLO = frames.hello(run=RUN, app="bot", host="h", pid=7, started_ns=1)
RING = module.ring_bytes(0)


def line(seq, level="info", size=10):
    return frames.log(seq, seq * 10, frames.LEVELS[level], msgpack.packb({"event": "x" * size}))


class File:
    """A file in memory with a writer, and readers of what a kill would leave."""

    def __init__(self, ring=RING, hello=HELLO):
        self.data = bytearray(module.file_bytes(ring))
        self.writer = Writer(memoryview(self.data), ring=ring, hello=hello, run=RUN)

    def reader(self):
        return Reader(lambda offset, size: bytes(self.data[offset : offset + size]))

    def seqs(self):
        return [entry.first for entry in self.reader().entries()]


@pytest.fixture
def file():
    return File()


def test_what_is_written_is_read_in_order(file):
    """Of both rings, with the facts of the run."""
    lines = [line(1), line(2, "error"), line(3, "warning"), line(4, "debug"), line(5, "critical"), line(6)]
    for frame in lines:
        file.writer.append(frame)
    reader = file.reader()
    assert (reader.hello, reader.run, reader.app, reader.pid) == (HELLO, RUN, "bot", 7)
    assert (reader.acked, reader.ended, reader.torn) == (0, False, 0)
    assert list(reader.entries()) == [Entry(n, n * 10, n, frame) for n, frame in enumerate(lines, 1)]
    assert reader.torn == 0


def test_an_empty_file_has_nothing(file):
    """A bot that was killed before its first line."""
    assert file.seqs() == []


def test_the_end_of_a_run_is_kept(file):
    """Whether it ended in order says who sends the rest."""
    file.writer.ended()
    assert (file.reader().ended, file.reader().has_failed) == (True, False)
    file.writer.ended(has_failed=True)
    assert (file.reader().ended, file.reader().has_failed) == (True, True)


def test_lost_lines_are_kept_with_their_cause(file):
    """A line that could not be encoded has no frame of its own."""
    file.writer.append(line(1))
    told = frames.lost(2, 4, "encode")
    file.writer.append_lost(told)
    file.writer.append(line(5, "error"))
    assert list(file.reader().entries())[1] == Entry(2, 0, 4, told)
    assert file.seqs() == [1, 2, 5]


def test_acked_lines_are_left_out(file):
    """Those before the seq; with nothing else left the file begins anew, and old records do not come back."""
    for seq in range(1, 6):
        file.writer.append(line(seq))
    file.writer.acked(3, everything=False)
    assert file.seqs() == [4, 5]
    file.writer.acked(5, everything=True)
    assert file.seqs() == []
    file.writer.append(line(6))
    assert file.seqs() == [6]
    assert file.reader().torn == 0


def test_a_ring_begins_again_at_its_start():
    """The newest lines are there, at least as many bytes of them as the ring is long but for two records."""
    file = File()
    random.seed(1)
    written = []
    for seq in range(1, 4000):
        written.append(line(seq, random.choice(["info", "info", "error"]), random.randrange(1, 800)))
        file.writer.append(written[-1])
    reader = file.reader()
    entries = list(reader.entries())
    assert reader.torn == 0
    for high in (False, True):
        ours = [frame for frame in written if (frame[21:22] == b"e") is high]
        kept = [entry.frame for entry in entries if (entry.frame[21:22] == b"e") is high]
        assert kept == ours[-len(kept) :]
        assert sum(map(len, kept)) + module.RECORD.size * len(kept) > RING - 2 * module.MAX_RECORD
        if not high:
            assert len(kept) < len(ours), "or nothing was overwritten"


def test_a_process_killed_at_any_byte_leaves_every_line_before_it():
    """Each store into the buffer may be the last one, also in the middle of a record and at the turn of a lap."""
    whole = File()
    for seq in range(1, 400):
        whole.writer.append(line(seq, "info", 700))
    word = whole.reader()._places[0]
    assert word[1], "the ring has begun a second lap"
    before = whole.seqs()
    for cut in (0, 5, 12, 300):
        copy = File()
        copy.data[:] = whole.data
        record = module.RECORD.pack(module.MARK, 740, 1) + bytes(740)
        start = module.HEADER_BYTES + word[0]
        copy.data[start : start + cut] = record[:cut]
        reader = copy.reader()
        after = [entry.first for entry in reader.entries()]
        assert after[-1] == 399
        assert after in (before, before[1:], before[2:])
        assert reader.torn == 0


def test_a_lap_is_said_before_its_first_record():
    """Killed between the two, everything of the lap before is found."""
    file = File()
    seq = 0
    while not file.reader()._places[0][1]:
        seq += 1
        assert seq < 5_000, "no lap was begun"
        before = bytes(file.data)
        file.writer.append(line(seq, "info", 900))
    last = seq - 1
    file.data[:] = before
    end = file.reader()._places[0][0]
    file.writer._words[module.LOW] = end << module.LAP_SHIFT
    assert file.seqs() == list(range(1, last + 1))


@pytest.mark.parametrize("at", [0, 3, 5, 9, 20, 40])
def test_a_damaged_record_is_torn_and_the_others_are_whole(file, at):
    """Whatever byte of it was changed."""
    for seq in range(1, 10):
        file.writer.append(line(seq))
    size = module.RECORD.size + len(line(1))
    file.data[module.HEADER_BYTES + 4 * size + at] ^= 0x40
    reader = file.reader()
    assert [entry.first for entry in reader.entries()] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert reader.torn == 1


def test_a_file_that_ends_early_is_torn(file):
    """What is there is read, and what followed is told as lost, to the last line."""
    for seq in range(1, 10):
        file.writer.append(line(seq))
    size = module.RECORD.size + len(line(1))
    data = bytes(file.data[: module.HEADER_BYTES + 5 * size + 7])
    reader = Reader(lambda offset, count: data[offset : offset + count])
    entries = list(reader.entries())
    assert [entry.first for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert (entries[-1].last, msgpack.unpackb(entries[-1].frame)) == (9, [2, 6, 9, 4, "torn"])
    assert reader.torn >= 1


def test_a_file_without_any_of_its_lines_tells_how_many_they_were(file):
    """Also where the positions say that there are none; those that are acked are no loss."""
    for seq in range(1, 10):
        file.writer.append(line(seq))
    file.writer.append_lost(frames.lost(10, 12, "encode"))
    file.writer.acked(3, everything=False)
    file.writer._words[module.LOW] = 0
    reader = file.reader()
    assert [entry[:3] for entry in reader.entries()] == [(4, 0, 12)]
    assert reader.torn == 1
    file.writer.acked(12, everything=True)
    assert file.seqs() == []


def test_a_file_that_does_not_know_its_last_seq_is_read_as_before(file):
    """Of an earlier program, or with damage just there."""
    for last in (0, 1 << 63):
        file.writer.append(line(1))
        file.writer._last[:] = module.LAST.pack(last)
        assert file.seqs() == [1]


def test_a_killed_append_tells_no_line_as_lost(file):
    """The record may be there before the last seq is, never behind it."""
    file.writer.append(line(1))
    file.writer.append(line(2))
    file.writer._last[:] = module.LAST.pack(1)
    reader = file.reader()
    assert [entry.first for entry in reader.entries()] == [1, 2]
    assert reader.torn == 0


def test_records_of_another_run_are_none(file):
    """Nor is a line that looks like a record."""
    other = File(hello=HELLO)
    other.writer._seed ^= 1
    other.writer.append(line(1))
    file.data[:] = other.data
    assert [entry[:3] for entry in file.reader().entries()] == [(1, 0, 1)], "it was there, and is none of ours"
    fresh = File()
    inner = module.RECORD.pack(module.MARK, 30, 5) + line(9)
    fresh.writer.append(frames.log(1, 10, frames.LEVELS["info"], msgpack.packb({"event": inner})))
    fresh.writer.append(line(2))
    assert fresh.seqs() == [1, 2]


def test_more_than_a_chunk_is_read_piece_by_piece():
    """Records that lie across the border of two reads are whole, small ones and the largest."""
    file = File(ring=module.ring_bytes(4 << 20))
    random.seed(2)
    for seq in range(1, 400):
        file.writer.append(line(seq, "info", random.choice([5, 3_000, 60_000 if seq % 9 == 0 else 800])))
    assert file.reader()._places[0][0] > 2 * module.CHUNK
    reader = file.reader()
    assert [entry.first for entry in reader.entries()] == list(range(1, 400))
    assert reader.torn == 0


def test_of_one_seq_twice_the_later_line_counts(file):
    """The first call was interrupted before the line had its place."""
    file.writer.append(line(1))
    file.writer.append(frames.log(2, 20, frames.LEVELS["error"], msgpack.packb({"event": "interrupted"})))
    kept = frames.log(2, 21, frames.LEVELS["info"], msgpack.packb({"event": "kept"}))
    file.writer.append(kept)
    file.writer.append(line(3))
    assert [entry.frame for entry in file.reader().entries()] == [line(1), kept, line(3)]


def test_what_is_no_spool_file(file):
    """Is said to be none; one of a later version is told from those."""
    with pytest.raises(ValueError, match=r"^it is no spool file$"):
        Reader(lambda offset, size: b"#!/bin/sh\n")
    with pytest.raises(ValueError, match=r"^it is no spool file$"):
        Reader(lambda offset, size: bytes(size))
    good = bytes(file.data)
    file.data[module.START.size + 3] ^= 1
    with pytest.raises(ValueError, match=r"^its header is damaged$"):
        file.reader()
    file.data[:] = good
    file.data[7:8] = b"2"
    with pytest.raises(NewerVersionError):
        file.reader()
    file.data[:] = good
    file.writer._words[module.HIGH] = RING + 1
    with pytest.raises(ValueError, match=r"^its positions are damaged$"):
        file.reader()


def test_a_name_that_does_not_fit_into_the_header_is_refused():
    """At the start, where a person sees it."""
    with pytest.raises(ValueError, match="too long for the file's header"):
        File(hello=bytes(module.MAX_HELLO + 1))
    File(hello=bytes(module.MAX_HELLO))


def test_what_goes_on_the_wire_behind_a_welcome():
    """What it covers is left out, and holes are told as lost, with the cause of the moment."""
    entries = [Entry(n, 1, n, b"%d" % n) for n in (2, 3, 6)] + [Entry(7, 0, 9, b"lost"), Entry(11, 1, 11, b"11")]
    causes = iter(["overflow", "torn"])
    sent = list(resend(iter(entries), 2, lambda: next(causes)))
    assert [(entry.first, entry.last) for entry in sent] == [(3, 3), (4, 5), (6, 6), (7, 9), (10, 10), (11, 11)]
    assert msgpack.unpackb(sent[1].frame) == [2, 4, 5, 2, "overflow"]
    assert msgpack.unpackb(sent[4].frame) == [2, 10, 10, 1, "torn"]
    assert list(resend(iter(entries), 11, lambda: "")) == []
    told = Entry(3, 0, 9, frames.lost(3, 9, "torn"))
    rest = Entry(6, 0, 9, frames.lost(6, 9, "torn"))
    assert list(resend(iter([told]), 5, lambda: "")) == [rest], "the journal has the first ones"
