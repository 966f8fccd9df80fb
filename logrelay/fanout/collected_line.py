"""A line of another machine's journal as a line of this one.

Owns: what of a rendered line changes when it is collected (its id, where it came from, where its timestamp would be
taken already), and the values that the collector hands to the sequencer. It must not know streams or batches. No I/O,
no clock. Read `pipeline` next.

The body is spliced, not made anew: it was rendered by the code of `line_json` over there, and what is not touched
cannot come out differently. A body that begins in another way, of an older relay, is read and written again.

Lines come in hundreds, nearly all of the usual form: `usual_lines` and `collected_lines` take them a column at a time,
in half of the time, and come to exactly what `read_line` and `collected_line` do for each. What is not usual goes the
long way.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from logrelay.fanout.line_json import EMPTY, escaped, free_name, rfc3339, rfc3339_of_each
from logrelay.fanout.positions import id_of
from logrelay.model import COLLECTED_RUN, RELAY_RUN, RELAY_SOURCE, SHOWN, CollectedRow, Line

EDGE = "edge"
"""The field of a line, and in the context of a notice, with the machine that it came from."""
HOST = "host"
"""The field of a line with the host of its bot there."""

_TIMESTAMP = b'"timestamp":"'
"""Behind it only app and run follow, in which a quotation mark is escaped: the last one is the line's own."""
_TIME_CHARS = 27
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")

WINDOW = 4096
"""Timestamps that are remembered, so that none is shown twice: eight times the rows that the mobile app keeps."""
MOST_ENDS = 1024
"""Machines with their hosts whose names are kept as bytes."""
MOST_MOVED = 1024
"""Runs remembered whose last line was moved; one is forgotten as soon as its own times are ahead again."""


class UnreadableError(ValueError):
    """A body is not a line as a viewer would get it. The text says what is wrong with it."""


class CollectedLine(NamedTuple):
    """A line that came from another machine, and has no place in this journal yet."""

    edge: str
    host: str
    """Of its bot, over there; empty: not known."""
    rank: int
    shown_us: int
    """What `timestamp` is to say."""
    found_us: int
    """What its clock said; the line is found by it."""
    app: str
    """Empty: it is a notice of the relay over there."""
    run_name: str
    source: str
    shape: dict[str, Any]
    """The body, read."""
    body: bytes
    shown: str
    """`shown_us` as the body has it already; empty: it was moved, and the body says another time."""


_found: Callable[[tuple[object, ...]], CollectedLine] = partial(tuple.__new__, CollectedLine)
_line: Callable[[tuple[object, ...]], Line] = partial(tuple.__new__, Line)
"""Of a ready tuple, in half the time: there are tens of thousands in a second."""


class CollectedLines(NamedTuple):
    """Bots' lines of one machine that stand together, as columns: nothing of them changes but id, time and origin."""

    edge: str
    ranks: Sequence[int]
    found: Sequence[int]
    """What the clock said, as `timestamp` did over there."""
    shown: Sequence[int]
    """What `timestamp` is to say, and does in `rests`."""
    apps: Sequence[str]
    run_names: Sequence[str]
    hosts: Sequence[str]
    sources: Sequence[str]
    rests: Sequence[bytes]
    """Of each body what stands behind its id, without the last brace."""


class Told(NamedTuple):
    """A notice of this relay, between collected lines."""

    rank: int
    notice: str
    message: str
    details: Mapping[str, object]


@dataclass(slots=True)
class Collected:
    """What goes into the journal together: lines, what is told between them, and how far that is."""

    items: list[CollectedLine | CollectedLines | Told] = field(default_factory=list)
    rows: list[CollectedRow] = field(default_factory=list)
    is_last: bool = False
    """Nothing of its batch comes behind it."""


def read_line(edge: str, host: str, rank: int, found_us: int, app: str, run_name: str, body: bytes) -> CollectedLine:
    """Read a body that came from another machine. Raises UnreadableError; whatever the bytes are, nothing else."""
    try:
        shape = orjson.loads(body)
        message, context, source = shape["message"], shape["context"], shape["source"]
        shown = shape["timestamp"]
        is_line = shape["type"] == "log" and shape["level"] == SHOWN[rank]
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableError(f"it is no line: {error!r}") from None
    if not is_line or type(message) is not str or type(context) is not dict or type(source) is not str:
        raise UnreadableError("it is no line of its level")
    if (source == RELAY_SOURCE) is not (app == "") or (app == "" and type(context.get("notice")) is not str):
        raise UnreadableError("it is neither a bot's line nor a notice")
    shown_us = found_us if shown == rfc3339(found_us) else _microseconds(shown)
    return _found((edge, host, rank, shown_us, found_us, app, run_name, source, shape, body, shown))


Said = tuple[int, int, int, tuple[str, str, str, str], bytes]
"""A line as it comes from another machine: seq, level rank, what the clock said, (app, run, host, source), body."""


def read_lines(edge: str, said: Sequence[Said]) -> list[CollectedLine | None]:
    """Read many bodies at once, in half of the time that `read_line` takes for each; None in the place of no line."""
    try:
        return _read_all(edge, said)
    except (ValueError, KeyError, TypeError, AttributeError):
        return [_read_or_none(edge, one) for one in said]  # which of them it is, and the others


_COLUMNS = itemgetter("type", "id", "level", "source", "message", "context", "timestamp", "app", "run")
_FIELDS = 9
"""Those: a line that has others says already where it came from."""
READ_AT_ONCE = 128
"""Bodies that are decoded before the first of them is forgotten: some 200 KB, which a processor's cache holds."""


def usual_lines(edge: str, epoch: str, said: Sequence[Said]) -> CollectedLines | None:
    """Read many bodies, one at least, ascending by seq; None: not all of them are usual lines of that epoch.

    Each is decoded, to see that it is a line. What it says is not kept: a filter that looks into lines reads them anew.
    """
    seqs, ranks, times, origins, bodies = zip(*said, strict=True)
    apps, run_names, hosts, _ = zip(*origins, strict=True)
    ids = [b'%d"' % seq for seq in seqs]
    begin, own = b'{"type":"log","id":"%b-' % epoch.encode(), len(ids[0])
    # No JSON has a brace, a newline and a brace in a row: each piece is a body without its begin and its last brace.
    rests = b"\n".join(bodies).removeprefix(begin).removesuffix(b"}").split(b"}\n" + begin)
    if len(rests) != len(said) or len(ids[-1]) != own or not all(map(bytes.startswith, rests, ids)):
        return None
    if not (bodies[0].startswith(begin) and bodies[-1].endswith(b"}")) or not all(apps):
        return None
    sources: list[str] = []
    try:
        for at in range(0, len(said), READ_AT_ONCE):
            some = slice(at, at + READ_AT_ONCE)
            found = _usual_sources(epoch, seqs[some], ranks[some], times[some], bodies[some])
            if found is None:
                return None
            sources += found
    except (ValueError, KeyError, TypeError):
        return None
    return CollectedLines(edge, ranks, times, times, apps, run_names, hosts, sources, [rest[own:] for rest in rests])


def _usual_sources(
    epoch: str, seqs: Sequence[int], ranks: Sequence[int], times: Sequence[int], bodies: Sequence[bytes]
) -> Sequence[str] | None:
    """Return the sources of usual lines; None, or one of some errors: not all are."""
    shapes = list(map(orjson.loads, bodies))
    types, ids, levels, sources, messages, contexts, shown, *_ = zip(*map(_COLUMNS, shapes), strict=True)
    is_usual = (
        types.count("log") == len(bodies)
        and set(map(len, shapes)) == {_FIELDS}
        and list(ids) == [f"{epoch}-{seq}" for seq in seqs]
        and levels == tuple(map(SHOWN.get, ranks))
        and set(map(type, messages)) == {str}
        and set(map(type, contexts)) == {dict}
        and set(map(type, sources)) == {str}
        and RELAY_SOURCE not in sources
        and list(shown) == rfc3339_of_each(times)
    )
    return sources if is_usual else None


def moved_lines(found: CollectedLines, shown: Sequence[int]) -> CollectedLines:
    """Return the lines with other timestamps, as `moved` does."""
    rests = list(found.rests)
    for place, (before, after) in enumerate(zip(found.shown, shown, strict=True)):
        if before != after:
            rest = rests[place]
            at = rest.rfind(_TIMESTAMP) + len(_TIMESTAMP)
            if rest[at : at + _TIME_CHARS] == rfc3339(before).encode():
                rests[place] = b"%b%b%b" % (rest[:at], rfc3339(after).encode(), rest[at + _TIME_CHARS :])
            else:  # another version may write its fields in another order
                shape = orjson.loads(b'{"id":""%b}' % rest)
                shape |= {"id": "", "timestamp": rfc3339(after)}
                rests[place] = escaped(orjson.dumps(shape)).removeprefix(b'{"id":""').removesuffix(b"}")
    return found._replace(shown=shown, rests=rests)


def _read_all(edge: str, said: Sequence[Said]) -> list[CollectedLine | None]:
    """Do what `read_line` does, without a call for each. Raises one of some errors where any of them is no line."""
    found: list[CollectedLine | None] = []
    add, known = found.append, SHOWN
    for (_, rank, found_us, (app, run_name, host, _), body), shape in zip(
        said, [orjson.loads(one[4]) for one in said], strict=True
    ):
        source, context, shown = shape["source"], shape["context"], shape["timestamp"]
        if shape["level"] != known[rank] or shape["type"] != "log" or (source == RELAY_SOURCE) is (app != ""):
            raise UnreadableError
        if type(shape["message"]) is not str or type(context) is not dict or type(source) is not str:
            raise UnreadableError
        if app == "" and type(context.get("notice")) is not str:
            raise UnreadableError
        shown_us = found_us if shown == rfc3339(found_us) else _microseconds(shown)
        add(_found((edge, host, rank, shown_us, found_us, app, run_name, source, shape, body, shown)))
    return found


def _read_or_none(edge: str, said: Said) -> CollectedLine | None:
    _, rank, found_us, (app, run_name, host, _), body = said
    try:
        return read_line(edge, host, rank, found_us, app, run_name, body)
    except UnreadableError:
        return None


def moved(found: CollectedLine, shown_us: int) -> CollectedLine:
    """Return the line with another timestamp."""
    return found._replace(shown_us=shown_us, shown="")


def shown_before(body: bytes) -> tuple[str, int] | None:
    """Return of a line of this journal whose run it is, as `run_key` has it, and its timestamp; None: not collected."""
    shape = orjson.loads(body)
    edge = shape.get(EDGE)
    return None if edge is None else (run_key(str(edge), str(shape.get("run", ""))), _microseconds(shape["timestamp"]))


def run_key(edge: str, run_name: str) -> str:
    """Return what lines whose timestamps rise have in common; the notices of an edge are a run of their own."""
    return f"{edge}/{run_name}"


def _microseconds(shown: object) -> int:
    if type(shown) is str and _RFC3339.fullmatch(shown) is not None:
        with suppress(ValueError):
            return int(datetime.fromisoformat(f"{shown[:19]}+00:00").timestamp()) * 1_000_000 + int(shown[20:26])
    raise UnreadableError("its timestamp is none")


def collected_line(epoch: str, seq: int, found: CollectedLine) -> tuple[Line, str, dict[str, object]]:
    """Make a line of this journal. Returns it, its message and its context, as `line_json.log_line` does."""
    edge, host, rank, shown_us, found_us, app, run_name, source, shape, said, shown = found
    notice, context = app == "", shape["context"]
    begins = b'{"type":"log","id":"%b"' % str(shape.get("id")).encode()
    if shown and not notice and EDGE not in shape and HOST not in shape and said.startswith(begins):
        # The usual line, without a call for each step: only id and origin are another.
        spliced = b'{"type":"log","id":"%b-%d"%b%b' % (epoch.encode(), seq, said[len(begins) : -1], _end(edge, host))
        clock_us = None if found_us == shown_us else found_us
        line = (seq, shown_us, rank, source, COLLECTED_RUN, spliced, "", EMPTY, app, clock_us, run_name, edge)
        return _line(line), shape["message"], context
    id_, shown = id_of(epoch, seq), shown or rfc3339(shown_us)
    body = None if notice else _spliced(shape, said, id_, shown, edge, host)
    if body is None:
        if notice:
            if context.get(EDGE, edge) != edge:
                context[free_name(EDGE, context)] = context[EDGE]
            context[EDGE] = edge
        shape |= {"id": id_, "timestamp": shown, EDGE: edge, **({HOST: host} if host else {})}
        body = escaped(orjson.dumps(shape))
    run = RELAY_RUN if notice else COLLECTED_RUN
    clock_us = None if found_us == shown_us else found_us
    line = _line((seq, shown_us, rank, source, run, body, "", EMPTY, app, clock_us, run_name, edge))
    return line, shape["message"], context


def collected_lines(epoch: str, first: int, found: CollectedLines) -> list[Line]:
    """Make lines of this journal of them, from the seq `first` on."""
    edge, ranks, times, shown, apps, run_names, hosts, sources, rests = found
    begin = b'{"type":"log","id":"%b-' % epoch.encode()
    end_of = {host: _end(edge, host) for host in set(hosts)}
    seqs, ends = range(first, first + len(rests)), map(end_of.__getitem__, hosts)
    bodies = [b'%b%d"%b%b' % (begin, seq, rest, end) for seq, rest, end in zip(seqs, rests, ends, strict=True)]
    clocks: Iterable[int | None] = repeat(None)
    if shown is not times:
        clocks = [None if at == us else us for at, us in zip(shown, times, strict=True)]
    columns = zip(
        *(seqs, shown, ranks, sources, repeat(COLLECTED_RUN), bodies, repeat(""), repeat(EMPTY), apps),
        *(clocks, run_names, repeat(edge)),
        strict=False,
    )
    return list(map(_line, columns))


def _spliced(shape: dict[str, Any], body: bytes, id_: str, shown: str, edge: str, host: str) -> bytes | None:
    """Return the body with another id and timestamp, and where it came from; None: it is not of the usual form."""
    begins = f'{{"type":"log","id":"{shape.get("id")}"'.encode()
    if EDGE in shape or HOST in shape or not body.startswith(begins):
        return None
    rest = body[len(begins) : -1]
    said = shape["timestamp"]
    if said != shown:
        at = rest.rfind(_TIMESTAMP) + len(_TIMESTAMP)
        if rest[at : at + _TIME_CHARS] != said.encode():
            return None
        rest = b"%b%b%b" % (rest[:at], shown.encode(), rest[at + _TIME_CHARS :])
    return b'{"type":"log","id":"%b"%b%b' % (id_.encode(), rest, _end(edge, host))


@lru_cache(maxsize=MOST_ENDS)
def _end(edge: str, host: str) -> bytes:
    """Return how a body ends that came from there."""
    said = b',"host":%b' % escaped(orjson.dumps(host)) if host else b""
    return b',"edge":"%b"%b}' % (edge.encode(), said)


class ShownTimes:
    """Gives lines of many machines timestamps of which none comes twice, each as near to its own as can be.

    Within a run they rise, as they did over there: the app keys its list by them, and two machines have no clock in
    common that would keep them apart.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._order: deque[int] = deque()
        """The same, in the order in which they came."""
        self._moved: OrderedDict[str, int] = OrderedDict()
        """Runs of which a line was moved, and the timestamp that it got."""

    def seen(self, run: str, shown_us: int) -> None:
        """Learn of a line that is there already; they come in the order in which they stand."""
        self._remember(shown_us)
        self._raise_floor(run, shown_us)

    def place(self, run: str, shown_us: int) -> int:
        """Return the timestamp for a line of a run that says `shown_us`."""
        recent = self._recent
        at = shown_us
        floor = self._moved.get(run) if self._moved else None
        if floor is not None and at <= floor:
            at = floor + 1
        while at in recent:
            at += 1
        if at != shown_us:
            self._raise_floor(run, at)
        elif floor is not None:
            del self._moved[run]
        self._remember(at)
        return at

    def take_free(self, times: Sequence[int]) -> bool:
        """Note the timestamps of some lines, which stay as they are; False: not all are free, and `place` does it."""
        recent, unique = self._recent, set(times)
        if self._moved or len(unique) < len(times) or not unique.isdisjoint(recent):
            return False
        recent |= unique
        self._order.extend(times)
        self._forget()
        return True

    def _raise_floor(self, run: str, at: int) -> None:
        self._moved[run] = at
        self._moved.move_to_end(run)
        if len(self._moved) > MOST_MOVED:
            self._moved.popitem(last=False)

    def _remember(self, at: int) -> None:
        if at not in self._recent:
            self._recent.add(at)
            self._order.append(at)
            self._forget()

    def _forget(self) -> None:
        """Forget the oldest of more than WINDOW."""
        order = self._order
        for _ in range(len(order) - WINDOW):
            self._recent.discard(order.popleft())
