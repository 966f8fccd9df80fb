"""The machines whose lines are collected: who is there, who is silent, and how their bots are as far as is known.

Owns: what the last state of each edge said, since when an edge is unreachable, and what is shown of that to viewers,
health checks and monitors. It must not know NATS clients or the journal. Pure; time is an argument (`mono`, a clock
that never steps, in seconds, and `now_us`, the wall clock). Read `overview` next.

An edge that is silent has not crashed, and neither have its bots: nobody here can know. It is unreachable, and what its
last state said of its bots is shown as what they were. While this relay itself has no connection to a server, all edges
are silent for that reason, and that is what is told, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from logrelay.fanout.line_json import rfc3339
from logrelay.machines.edge_state import SILENT_INTERVALS, STATE_EVERY_S, EdgeState

MAX_SHOWN_BOTS = 2000
"""Bots of other machines that are kept and shown, all together: a message of some 600 KB."""
MAX_SAMPLED_BOTS = 200
"""Bots of other machines measured by name, the rest is counted in `edge_bots`; and as many edges."""
MAX_EDGES = 1024
"""As many as `collection` remembers."""

UNKNOWN = "unknown"
"""The state of a bot whose edge is unreachable."""
REACHABLE, UNREACHABLE = "reachable", "unreachable"
_UP = ("connected", "quiet")
_DOWN = ("lost", "crashed", "gone")
_NEVER = float("inf")

Samples = dict[str, list[tuple[Mapping[str, str], int | float]]]


class Change(NamedTuple):
    """An edge has become unreachable, or is back."""

    edge: str
    unreachable_us: int
    """Since when, by this relay's clock; 0: it is back."""
    silent_s: float
    """Seconds without a word, of an edge that is back as far as is known."""


@dataclass(slots=True)
class _Edge:
    """One machine, as it is known here."""

    state: EdgeState | None = None
    heard: float = 0.0
    """Monotonic time of its last state."""
    heard_us: int = 0
    """The same by the wall clock; before the first one, when lines of it came last."""
    deadline: float = _NEVER
    unreachable_us: int = 0
    """Since when; 0: it is reachable."""


class Edges:
    """What is known of the edges. Not for several threads at once.

    `known` has of each edge that the journal remembers since when it was told to be unreachable (0: it was not) and
    when it was heard of last, in microseconds.
    """

    def __init__(self, known: Mapping[str, tuple[int, int]], *, mono: float) -> None:
        self._edges = {
            name: _Edge(heard=mono, heard_us=seen_us, unreachable_us=since_us)
            for name, (since_us, seen_us) in known.items()
        }
        self._link_down_us = 0
        """Since when this relay has no connection to a server; 0: it has one."""
        self.bad_states = 0

    # --- what happens -------------------------------------------------------------------------------------------

    def link_up(self, mono: float) -> None:
        """Note that there is a connection: from now on an edge that is silent is silent by itself."""
        self._link_down_us = 0
        for edge in self._edges.values():
            if not edge.unreachable_us:
                edge.deadline = mono + _patience(edge.state)

    def link_down(self, now_us: int) -> None:
        """Note that there is no connection: nothing can be known of any edge."""
        self._link_down_us = self._link_down_us or now_us
        for edge in self._edges.values():
            edge.deadline = _NEVER

    def heard(self, state: EdgeState, mono: float, now_us: int) -> Change | None:
        """Take what an edge says of itself; returns what is to be told."""
        edge = self._edges.get(state.edge)
        if edge is None:
            if len(self._edges) >= MAX_EDGES:
                del self._edges[min(self._edges, key=lambda name: self._edges[name].heard_us)]
            edge = self._edges[state.edge] = _Edge()
        since_us, edge.unreachable_us = edge.unreachable_us, 0
        edge.state, edge.heard, edge.heard_us = state, mono, now_us
        edge.deadline = mono + _patience(state)
        return Change(state.edge, 0, (now_us - since_us) / 1e6) if since_us else None

    def pass_time(self, mono: float) -> list[Change]:
        """Return the edges that have become unreachable."""
        found = []
        for name, edge in self._edges.items():
            if edge.deadline <= mono:
                edge.deadline = _NEVER
                edge.unreachable_us = edge.heard_us or 1
                found.append(Change(name, edge.unreachable_us, mono - edge.heard))
        return found

    def next_deadline(self) -> float:
        """Return the monotonic time at which `pass_time` may have something to tell; infinity: it is not known."""
        return min((edge.deadline for edge in self._edges.values()), default=_NEVER)

    # --- what is shown ------------------------------------------------------------------------------------------

    def _unknown_us(self, edge: _Edge) -> int:
        """Return since when nothing is known of an edge, 1: nothing ever was; 0: it is heard."""
        if edge.unreachable_us:
            return edge.unreachable_us
        return edge.heard_us or 1 if self._link_down_us or edge.state is None else 0

    def edges_shown(self, mono: float) -> list[dict[str, object]]:
        """Return the edges as viewers and health checks are told of them, by name."""
        shown = []
        for name, edge in sorted(self._edges.items()):
            state, unknown_us = edge.state, self._unknown_us(edge)
            row: dict[str, object] = {
                "edge": name,
                "state": UNREACHABLE if unknown_us else REACHABLE,
                "since": rfc3339(unknown_us) if unknown_us > 1 else None,
                "heard_age_s": round(max(0.0, mono - edge.heard), 3) if state is not None else None,
                "version": None if state is None else state.version,
                "bots": 0 if state is None else len(state.bots) + state.more_bots,
                "lag_lines": None if state is None else state.lag_lines,
                "trouble": None if state is None else state.trouble,
            }
            shown.append(row)
        return shown

    def bots_shown(self, mono: float) -> list[dict[str, object]]:
        """Return the bots of all edges as viewers are told of bots, with their `edge`; the edges in turn by name.

        Of an edge that is unreachable they are `unknown`, with what they were before in `last_state`.
        """
        shown: list[dict[str, object]] = []
        for name, edge in sorted(self._edges.items()):
            state, unknown_us = edge.state, self._unknown_us(edge)
            if state is None:
                continue
            passed = max(0.0, mono - edge.heard)
            for bot in state.bots[: MAX_SHOWN_BOTS - len(shown)]:
                row: dict[str, object] = {**bot, "edge": name}
                for age in ("last_line_age_s", "quiet_s"):
                    said = row[age]
                    if isinstance(said, int | float):
                        row[age] = round(said + passed, 3)
                if unknown_us and row["state"] != "closed":
                    row["last_state"], row["state"], row["quiet_s"] = row["state"], UNKNOWN, None
                    row["unknown_since"] = rfc3339(unknown_us) if unknown_us > 1 else None
                shown.append(row)
        return shown

    def samples(self, mono: float) -> Samples:
        """Return what is measured of edges and of their bots, by the names of `http.metrics.METRICS`."""
        up: Samples = {name: [] for name in ("edge_up", "edge_lag_lines", "edge_bots", "edge_heard_age_seconds")}
        bots: dict[tuple[str, str], tuple[int | None, float | None]] = {}
        for name, edge in sorted(self._edges.items())[:MAX_SAMPLED_BOTS]:
            labels, state, unknown = {"edge": name}, edge.state, self._unknown_us(edge)
            up["edge_up"].append((labels, int(not unknown)))
            if state is None:
                continue
            up["edge_lag_lines"].append((labels, state.lag_lines))
            up["edge_bots"].append((labels, len(state.bots) + state.more_bots))
            up["edge_heard_age_seconds"].append((labels, round(max(0.0, mono - edge.heard), 3)))
            if unknown:
                continue  # no sample: whether they run is not known
            for bot in state.bots:
                _add_bot(bots, name, bot, mono - edge.heard)
        rows = [(key, row) for key, row in bots.items() if row[0] is not None][:MAX_SAMPLED_BOTS]
        up["trader_up"] = [({"app": app, "edge": edge}, is_up or 0) for (edge, app), (is_up, _) in rows]
        up["trader_last_line_age_seconds"] = [
            ({"app": app, "edge": edge}, round(age, 3)) for (edge, app), (_, age) in rows if age is not None
        ]
        return up

    def count(self, *, unreachable: bool) -> int:
        """Count the edges, or only those of which nothing is known now."""
        if not unreachable:
            return len(self._edges)
        return sum(bool(self._unknown_us(edge)) for edge in self._edges.values())


def _add_bot(
    bots: dict[tuple[str, str], tuple[int | None, float | None]], edge: str, bot: Mapping[str, object], passed: float
) -> None:
    """Add a run to what is known of its bot: up when one of its runs is, else what its latest run, the first, was.

    One whose latest run has ended cleanly is not expected to run: None.
    """
    state, said = bot["state"], bot["last_line_age_s"]
    key = (edge, str(bot["app"]))
    is_up, age = bots.get(key, (0 if state in _DOWN else None, None))
    if isinstance(said, int | float):
        age = min(age if age is not None else _NEVER, max(0.0, said + passed))
    bots[key] = (1 if state in _UP else is_up, age)


def _patience(state: EdgeState | None) -> float:
    """Return for how many seconds an edge may be silent."""
    return SILENT_INTERVALS * (STATE_EVERY_S if state is None else state.interval_s)
