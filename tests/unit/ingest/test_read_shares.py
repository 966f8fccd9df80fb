"""A trader alone is read as fast as it sends; while others log, all that flood share a part."""

from __future__ import annotations

import pytest

from logrelay.ingest.read_shares import (
    BURST_LINES,
    FLOOD_LINES_PER_S,
    FRAMES_AT_ONCE,
    LINE_BYTES,
    LINES_PER_S,
    LONE_BYTES,
    LONE_S,
    OTHERS_S,
    TELL_AFTER_S,
    TELL_AGAIN_S,
    ReadShares,
)


def test_alone_there_is_no_pause():
    shares = ReadShares()
    assert [shares.pause_s("bot", 50_000, 1, n / 10) for n in range(20)] == [0.0] * 20


def test_within_its_share_nobody_pauses():
    shares = ReadShares()
    for second in range(100):
        assert shares.pause_s("one", int(LINES_PER_S) - 1, 0, float(second)) == 0
        assert shares.pause_s("two", int(LINES_PER_S) - 1, 0, float(second)) == 0


@pytest.mark.parametrize(("lines", "size"), [(4_000, 0), (1, 4_000 * LINE_BYTES)])
def test_a_flood_pauses_while_others_log(lines, size):
    """Small lines cost by number, long ones by bytes."""
    shares = ReadShares()
    shares.pause_s("flood", BURST_LINES, 0, 0.0)
    shares.pause_s("bot", 1, 100, 0.0)
    assert shares.pause_s("flood", lines, size, 0.0) == pytest.approx(4_000 / FLOOD_LINES_PER_S)
    assert shares.pause_s("bot", 1, 100, 0.1) == 0.0
    assert shares.pause_s("flood", lines, size, OTHERS_S + 0.2) == 0.0  # the other has been silent since


def test_a_flood_delays_nobody_while_it_is_alone():
    """A backlog is read in long pieces; in short ones as soon as another logs, and until that is silent."""
    shares = ReadShares()
    shares.pause_s("flood", 2 * BURST_LINES, 0, 0.0)
    shares.pause_s("flood", 1, 0, 0.0)
    shares.pause_s("flood", 1, 900, 0.0)
    assert shares.read_bytes("flood", 7, 90_000, lambda: 0.0) == 90_000
    shares.pause_s("bot", 1, 100, 1.0)
    assert shares.read_bytes("flood", 7, 90_000, lambda: 1.0) == 7
    assert shares.read_bytes("bot", 7, 90_000, lambda: 1.0) == 90_000
    assert shares.read_bytes("flood", 7, 90_000, lambda: 1.1 + OTHERS_S) == 90_000


def test_those_that_flood_share_one_part():
    """A thousand connections get no more than one."""
    shares = ReadShares()
    names = [f"flood {n}" for n in range(10)]
    for name in names:
        shares.pause_s(name, BURST_LINES, 0, 0.0)
    shares.pause_s("bot", 1, 0, 0.0)
    pauses = [shares.pause_s(name, 2_000, 0, 0.0) for name in names]
    assert pauses == pytest.approx([n * 2_000 / FLOOD_LINES_PER_S for n in range(1, 11)])


def test_who_has_calmed_down_is_one_of_the_others_again():
    shares = ReadShares()
    shares.pause_s("flood", BURST_LINES, 0, 0.0)
    shares.pause_s("bot", 1, 0, 0.0)
    assert shares.pause_s("flood", 1_000, 0, 0.0) > 0
    shares.pause_s("bot", 1, 0, 9.9)
    assert shares.pause_s("flood", 1_000, 0, 10.0) == 0.0


def test_a_lasting_flood_is_told_of_now_and_then():
    shares = ReadShares()
    shares.pause_s("flood", BURST_LINES, 0, 0.0)
    told = []
    for step in range(1, 800):
        now = step / 8
        shares.pause_s("bot", 1, 0, now)
        shares.pause_s("flood", 2_000, 0, now)
        report = shares.take_report("flood", now)
        if report is not None:
            told.append((now, *report))
    (first, lines, seconds), (again, more, since) = told
    assert first == pytest.approx(0.25 + TELL_AFTER_S)
    assert (lines, seconds) == (42 * 2_000, pytest.approx(TELL_AFTER_S))
    assert again == pytest.approx(first + TELL_AGAIN_S)
    assert (more, since) == (480 * 2_000, pytest.approx(TELL_AGAIN_S))
    assert shares.take_report("bot", 1e9) is None
    assert shares.take_report("nobody", 1e9) is None


def test_a_connection_that_is_over_is_forgotten():
    shares = ReadShares()
    shares.pause_s("bot", 1, 0, 0.0)
    shares.forget("bot")
    shares.forget("bot")
    assert not shares._shares


def test_of_short_frames_less_is_read_at_once():
    """As many as the last read had of them say; of who is not known, or has ended no frame, the least."""
    shares = ReadShares()
    assert shares.read_bytes("bot", 8_192, 65_536, float) == 8_192
    shares.pause_s("bot", 0, 5_000, 0.0)
    assert shares.read_bytes("bot", 8_192, 65_536, float) == 8_192
    shares.pause_s("bot", 100, 15_000, 0.0)
    assert shares.read_bytes("bot", 8_192, 65_536, float) == 65_536
    shares.pause_s("bot", 100, 3_050, 0.0)
    assert shares.read_bytes("bot", 8_192, 65_536, float) == 30.5 * FRAMES_AT_ONCE
    shares.pause_s("bot", 0, 60_000, 0.0)
    assert shares.read_bytes("bot", 8_192, 65_536, float) == 30.5 * FRAMES_AT_ONCE
    shares.pause_s("bot", 4_096, 8_192, 0.0)
    assert shares.read_bytes("bot", 8_192, 65_536, float) == 8_192
    shares.forget("bot")
    assert shares.read_bytes("bot", 8_192, 65_536, float) == 8_192


def test_a_backlog_that_was_read_alone_is_not_held_against_its_trader():
    """The pause is that of what was read since another one logs, at whatever time that is."""
    shares = ReadShares()
    for _ in range(3):
        assert shares.pause_s("flood", 2 * BURST_LINES, 0, 50.0) == 0.0
    shares.pause_s("bot", 1, 0, 50.0)
    assert shares.pause_s("flood", 1_000, 0, 50.0) == pytest.approx(1_000 / FLOOD_LINES_PER_S)
    assert shares.pause_s("flood", 1_000, 0, 50.0 + OTHERS_S) == pytest.approx(1_000 / FLOOD_LINES_PER_S)
    assert shares.pause_s("flood", 1_000, 0, 50.01 + OTHERS_S) == 0.0


def test_who_has_ended_no_frame_yet_is_read_the_least():
    """However little that is."""
    shares = ReadShares()
    shares.pause_s("bot", 0, 5_000, 0.0)
    assert shares.read_bytes("bot", 7, 65_536, float) == 7


def test_lines_that_come_alone_are_not_counted():
    """One at a time and far apart is a twentieth of what is allowed; whatever is more than that counts."""
    shares = ReadShares()
    mono = 0.0

    def is_flooding(lines=1, size=100, after_s=LONE_S):
        nonlocal mono
        mono += after_s
        shares.pause_s("bot", 1, 100, mono)
        return shares.pause_s("flood", lines, size, mono) > 0

    assert not any(is_flooding() for _ in range(10 * BURST_LINES))
    assert not is_flooding(BURST_LINES - 1, after_s=0.0), "all of the burst is there"
    assert is_flooding(2, after_s=0.0)
    assert is_flooding(after_s=0.0)
    mono += 2 * BURST_LINES / LINES_PER_S
    assert not is_flooding()
    assert any(is_flooding(after_s=LONE_S / 100) for _ in range(2 * BURST_LINES)), "close behind another one"
    mono += 2 * BURST_LINES / LINES_PER_S
    assert any(is_flooding(size=LONE_BYTES + 1, after_s=0.005) for _ in range(2 * BURST_LINES)), "a long one"


def test_a_line_that_comes_alone_says_that_others_log():
    """And how long frames are, as any other does."""
    shares = ReadShares()
    shares.pause_s("bot", 1, 100, 0.0)
    shares.pause_s("flood", 2 * BURST_LINES, 0, 0.5)
    shares.pause_s("bot", 1, 40, 1.0)
    assert shares.read_bytes("bot", 7, 90_000, float) == 40 * FRAMES_AT_ONCE
    assert shares.pause_s("flood", 2_000, 0, 1.0) > 0
