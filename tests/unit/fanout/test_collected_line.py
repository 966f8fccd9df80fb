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
    collected_lines,
    moved,
    moved_lines,
    read_line,
    read_lines,
    shown_before,
    usual_lines,
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


def usual(seq, app="bot", rank=INFO, event=None, at=T0):
    """A line of a bot as it comes from an edge, of a run of its own for each bot."""
    event = {"event": f"line {seq}", "logger": f"{app}.x", "symbol": "AAPL"} if event is None else event
    line = log_line("edge01", seq, 3, app, at, rank, dict(event), app.encode() * 8)[0]
    return seq, rank, at, (app, line.run_name, f"host of {app}", line.source), line.body


def one_by_one(said, shown, first=90):
    made = []
    for n, ((_, rank, at, (app, run, host, _), body), shown_us) in enumerate(zip(said, shown, strict=True)):
        found = read_line("berlin", host, rank, at, app, run, body)
        made.append(collected_line("hub001", first + n, found if at == shown_us else moved(found, shown_us))[0])
    return made


EVENTS = (
    {"event": "trade", "logger": "bot.x"},
    {
        "event": 'said "timestamp":"x"} ',
        "logger": "bot.x",
        "timestamp": "then",
        "deep": [{"timestamp": "t", "a": [1, None]}],
    },
    {"event": "h\u00f6her\u2028\n{", "logger": "b\u00f6t", "edge": "mine", "host": "its"},
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["bot", 'b"o', "b\u00e4r"]),
            st.sampled_from([10, INFO, WARNING, CRITICAL]),
            st.sampled_from(EVENTS),
            st.integers(0, 2_000_000),
            st.sampled_from([0, 0, 3]),
        ),
        min_size=1,
        max_size=9,
    ),
    st.integers(1, 4),
)
def test_usual_lines_become_together_what_each_becomes_alone(given_lines, at_once):
    """Whoever logged them, and where timestamps are moved as well."""
    said = [usual(200 + n, app, rank, event, T0 + us) for n, (app, rank, event, us, _) in enumerate(given_lines)]
    shown = [one[2] + given_line[4] for one, given_line in zip(said, given_lines, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "READ_AT_ONCE", at_once)
        found = usual_lines("berlin", "edge01", said)

    assert collected_lines("hub001", 90, found) == one_by_one(said, [one[2] for one in said])
    assert collected_lines("hub001", 90, moved_lines(found, shown)) == one_by_one(said, shown)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"timestamp":"', b'"timestamp": "'),
        (b'"app":"bot"', b'"app": "bot"'),
        (b'","level"', b'" , "level"'),
        (b'"timestamp":"', b'"id":"edge01-205","timestamp": "'),
    ],
)
def test_usual_lines_written_in_another_way_are_moved_as_well(before, after):
    """Where the timestamp is not in the usual place, the line is written again; no byte of another field is lost."""
    seq, rank, at, origin, body = usual(
        205, event={"event": "h\u00f6her\u2028", "logger": "bot.x", "timestamp": "then"}
    )
    body = body.replace(before, after)
    found = usual_lines("berlin", "edge01", [(seq, rank, at, origin, body)])
    if found is None:
        return
    (line,) = collected_lines("hub001", 90, moved_lines(found, [T0 + 3]))
    (alone,) = one_by_one([(seq, rank, at, origin, body)], [T0 + 3])

    assert orjson.loads(line.body) == orjson.loads(alone.body)
    assert line.body.startswith(b'{"type":"log","id":"hub001-90"')
    assert line._replace(body=b"") == alone._replace(body=b"")


def test_usual_lines_in_another_order_are_moved_as_well():
    """A context may say a timestamp behind the line's own."""
    seq, rank, at, origin, body = usual(
        205, event={"event": "x", "logger": "bot.x", "timestamp": "2020-01-01 and then"}
    )
    shape = orjson.loads(body)
    body = orjson.dumps({name: shape[name] for name in ("type", "id", "timestamp", *shape)})
    found = usual_lines("berlin", "edge01", [(seq, rank, at, origin, body)])
    (line,) = collected_lines("hub001", 90, moved_lines(found, [T0 + 3]))
    (alone,) = one_by_one([(seq, rank, at, origin, body)], [T0 + 3])

    assert orjson.loads(line.body) == orjson.loads(alone.body)
    assert orjson.loads(line.body)["context"] == shape["context"]


USUAL = orjson.loads(usual(205)[4])
ID = b'"id":"edge01-205"'
BODY = usual(205)[4]
UNUSUAL = {
    "a notice": (notice_line("edge01", 205, T0, INFO, "relay", "hello", {})[0].body, ""),
    "a notice that says it is a bot's": (notice_line("edge01", 205, T0, INFO, "relay", "hello", {})[0].body, "bot"),
    "without a bot": (BODY, ""),
    "of a clock set back": (
        log_line("edge01", 205, 3, "bot", T0 + 5, INFO, {"event": "x"}, b"k" * 16, T0)[0].body,
        "bot",
    ),
    "another level": (usual(205, rank=WARNING)[4], "bot"),
    "another time": (usual(205, at=T0 + 1)[4], "bot"),
    "another epoch": (BODY.replace(b"edge01-", b"edge02-"), "bot"),
    "another seq": (BODY.replace(b"-205", b"-206"), "bot"),
    "another type": (orjson.dumps({**USUAL, "type": "status"}), "bot"),
    "two types": (BODY[:-1] + b',"type":"status"}', "bot"),
    "two ids": (BODY[:-1] + b',"id":"edge01-204"}', "bot"),
    "an edge": (orjson.dumps({**USUAL, "edge": "paris"}), "bot"),
    "no run": (orjson.dumps({k: v for k, v in USUAL.items() if k != "run"}), "bot"),
    "another field for one": (orjson.dumps({"x" if k == "run" else k: v for k, v in USUAL.items()}), "bot"),
    "an edge for a run": (orjson.dumps({"edge" if k == "run" else k: v for k, v in USUAL.items()}), "bot"),
    "a message that is none": (orjson.dumps({**USUAL, "message": 7}), "bot"),
    "a context that is none": (orjson.dumps({**USUAL, "context": []}), "bot"),
    "a source that is none": (orjson.dumps({**USUAL, "source": None}), "bot"),
    "the source of the relay": (orjson.dumps({**USUAL, "source": "logrelay"}), "bot"),
    "a type that cannot be counted": (orjson.dumps({**USUAL, "type": []}), "bot"),
    "an id in another place": (orjson.dumps(dict(sorted(USUAL.items()))), "bot"),
    "two lines": (BODY + b"," + BODY, "bot"),
    "two lines, one below the other": (BODY + b"\n" + BODY, "bot"),
    "no end": (BODY[:-1], "bot"),
    "an open end": (BODY[:-2] + b"}", "bot"),
    "nothing": (b"", "bot"),
    "no object": (b"[]", "bot"),
    "an id with a quotation mark": (BODY.replace(ID, b'"id":"edge01-205\\""'), "bot"),
}


@pytest.mark.parametrize("what", UNUSUAL)
@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "between", "last"])
def test_what_is_not_usual_is_found_wherever_it_stands(what, place):
    """It goes the long way, and with it the lines around it."""
    body, app = UNUSUAL[what]
    said = [usual(205 - place + n) for n in range(3)]
    said[place] = (205, INFO, T0, (app, "run", "box", "bot.x"), body)

    assert usual_lines("berlin", "edge01", said) is None


def test_what_looks_like_the_next_line_inside_of_one_is_no_line():
    """Two lines that only make sense together are none, whatever is counted."""
    said = [usual(205 + n) for n in range(3)]
    begin, body = BODY[: BODY.index(b"205")], said[1][4]
    cut = body.index(b'"context":') + len(b'"context":')
    said[1] = (*said[1][:4], body[:cut] + b"{}\n" + begin + b'207"' + body[cut + 1 :])
    said[2] = (*said[2][:4], said[2][4][:-1] + b',"x":[' + said[2][4] + b"]}")

    assert usual_lines("berlin", "edge01", said) is None
    assert usual_lines("berlin", "edge01", said[1:]) is None


def test_ids_that_become_longer_go_the_long_way():
    """Seven times in the life of a journal."""
    assert usual_lines("berlin", "edge01", [usual(99), usual(100)]) is None
    assert usual_lines("berlin", "edge01", [usual(100), usual(101)]) is not None


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
