"""A line of another machine's journal as one of this one: what is changed, and that nothing else is."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logrelay.fanout import collected_line as module
from logrelay.fanout.collected_line import (
    ShownTimes,
    UnreadableError,
    collected_line,
    moved,
    read_line,
    read_lines,
    shown_before,
)
from logrelay.fanout.line_json import log_line, notice_line
from logrelay.model import COLLECTED_RUN, CRITICAL, INFO, RELAY_RUN, WARNING

T0 = 1_769_162_400_123_456


def sent(event=None, *, app="bot", rank=INFO, clock_us=None):
    """A line of a bot as an edge has it."""
    event = {"event": "trade", "logger": "bot.x", "symbol": "AAPL"} if event is None else event
    return log_line("edge01", 41, 3, app, T0, rank, dict(event), b"k" * 16, clock_us)[0]


def read(line, host="box", found_us=T0):
    return read_line("berlin", host, line.level, found_us, line.app, line.run_name, line.body)


def test_id_and_origin_change_and_nothing_else():
    """The body is the one that viewers of the edge get, with an id of this journal, the machine and the host."""
    before = sent()
    line, message, context = collected_line("hub001", 9, read(before))
    expected = {**orjson.loads(before.body), "id": "hub001-9", "edge": "berlin", "host": "box"}

    assert orjson.loads(line.body) == expected
    assert list(expected) == list(orjson.loads(line.body))
    assert (line.seq, line.time_us, line.level, line.source, line.run) == (9, T0, INFO, "bot.x", COLLECTED_RUN)
    assert (line.app, line.run_name, line.edge, line.clock_us) == ("bot", before.run_name, "berlin", None)
    assert (message, context) == ("trade", {"symbol": "AAPL"})
    assert b'"host"' not in collected_line("hub001", 9, read(before, host=""))[0].body


def test_a_timestamp_is_moved_where_it_stands():
    """Another one in the context, in the name of the bot or in a text is left alone."""
    event = {"event": '"timestamp":"x', "timestamp": "2020-01-01T00:00:00.000000Z", "deep": {"timestamp": "t"}}
    before = sent(event, app='"timestamp":"')
    found = moved(read(before), T0 + 7)
    line, _, _ = collected_line("hub001", 9, found)
    shape = orjson.loads(line.body)

    assert shape.pop("timestamp") == "2026-01-23T10:00:00.123463Z"
    assert shape == {
        **{k: v for k, v in orjson.loads(before.body).items() if k != "timestamp"},
        **{"id": "hub001-9", "edge": "berlin", "host": "box"},
    }
    assert (line.time_us, line.clock_us) == (T0 + 7, T0), "it is found by what the clock said"


def test_a_line_whose_clock_was_set_back_keeps_both_times():
    """The shown time is that of the body, the one it is found by came beside it."""
    before = sent(clock_us=T0 - 5_000_000)
    line, _, context = collected_line("hub001", 9, read(before, found_us=T0 - 5_000_000))

    assert (line.time_us, line.clock_us) == (T0, T0 - 5_000_000)
    assert context["clock"] == "2026-01-23T09:59:55.123456Z"


def test_a_notice_stays_a_notice_and_says_where_it_is_from():
    """Filters ask its context; what stood there under the name is kept."""
    before = notice_line("edge01", 7, T0, WARNING, "gap", "2 lines missing", {"count": 2, "edge": "other"})[0]
    line, _, context = collected_line("hub001", 9, read(before, host=""))

    assert (line.run, line.app, line.source, line.edge) == (RELAY_RUN, "", "logrelay", "berlin")
    assert context == {"notice": "gap", "count": 2, "edge": "berlin", "edge_": "other"}
    assert orjson.loads(line.body)["context"] == context
    assert orjson.loads(line.body)["id"] == "hub001-9"


@pytest.mark.parametrize("given_", [{"edge": "liar"}, {"host": "liar"}])
def test_a_body_that_says_itself_where_it_is_from_does_not_get_through(given_):
    """There is one such field, and this relay has written it."""
    before = sent()
    body = orjson.dumps({**orjson.loads(before.body), **given_})
    line = collected_line("hub001", 9, read(before._replace(body=body)))[0]

    assert line.body.count(b'"edge":') == line.body.count(b'"host":') == 1
    assert orjson.loads(line.body)["edge"] == "berlin"
    assert orjson.loads(line.body)["host"] == "box"


def test_a_body_in_another_order_is_written_again():
    """Another version may write its fields in another order."""
    before = sent()
    body = orjson.dumps(orjson.loads(before.body), option=orjson.OPT_SORT_KEYS)
    line = collected_line("hub001", 9, moved(read(before._replace(body=body)), T0 + 1))[0]

    assert orjson.loads(line.body) == {
        **orjson.loads(before.body),
        **{"id": "hub001-9", "edge": "berlin", "host": "box", "timestamp": "2026-01-23T10:00:00.123457Z"},
    }


GOOD = orjson.loads(sent().body)


@pytest.mark.parametrize(
    "shape",
    [
        {**GOOD, "level": "ERROR"},
        {**GOOD, "type": "connection"},
        {**GOOD, "message": 7},
        {**GOOD, "context": []},
        {**GOOD, "source": None},
        {**GOOD, "source": "logrelay"},
        {**GOOD, "timestamp": "2026-01-23T10:00:00Z"},
        {**GOOD, "timestamp": "2026-13-23T10:00:00.123456Z"},
        {name: value for name, value in GOOD.items() if name != "message"},
        [],
        None,
    ],
    ids=repr,
)
def test_what_is_no_line_is_refused(shape):
    """Whoever may publish may publish anything; nothing but a line becomes one."""
    with pytest.raises(UnreadableError):
        read_line("berlin", "", INFO, T0, "bot", "", orjson.dumps(shape))


def test_a_notice_of_no_kind_is_refused():
    """Viewers tell notices apart by it."""
    shape = {**GOOD, "source": "logrelay", "context": {}}
    with pytest.raises(UnreadableError):
        read_line("berlin", "", INFO, T0, "", "", orjson.dumps(shape))


@given(st.binary(max_size=40) | st.builds(orjson.dumps, st.dictionaries(st.text(max_size=3), st.integers(0, 9))))
def test_whatever_the_bytes_are_nothing_else_is_raised(body):
    """They come from another machine."""
    with pytest.raises(UnreadableError):
        read_line("berlin", "", INFO, T0, "bot", "", body)


@given(
    st.lists(
        st.sampled_from(
            [
                (sent().body, "bot"),
                (sent(clock_us=T0 - 5).body, "bot"),
                (notice_line("edge01", 42, T0, INFO, "relay", "hello", {})[0].body, ""),
                (notice_line("edge01", 42, T0, INFO, "relay", "hello", {})[0].body, "bot"),
                (sent().body, ""),
                (sent(rank=CRITICAL).body, "bot"),
                (orjson.dumps({**GOOD, "message": 7}), "bot"),
                (orjson.dumps({**GOOD, "context": []}), "bot"),
                (orjson.dumps({**GOOD, "source": None}), "bot"),
                (orjson.dumps({**GOOD, "timestamp": 3}), "bot"),
                (orjson.dumps({"type": "log"}), "bot"),
                (b"[]", "bot"),
                (b"{", "bot"),
            ]
        ),
        max_size=6,
    )
)
def test_many_at_once_are_what_each_would_be(bodies):
    """Whatever is among them, and wherever it stands."""
    said = [(7 + n, INFO, T0, (app, "run1", "box", "x"), body) for n, (body, app) in enumerate(bodies)]
    expected = []
    for _, rank, at, (app, run, host, _), body in said:
        try:
            expected.append(read_line("berlin", host, rank, at, app, run, body))
        except UnreadableError:
            expected.append(None)
    assert read_lines("berlin", said) == expected


def test_critical_is_shown_as_error():
    """As everywhere."""
    before = sent(rank=CRITICAL)
    line = collected_line("hub001", 9, read(before))[0]

    assert line.level == CRITICAL
    assert orjson.loads(line.body)["level"] == "ERROR"


def test_of_two_machines_no_timestamp_comes_twice():
    """Each moves as little as it has to, and in each run they rise."""
    times = ShownTimes()
    asked = [("a", 10), ("b", 10), ("c", 10), ("b", 11), ("a", 12), ("b", 12), ("a", 20), ("b", 19)]
    placed = [times.place(run, at) for run, at in asked]

    assert placed == [10, 11, 12, 13, 14, 15, 20, 19]


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=4), max_size=9))
def test_free_timestamps_are_taken_in_one_step_as_one_by_one(groups):
    """Where they are not all free, nothing is noted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", 5)
        once, each = ShownTimes(), ShownTimes()
        for group in groups:
            wanted = [at for _, at in group]
            placed = [each.place(run, at) for run, at in group]
            if once.take_free(wanted):
                assert placed == wanted
            else:
                assert [once.place(run, at) for run, at in group] == placed


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=60), st.integers(1, 5))
def test_timestamps_rise_within_each_run_whatever_is_remembered(steps, window):
    """Also where what would keep them apart has been forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WINDOW", window)
        times, now, last = ShownTimes(), dict.fromkeys("abc", 100), dict.fromkeys("abc", 0)
        for run, step in steps:
            now[run] += step
            at = times.place(run, now[run])
            assert at > last[run]
            assert at >= now[run]
            last[run] = at


def test_what_was_shown_before_a_restart_counts():
    """Its timestamps are taken, and its runs go on behind them; the relay's own lines have no part in it."""
    before = collected_line("hub001", 9, moved(read(sent()), T0 + 2))[0]
    assert shown_before(sent().body) is None
    times = ShownTimes()
    times.seen(*shown_before(before.body))

    assert times.place("berlin/other", T0 + 2) == T0 + 3
    assert times.place(f"berlin/{before.run_name}", T0 + 1) == T0 + 4, "behind its own, and not where another is"
    assert times.place(f"berlin/{before.run_name}", T0 + 9) == T0 + 9
