"""Which machine is silent, since when, and what is said of its bots."""

from __future__ import annotations

import pytest

from logrelay.machines import edges as module
from logrelay.machines.edge_state import EdgeState
from logrelay.machines.edges import Change, Edges

NOW = 1_769_162_400_000_000


def bot(app="bot", state="connected", age=1.0, run="r1"):
    said = {"app": app, "host": "box", "pid": 1, "run": run, "state": state, "started": "x", "last_line": None}
    return {**said, "last_line_age_s": age, "quiet_s": age if state == "connected" else None, "last_seq": 3}


def state(edge="berlin", *bots, lag=0, more=0, interval=3.0):
    return EdgeState(edge, "0.1.0", 1, 2, interval, "j", "e1-9", 9, lag, bots=tuple(bots), more_bots=more)


@pytest.fixture
def edges():
    made = Edges({}, mono=100.0)
    made.link_up(100.0)
    return made


def test_an_edge_that_is_silent_is_unreachable_and_then_back(edges):
    """After four of its intervals; it is told once, with since when."""
    assert edges.heard(state(), 100.0, NOW) is None
    assert edges.next_deadline() == 112.0
    assert edges.pass_time(111.9) == []
    assert edges.pass_time(112.0) == [Change("berlin", NOW, 12.0)]
    assert edges.pass_time(500.0) == []
    assert (edges.count(unreachable=False), edges.count(unreachable=True)) == (1, 1)
    assert edges.heard(state(), 160.0, NOW + 60_000_000) == Change("berlin", 0, 60.0)
    assert edges.heard(state(), 163.0, NOW + 63_000_000) is None
    assert edges.count(unreachable=True) == 0


def test_bots_of_an_edge_that_is_silent_are_unknown(edges):
    """Neither up nor down, with what they were; one that had ended has ended."""
    edges.heard(state("berlin", bot(), bot("job", "closed", None, "r2")), 100.0, NOW)
    known = edges.bots_shown(105.0)
    assert [(b["edge"], b["app"], b["state"], b["last_line_age_s"], b["quiet_s"]) for b in known] == [
        ("berlin", "bot", "connected", 6.0, 6.0),
        ("berlin", "job", "closed", None, None),
    ]
    edges.pass_time(200.0)
    first, second = edges.bots_shown(200.0)
    assert (first["state"], first["last_state"], first["quiet_s"]) == ("unknown", "connected", None)
    assert first["unknown_since"] == "2026-01-23T10:00:00.000000Z"
    assert second["state"] == "closed"
    [shown] = edges.edges_shown(200.0)
    assert (shown["edge"], shown["state"], shown["since"]) == ("berlin", "unreachable", first["unknown_since"])
    samples = edges.samples(200.0)
    assert samples["edge_up"] == [({"edge": "berlin"}, 0)]
    assert samples["trader_up"] == []


def test_without_a_connection_nothing_is_told_of_single_edges(edges):
    """All of them are silent for one reason; with the connection they get their time anew."""
    edges.heard(state("berlin", bot()), 100.0, NOW)
    edges.link_down(NOW + 5_000_000)
    assert edges.pass_time(1000.0) == []
    assert edges.edges_shown(1000.0)[0]["state"] == "unreachable"
    assert edges.bots_shown(1000.0)[0]["state"] == "unknown"
    edges.link_up(1000.0)
    assert edges.pass_time(1011.0) == []
    assert edges.pass_time(1012.0) == [Change("berlin", NOW, 912.0)]


def test_what_the_journal_remembers_is_shown_until_there_is_news():
    """Nothing is reachable that has said nothing; what was told before is not told again."""
    edges = Edges({"berlin": (NOW, NOW), "paris": (0, NOW + 1)}, mono=100.0)
    edges.link_down(NOW + 9)
    assert [edge["state"] for edge in edges.edges_shown(100.0)] == ["unreachable"] * 2
    edges.link_up(100.0)
    assert edges.pass_time(112.0) == [Change("paris", NOW + 1, 12.0)]
    assert edges.heard(state(), 112.0, NOW + 1_000_000) == Change("berlin", 0, 1.0)


def test_samples_have_each_bot_once(edges):
    """Up when one of its runs is; a bot whose latest run ended cleanly is not expected, one that crashed is down."""
    runs = [
        bot("a", "crashed", 9.0),
        bot("a", "connected", 2.0),
        bot("b", "closed"),
        bot("b", "crashed"),
        bot("c", "gone"),
    ]
    edges.heard(state("berlin", *runs, lag=7, more=2), 100.0, NOW)
    samples = edges.samples(101.0)
    assert samples["trader_up"] == [({"app": "a", "edge": "berlin"}, 1), ({"app": "c", "edge": "berlin"}, 0)]
    assert samples["trader_last_line_age_seconds"][0] == ({"app": "a", "edge": "berlin"}, 3.0)
    assert samples["edge_lag_lines"] == [({"edge": "berlin"}, 7)]
    assert samples["edge_bots"] == [({"edge": "berlin"}, 7)]
    assert samples["edge_heard_age_seconds"] == [({"edge": "berlin"}, 1.0)]


def test_what_is_shown_is_bounded(edges, monkeypatch):
    """However many machines and bots there are."""
    monkeypatch.setattr(module, "MAX_EDGES", 3)
    monkeypatch.setattr(module, "MAX_SHOWN_BOTS", 4)
    monkeypatch.setattr(module, "MAX_SAMPLED_BOTS", 2)
    for number in range(5):
        edges.heard(state(f"edge{number}", *(bot(f"bot{n}") for n in range(3))), 100.0, NOW + number)
    assert [edge["edge"] for edge in edges.edges_shown(100.0)] == ["edge2", "edge3", "edge4"]
    assert len(edges.bots_shown(100.0)) == 4
    assert len(edges.samples(100.0)["trader_up"]) == 2
    assert len(edges.samples(100.0)["edge_up"]) == 2
