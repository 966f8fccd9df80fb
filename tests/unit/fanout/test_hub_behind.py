"""Viewers behind the head, one request at a time: where they start, what is asked for them, what they are told."""

from __future__ import annotations

import json

import pytest

from logrelay.fanout import batch as batch_module
from logrelay.fanout import hub as hub_module
from logrelay.fanout.batch import Batch
from logrelay.fanout.filters import Filter
from logrelay.fanout.hub import MAX_PAGE_BYTES, MIN_PAGE_BYTES, PAGE_LINES, Hub
from logrelay.fanout.hub_types import CompressFetch, Found, Gap, LevelsFetch, PageFetch, StartFetch
from logrelay.fanout.line_json import log_line
from logrelay.model import ERROR, INFO, WARNING

ERRORS, WARNINGS = Filter(ERROR), Filter(WARNING)


def batch(first, last, level=INFO):
    """Make lines; `level` may be a function of seq."""
    made = [
        log_line("k3f9ab", seq, 1, "app", seq, level(seq) if callable(level) else level, {"event": "e", "n": seq})
        for seq in range(first, last + 1)
    ]
    return Batch([line for line, _, _ in made], [message for _, message, _ in made], [context for *_, context in made])


def found(*seqs, reached, complete=True, oldest=1):
    """Answer with these lines."""
    bodies = [batch(seq, seq).bodies()[0] for seq in seqs]
    return Found(bodies, list(seqs), reached, complete=complete, oldest=oldest)


class Socket:
    """Takes as many messages as there is room for, and reads frames back."""

    def __init__(self, room=1000):
        self.raw, self.room, self.at = b"", room, 0

    def write(self, payload):
        assert self.room > 0, "the hub wrote to a full socket"
        self.raw += payload
        self.room -= 1
        return self.room > 0

    def got(self):
        """Return what came since the last call: numbers of lines, and gaps as they were rendered."""
        raw, out = self.raw, []
        while self.at < len(raw):
            size, self.at = raw[self.at + 1], self.at + 2
            if size == 126:
                size, self.at = int.from_bytes(raw[self.at : self.at + 2], "big"), self.at + 2
            message = json.loads(raw[self.at : self.at + size])
            self.at += size
            for one in message if isinstance(message, list) else [message]:
                out.append(one["gap"] if "gap" in one else one["context"]["n"])
        return out


class Relay:
    """A hub, and what it asked for."""

    def __init__(self, **numbers):
        self.gaps = []
        numbers = {"head": 20, "oldest": 1, "max_lag": 1000, "landing_lines": 3} | numbers
        self.hub = Hub(render_gap=self.render, **numbers)
        self.last = []

    def render(self, gap):
        self.gaps.append(gap)
        return json.dumps({"gap": gap.cause}).encode()

    def viewer(self, wanted=Filter(), room=1000, form="plain", **kwargs):  # noqa: B008  (a filter is a value)
        return self.hub.join(Socket(room), wanted, form, **kwargs)

    def asked(self):
        """Take the requests, as tuples; the objects are in `last`."""
        self.last = list(self.hub.take_requests())
        return [self.describe(request) for request in self.last]

    @staticmethod
    def describe(request):
        assert request.generation == request.viewer.generation
        match request:
            case StartFetch():
                assert request.max_bytes == MAX_PAGE_BYTES
                return ("start", request.after, request.until, request.limit, request.filter)
            case PageFetch():
                assert (request.form, request.compress) == (request.viewer.form, request.viewer.deflate)
                return ("page", request.after, request.until, request.limit, request.filter)
            case LevelsFetch():
                return ("levels", request.first, request.last)
            case CompressFetch():
                assert request.form == request.viewer.form
                return ("compress", list(request.seqs), request.until)


@pytest.fixture
def make():
    """Make a relay: head 20, oldest line 1, nothing in memory; numbers may be others."""
    return Relay


def page(after, until, wanted=Filter(), limit=PAGE_LINES):  # noqa: B008
    return ("page", after, until, limit, wanted)


# --- where a viewer starts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("oldest", "lines", "after"), [(1, 3, 17), (18, 3, 17), (19, 3, 18), (20, 1, 19), (1, 100, 0)])
def test_the_newest_of_all_lines_are_looked_for(make, oldest, lines, after):
    """Some of the newest may be notices, which do not count: only the journal knows where the lines begin."""
    relay = make(oldest=oldest)
    relay.hub.start_tail(relay.viewer(), lines)
    assert relay.asked() == [("start", oldest - 1, 20, lines, Filter())]
    relay.hub.started(relay.last[0], found(*range(after + 1, 21), reached=after))
    assert relay.asked() == [page(after, 20)]


@pytest.mark.parametrize("wanted", [Filter(), ERRORS])
def test_an_empty_journal_is_not_asked(make, wanted):
    """Nothing is kept: the viewer is at the head."""
    relay = make(oldest=21)
    viewer = relay.viewer(wanted)
    relay.hub.start_tail(viewer, 5)
    assert relay.asked() == []
    relay.hub.publish(batch(21, 21, ERROR))
    assert viewer.sink.got() == [21]


def test_without_memory_the_journal_is_searched_up_to_the_head(make):
    """For all the lines that were asked for, behind the oldest."""
    relay = make(oldest=4)
    relay.hub.start_tail(relay.viewer(ERRORS), 3)
    assert relay.asked() == [("start", 3, 20, 3, ERRORS)]


def test_what_memory_does_not_have_is_searched_before_it(make):
    """Two of five are in the batches of memory, the journal is asked for three before the first of these."""
    relay = make()
    relay.hub.publish(batch(21, 24, lambda seq: ERROR if seq == 22 else INFO))
    relay.hub.publish(batch(25, 28, lambda seq: ERROR if seq == 28 else INFO))
    relay.hub.start_tail(relay.viewer(ERRORS), 5)
    assert relay.asked() == [("start", 0, 20, 3, ERRORS)]


@pytest.mark.parametrize(("lines", "sent"), [(1, [28]), (2, [24, 28]), (3, [22, 24, 28])])
def test_what_memory_has_is_sent_at_once(make, lines, sent):
    """The viewer is at the head in the same step."""
    relay = make()
    relay.hub.publish(batch(21, 24, lambda seq: ERROR if seq in (22, 24) else INFO))
    relay.hub.publish(batch(25, 28, lambda seq: ERROR if seq == 28 else INFO))
    viewer = relay.viewer(ERRORS)
    relay.hub.start_tail(viewer, lines)
    assert (viewer.sink.got(), relay.asked(), relay.hub.behind()) == (sent, [], 0)


def test_a_filter_that_every_line_passes_counts_every_line(make):
    """A batch says that without a list."""
    relay = make()
    relay.hub.publish(batch(21, 24))
    viewer = relay.viewer(Filter(sources=("app",)))
    relay.hub.start_tail(viewer, 3)
    assert viewer.sink.got() == [22, 23, 24]


def test_lines_of_memory_that_the_journal_has_given_up_are_over(make):
    """For a newcomer; and it is not told of a gap, for it asked for no certain line."""
    relay = make()
    relay.hub.publish(batch(21, 25, ERROR))
    relay.hub.commit(25, 24)
    viewer = relay.viewer(ERRORS)
    relay.hub.start_tail(viewer, 4)
    assert (viewer.sink.got(), relay.asked()) == ([24, 25], [])
    relay.hub.start_tail(viewer, 40)
    assert relay.asked() == [("start", 23, 23, 35, ERRORS)]


def test_the_search_goes_on_until_enough_is_found(make):
    """Answers may end early: the rest is searched before where the last one ended."""
    relay = make()
    viewer = relay.viewer(ERRORS)
    relay.hub.start_tail(viewer, 4)
    assert relay.asked() == [("start", 0, 20, 4, ERRORS)]
    relay.hub.started(relay.last[0], found(12, 15, reached=11, complete=False))
    assert relay.asked() == [("start", 0, 11, 2, ERRORS)]
    relay.hub.started(relay.last[0], found(reached=7, complete=False))
    assert relay.asked() == [("start", 0, 7, 2, ERRORS)]
    relay.hub.started(relay.last[0], found(6, reached=5, complete=False))
    assert relay.asked() == [("start", 0, 5, 1, ERRORS)]
    relay.hub.started(relay.last[0], found(3, reached=2, complete=False))
    assert relay.asked() == [page(2, 20, ERRORS)]


def test_the_search_ends_with_the_journal(make):
    """With fewer lines than were asked for, or with none."""
    relay = make()
    viewer = relay.viewer(ERRORS)
    relay.hub.start_tail(viewer, 4)
    relay.asked()
    relay.hub.started(relay.last[0], found(12, 15, reached=0, complete=True))
    assert relay.asked() == [page(11, 20, ERRORS)]
    relay.hub.start_tail(viewer, 4)
    relay.asked()
    relay.hub.started(relay.last[0], found(reached=0, complete=True))
    assert (relay.asked(), relay.hub.behind(), viewer.sink.got()) == ([], 0, [])


def test_a_viewer_may_not_start_beyond_the_head(make):
    """An id of the future means the head."""
    relay = make()
    viewer = relay.viewer()
    relay.hub.start_after(viewer, 50)
    assert (relay.hub.position(viewer), relay.asked()) == (20, [])
    relay.hub.publish(batch(21, 21))
    assert viewer.sink.got() == [21]


@pytest.mark.parametrize("after", [19, 20, 21, 22, 23, 24])
def test_only_what_is_before_memory_is_read_from_the_journal(make, after):
    """Up to the line before it, and then memory goes on."""
    relay = make()
    relay.hub.publish(batch(21, 22))
    relay.hub.publish(batch(23, 24))
    viewer = relay.viewer()
    relay.hub.start_after(viewer, after)
    if after == 19:
        assert relay.asked() == [page(19, 20)]
        relay.hub.paged(relay.last[0], found(20, reached=20))
    assert (viewer.sink.got(), relay.asked()) == (list(range(after + 1, 25)), [])


def test_a_gap_that_comes_first_waits_for_room(make):
    """It is said once, before the lines, and the bytes of it are counted."""
    relay = make()
    viewer = relay.viewer(room=1)
    relay.hub.start_after(viewer, 18, Gap("epoch", 1, 18, 18, None))
    assert (viewer.sink.got(), relay.asked(), viewer.stalled) == (["epoch"], [], True)
    assert (relay.hub.gaps, relay.hub.lines_skipped, relay.hub.bytes_sent) == (1, 18, len(viewer.sink.raw))
    viewer.sink.room = 10
    relay.hub.drained(viewer)
    assert relay.asked() == [page(18, 20)]
    relay.hub.start_after(viewer, 17, Gap("epoch", 1, 19, 19, None))
    assert (viewer.sink.got(), relay.asked()) == (["epoch"], [page(19, 20)])
    assert (relay.hub.gaps, relay.hub.lines_skipped, relay.hub.bytes_sent) == (2, 37, len(viewer.sink.raw))


# --- changing the subscription ---------------------------------------------------------------------------------------


def test_a_new_filter_searches_its_own_newest_lines(make):
    """While the search of the old one is under way; its answer is for nobody."""
    relay = make()
    viewer = relay.viewer(ERRORS)
    relay.hub.start_tail(viewer, 4)
    relay.asked()
    [old] = relay.last
    relay.hub.resubscribe(viewer, WARNINGS)
    assert relay.asked() == [("start", 0, 20, 4, WARNINGS)]
    [new] = relay.last
    relay.hub.started(old, found(12, reached=0))
    assert relay.asked() == []
    relay.hub.started(new, found(14, reached=0))
    assert relay.asked() == [page(13, 20, WARNINGS)]


def test_a_new_filter_goes_on_from_the_cursor(make):
    """Behind the head from what was sent, at the head from the head."""
    relay = make()
    viewer = relay.viewer(ERRORS)
    relay.hub.start_after(viewer, 15)
    relay.asked()
    relay.hub.resubscribe(viewer, WARNINGS)
    assert relay.asked() == [page(15, 20, WARNINGS)]
    relay.hub.paged(relay.last[0], found(reached=20))
    relay.hub.publish(batch(21, 22, ERROR))
    relay.hub.resubscribe(viewer, ERRORS)
    relay.hub.publish(batch(23, 24, lambda seq: ERROR if seq == 24 else WARNING))
    assert (viewer.sink.got(), relay.asked()) == ([21, 22, 24], [])


def test_a_gap_that_was_not_sent_is_still_owed_after_a_new_filter(make):
    """The socket was full."""
    relay = make()
    viewer = relay.viewer(room=1)
    relay.hub.start_after(viewer, 10)
    relay.asked()
    relay.hub.paged(relay.last[0], found(11, reached=11))
    relay.hub.start_after(viewer, 18, Gap("epoch", 1, 18, 18, None))
    relay.hub.resubscribe(viewer, WARNINGS)
    assert (viewer.sink.got(), relay.asked()) == ([11], [])
    viewer.sink.room = 10
    relay.hub.drained(viewer)
    assert (viewer.sink.got(), relay.asked()) == (["epoch"], [page(18, 20, WARNINGS)])


# --- too far behind --------------------------------------------------------------------------------------------------


@pytest.fixture
def lagging(make):
    """Make a relay whose viewers are skipped when they are more than five lines behind."""

    def begin(wanted=Filter(), after=2, levels=None, **numbers):  # noqa: B008
        relay = make(**{"max_lag": 5} | numbers)
        viewer = relay.viewer(wanted)
        relay.hub.start_after(viewer, after)
        if levels is not None:
            relay.asked()
            relay.hub.levels_counted(relay.last[0], levels)
        return relay, viewer

    return begin


@pytest.mark.parametrize(
    ("after", "landing", "asked"),
    [
        (14, 3, ("levels", 15, 17)),
        (15, 3, page(15, 20)),
        (14, 5, ("levels", 15, 15)),
        (14, 6, page(14, 20)),
        (14, 7, page(14, 20)),
        (0, 0, ("levels", 1, 20)),
    ],
)
def test_who_is_too_far_behind_is_skipped_to_so_many_lines_before_the_head(lagging, after, landing, asked):
    """Not at the bound itself, and nobody is skipped backwards."""
    relay, _ = lagging(after=after, landing_lines=landing)
    assert relay.asked() == [asked]


def test_nobody_is_skipped_over_lines_that_the_journal_does_not_have_yet(make):
    """They are in memory, and nobody has counted them."""
    relay = make(max_lag=5)
    relay.hub.publish(batch(21, 30))
    relay.hub.start_after(relay.viewer(), 2)
    assert relay.asked() == [("levels", 3, 20)]
    relay.hub.commit(24, 1)
    relay.hub.start_after(relay.viewer(), 2)
    assert relay.asked() == [("levels", 3, 24)]


def test_warnings_of_the_stretch_come_and_the_rest_is_told(lagging):
    """The notice says the stretch, the levels in it, how many came all the same and how many did not."""
    levels = {INFO: 12, ERROR: 3}
    wanted = Filter(sources=("a*",), text="x", where=(("k", "v"),))
    relay, viewer = lagging(wanted, levels=levels)
    kept = Filter(WARNING, ("a*",), "x", (("k", "v"),))
    assert relay.asked() == [page(2, 17, kept, 1000)]
    relay.hub.paged(relay.last[0], found(5, 9, reached=9, complete=False))
    assert relay.asked() == [page(9, 17, kept, 998)]
    relay.hub.paged(relay.last[0], found(11, reached=17))
    assert relay.gaps == [Gap("lag", 3, 17, 12, levels, kept=3)]
    assert viewer.sink.got() == [5, 9, 11, "lag"]
    assert relay.asked() == [page(17, 20, wanted)]
    assert (relay.hub.gaps, relay.hub.lines_skipped, relay.hub.lines_sent) == (1, 12, 3)


@pytest.mark.parametrize(("wanted", "told"), [(Filter(INFO), True), (WARNINGS, False), (ERRORS, False)])
def test_who_wants_only_warnings_has_missed_nothing(lagging, wanted, told):
    """And is sent no notice; where the level asked for is the higher one, it stays."""
    relay, viewer = lagging(wanted, levels={INFO: 14, ERROR: 1})
    assert relay.asked() == [page(2, 17, Filter(max(wanted.level, WARNING)), 1000)]
    relay.hub.paged(relay.last[0], found(5, reached=17))
    assert viewer.sink.got() == ([5, "lag"] if told else [5])
    assert relay.asked() == [page(17, 20, wanted)]


@pytest.mark.parametrize(("missing", "gaps"), [(0, 0), (1, 1)])
def test_a_stretch_that_came_whole_has_no_notice(lagging, missing, gaps):
    """All of it was WARNING and above; one line that was not is told."""
    relay, _ = lagging(levels={WARNING: 15 - missing})
    relay.asked()
    relay.hub.paged(relay.last[0], found(*range(3 + missing, 18), reached=17))
    assert [gap.count for gap in relay.gaps] == [1] * gaps
    assert relay.asked() == [page(17, 20)]


@pytest.mark.parametrize("wanted", [Filter(), WARNINGS])
def test_only_so_many_warnings_are_kept(lagging, monkeypatch, wanted):
    """Beyond that also who wants only these has missed something."""
    monkeypatch.setattr(hub_module, "KEPT_WARNINGS", 3)
    relay, viewer = lagging(wanted, levels={WARNING: 15})
    assert relay.asked() == [page(2, 17, WARNINGS, 3)]
    relay.hub.paged(relay.last[0], found(3, 4, reached=4, complete=False))
    assert relay.asked() == [page(4, 17, WARNINGS, 1)]
    relay.hub.paged(relay.last[0], found(5, reached=5, complete=False))
    assert relay.gaps == [Gap("lag", 3, 17, 12, {WARNING: 15}, kept=3)]
    assert viewer.sink.got() == [3, 4, 5, "lag"]
    assert relay.asked() == [page(17, 20, wanted)]


def test_a_page_of_warnings_is_no_larger_than_any_other(lagging, monkeypatch):
    """However many may be kept."""
    monkeypatch.setattr(hub_module, "PAGE_LINES", 7)
    relay, _ = lagging(levels={})
    assert relay.asked() == [page(2, 17, WARNINGS, 7)]


def test_the_notice_of_a_skip_waits_for_room(lagging):
    """What comes behind it is asked for when there is some."""
    relay, viewer = lagging(levels={INFO: 15})
    relay.asked()
    viewer.sink.room = 1
    relay.hub.paged(relay.last[0], found(reached=17))
    assert (viewer.sink.got(), viewer.stalled, relay.asked()) == (["lag"], True, [])
    viewer.sink.room = 10
    relay.hub.drained(viewer)
    assert relay.asked() == [page(17, 20)]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (Filter(), ERRORS, True),
        (WARNINGS, Filter(INFO), True),
        (WARNINGS, ERRORS, False),
        (ERRORS, WARNINGS, False),
    ],
)
def test_a_skip_goes_on_under_a_new_filter(lagging, before, after, told):
    """Its notice is owed when either of the two wants more than warnings."""
    relay, viewer = lagging(before, levels={INFO: 15})
    relay.asked()
    relay.hub.paged(relay.last[0], found(4, reached=4, complete=False))
    relay.asked()
    relay.hub.resubscribe(viewer, after)
    assert relay.asked() == [page(4, 17, Filter(max(after.level, WARNING)), 999)]
    relay.hub.paged(relay.last[0], found(reached=17))
    assert relay.gaps == ([Gap("lag", 3, 17, 14, {INFO: 15}, kept=1)] if told else [])
    assert relay.asked() == [page(17, 20, after)]


def test_a_skip_whose_lines_were_not_counted_begins_anew_under_a_new_filter(lagging):
    """Nothing of it has been sent; the old count is for nobody."""
    relay, viewer = lagging(WARNINGS)
    relay.asked()
    [old] = relay.last
    relay.hub.resubscribe(viewer, Filter(INFO))
    assert relay.asked() == [("levels", 3, 17)]
    [new] = relay.last
    relay.hub.levels_counted(old, {ERROR: 1})
    assert relay.asked() == []
    relay.hub.levels_counted(new, {INFO: 15})
    relay.asked()
    relay.hub.paged(relay.last[0], found(reached=17))
    assert relay.gaps == [Gap("lag", 3, 17, 15, {INFO: 15})]


# --- retention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "gap"), [(2, (3, 7, 5)), (6, (7, 7, 1)), (7, None), (8, None)])
def test_lines_that_are_gone_are_told(make, after, gap):
    """From the first that was wanted to the last that is gone; behind them the viewer goes on."""
    relay = make(oldest=8)
    viewer = relay.viewer()
    relay.hub.start_after(viewer, after)
    assert relay.gaps == ([Gap("retention", *gap, None)] if gap else [])
    assert viewer.sink.got() == (["retention"] if gap else [])
    assert relay.asked() == [page(max(after, 7), 20)]


@pytest.mark.parametrize(("oldest", "gaps"), [(3, []), (4, [(3, 3, 1)]), (20, [(3, 19, 17)]), (21, [(3, 20, 18)])])
def test_lines_that_went_while_they_were_read_are_told(make, oldest, gaps):
    """The answer says what was the oldest then."""
    relay = make()
    viewer = relay.viewer()
    relay.hub.start_after(viewer, 2)
    relay.asked()
    relay.hub.paged(relay.last[0], found(*range(oldest, 21), reached=20, oldest=oldest))
    assert relay.gaps == [Gap("retention", *gap, None) for gap in gaps]
    assert viewer.sink.got() == ["retention"] * len(gaps) + list(range(oldest, 21))
    assert relay.hub.behind() == 0


def test_a_page_behind_a_gap_that_fills_the_socket_is_read_again(make):
    """A viewer whose socket is full holds no memory."""
    relay = make()
    viewer = relay.viewer(room=1)
    relay.hub.start_after(viewer, 2)
    relay.asked()
    relay.hub.paged(relay.last[0], found(*range(8, 21), reached=20, oldest=8))
    assert (viewer.sink.got(), relay.asked()) == (["retention"], [])
    viewer.sink.room = 100
    relay.hub.drained(viewer)
    assert relay.asked() == [page(7, 20)]


@pytest.mark.parametrize(("oldest", "after"), [(10, 9), (17, 16), (18, 17), (25, 17)])
def test_what_goes_out_of_a_skipped_stretch_is_told_with_it(lagging, oldest, after):
    """One notice for the whole stretch, also for who wants only warnings: some of them may be gone."""
    relay, viewer = lagging(WARNINGS, levels={INFO: 15})
    relay.asked()
    relay.hub.paged(relay.last[0], found(4, reached=4, complete=False))
    relay.asked()
    relay.hub.publish(batch(21, 30))
    relay.hub.paged(relay.last[0], found(reached=after, complete=False, oldest=oldest))
    if after < 17:
        assert relay.gaps == []
        assert relay.asked() == [page(after, 17, WARNINGS, 999)]
        relay.hub.paged(relay.last[0], found(reached=17, oldest=oldest))
    assert relay.gaps == [Gap("lag", 3, 17, 14, {INFO: 15}, kept=1)]
    assert viewer.sink.got() == [4, "lag"]


def test_what_goes_out_of_a_skipped_stretch_is_not_asked_for(lagging):
    """The socket was full meanwhile: the stretch goes on at the oldest line."""
    relay, viewer = lagging(levels={INFO: 15})
    relay.asked()
    viewer.sink.room = 1
    relay.hub.paged(relay.last[0], found(4, reached=4, complete=False))
    relay.hub.commit(20, 10)
    viewer.sink.room = 10
    relay.hub.drained(viewer)
    assert (relay.gaps, relay.asked()) == ([], [page(9, 17, WARNINGS, 999)])


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def single(monkeypatch):
    """Let every line be a message of its own."""
    monkeypatch.setattr(batch_module, "SEGMENT_BYTES", 1)


def sizes(relay, viewer, answers):
    """Answer page after page; returns the sizes asked for, the last one included."""
    seen = []
    for answer in [*answers, None]:
        [fetch] = relay.hub.take_requests()
        seen.append(fetch.max_bytes)
        if answer is not None:
            relay.hub.paged(fetch, answer)
            if viewer.stalled:
                viewer.sink.room = 100
                relay.hub.drained(viewer)
    return seen


def test_pages_grow_while_they_are_taken_whole(make):
    """Twice as large each, up to a bound; from the smallest again once the viewer was at the head."""
    relay = make()
    viewer = relay.viewer()
    relay.hub.start_after(viewer, 0)
    grown = sizes(relay, viewer, [found(n, reached=n, complete=False) for n in range(1, 6)])
    assert grown == [MIN_PAGE_BYTES * n for n in (1, 2, 4, 8, 8, 8)]
    assert MAX_PAGE_BYTES == 8 * MIN_PAGE_BYTES
    relay.hub.start_after(viewer, 5)
    [fetch] = relay.hub.take_requests()
    assert fetch.max_bytes == MIN_PAGE_BYTES
    relay.hub.paged(fetch, found(reached=20))
    assert viewer.page_bytes == MIN_PAGE_BYTES


@pytest.mark.parametrize(
    ("room", "cursor", "size"),
    [(1, 4, 4), (2, 5, 4), (3, 8, 8), (4, 8, 8)],
)
def test_a_page_that_does_not_fit_is_taken_in_part(make, single, room, cursor, size):
    """The viewer stands behind the last line it took; the next page is half as large, or as large as that."""
    relay = make()
    viewer = relay.viewer()
    relay.hub.start_after(viewer, 0)
    sizes(relay, viewer, [found(n, reached=n, complete=False) for n in (1, 2, 3)])
    relay.hub.start_after(viewer, 3)
    [fetch] = relay.hub.take_requests()
    viewer.page_bytes = MAX_PAGE_BYTES
    viewer.sink.got()
    viewer.sink.room = room
    relay.hub.paged(fetch, found(4, 5, 7, reached=8, complete=False))
    sent = [4, 5, 7][:room]
    assert viewer.sink.got() == sent
    assert relay.hub.position(viewer) == cursor
    viewer.sink.room = 100
    relay.hub.drained(viewer)
    [fetch] = relay.hub.take_requests()
    assert (fetch.after, fetch.max_bytes) == (cursor, size * MIN_PAGE_BYTES)


def test_the_smallest_page_does_not_shrink(make, single):
    """However often it does not fit."""
    relay = make()
    viewer = relay.viewer(room=1)
    relay.hub.start_after(viewer, 0)
    for after in (0, 1):
        [fetch] = relay.hub.take_requests()
        assert (fetch.after, fetch.max_bytes) == (after, MIN_PAGE_BYTES)
        relay.hub.paged(fetch, found(after + 1, after + 2, reached=20))
        viewer.sink.room = 1
        relay.hub.drained(viewer)


def test_a_page_comes_in_the_form_of_the_viewer(make):
    """One array, and its lines are counted."""
    relay = make()
    viewer = relay.viewer(form="batch")
    relay.hub.start_after(viewer, 17)
    relay.asked()
    relay.hub.paged(relay.last[0], found(18, 20, reached=20))
    assert viewer.sink.raw.count(b"[") == 1
    assert viewer.sink.got() == [18, 20]
    assert (relay.hub.lines_sent, relay.hub.bytes_sent) == (2, len(viewer.sink.raw))


def test_memory_and_notices_come_in_the_form_of_the_viewer(make):
    """An array each."""
    relay = make()
    relay.hub.publish(batch(21, 24))
    viewer = relay.viewer(form="batch")
    relay.hub.start_after(viewer, 22, Gap("epoch", 1, 22, 22, None))
    assert viewer.sink.raw.count(b"[") == 2
    assert viewer.sink.got() == ["epoch", 23, 24]


# --- answers ---------------------------------------------------------------------------------------------------------


def test_nothing_is_asked_twice(make):
    """While an answer is awaited: not when the socket has room again, and not by `retry`."""
    relay = make(max_lag=5)
    starting, reading, counting = relay.viewer(ERRORS), relay.viewer(), relay.viewer()
    relay.hub.start_tail(starting, 3)
    relay.hub.start_after(reading, 16)
    relay.hub.start_after(counting, 2)
    assert [kind for kind, *_ in relay.asked()] == ["start", "page", "levels"]
    relay.hub.retry()
    for viewer in (starting, reading, counting):
        viewer.stalled = True
        relay.hub.drained(viewer)
        relay.hub.drained(viewer)
    assert relay.asked() == []


def test_what_failed_is_asked_again_by_retry(make):
    """Each in its place; a count that failed leaves no skip that nobody has counted."""
    relay = make(max_lag=5)
    starting, reading, counting = relay.viewer(ERRORS), relay.viewer(), relay.viewer()
    relay.hub.start_tail(starting, 3)
    relay.hub.start_after(reading, 16)
    relay.hub.start_after(counting, 2)
    first = relay.asked()
    for fetch in relay.last:
        relay.hub.failed(fetch)
    assert relay.asked() == []
    assert counting.skip is None
    relay.hub.retry()
    assert relay.asked() == first


def test_a_skip_goes_on_where_a_page_failed(lagging):
    """What was counted and what was sent stays so."""
    relay, _ = lagging(levels={INFO: 15})
    relay.asked()
    relay.hub.paged(relay.last[0], found(4, reached=4, complete=False))
    again = relay.asked()
    relay.hub.failed(relay.last[0])
    relay.hub.retry()
    assert relay.asked() == again == [page(4, 17, WARNINGS, 999)]


def test_answers_that_are_too_late_are_for_nobody(make):
    """The viewer has asked for something else, or has left; also that they failed is nobody's concern."""
    relay = make()
    viewer = relay.viewer()
    relay.hub.start_after(viewer, 2)
    relay.asked()
    [old] = relay.last
    relay.hub.start_after(viewer, 10)
    assert relay.asked() == [page(10, 20)]
    relay.hub.paged(old, found(3, reached=20))
    relay.hub.failed(old)
    relay.hub.retry()
    assert (relay.asked(), viewer.sink.got(), relay.hub.position(viewer)) == ([], [], 10)
    relay.hub.start_after(viewer, 12)
    relay.asked()
    [current] = relay.last
    relay.hub.leave(viewer)
    relay.hub.leave(viewer)
    relay.hub.paged(current, found(13, reached=20))
    relay.hub.drained(viewer)
    assert (relay.asked(), viewer.sink.got(), relay.hub.behind()) == ([], [], 0)


def test_retry_serves_only_who_waits(make):
    """Neither who is at the head nor whose socket is full."""
    relay = make()
    live, full, waiting = relay.viewer(), relay.viewer(room=1), relay.viewer()
    relay.hub.start_after(live, 20)
    relay.hub.start_after(full, 10)
    relay.hub.start_after(waiting, 12)
    assert relay.asked() == [page(10, 20), page(12, 20)]
    relay.hub.paged(relay.last[0], found(11, reached=11, complete=False))
    relay.hub.failed(relay.last[1])
    relay.hub.retry()
    assert relay.asked() == [page(12, 20)]
    relay.hub.publish(batch(21, 21))
    assert live.sink.got() == [21]


def test_a_viewer_that_left_gets_no_more_room(make):
    """Its socket was full and drains while it is closed: nothing is asked and nothing is sent for it."""
    relay = make()
    relay.hub.publish(batch(21, 22))
    relay.hub.publish(batch(23, 24))
    viewer = relay.viewer(room=1)
    relay.hub.start_after(viewer, 20)
    assert viewer.sink.got() == [21, 22]
    relay.hub.leave(viewer)
    viewer.sink.room = 10
    relay.hub.drained(viewer)
    relay.hub.publish(batch(25, 25))
    assert (viewer.sink.got(), relay.asked(), relay.hub.behind()) == ([], [], 0)


def test_where_a_viewer_at_the_head_stands(make):
    """Behind everything that was published, or, for who asks in the middle of it, before the batch that is named."""
    relay = make()
    viewer = relay.viewer()
    relay.hub.start_after(viewer, 20)
    relay.hub.publish(batch(21, 22))
    assert relay.hub.position(viewer) == 22
    assert relay.hub.position(viewer, before=21) == 20
    relay.hub.start_after(viewer, 5)
    assert relay.hub.position(viewer, before=21) == 5


def test_room_is_news_only_for_who_had_none(make):
    """A viewer at the head or one that waits for the journal is left alone."""
    relay = make()
    viewer = relay.viewer()
    relay.hub.start_after(viewer, 10)
    relay.asked()
    relay.hub.failed(relay.last[0])
    relay.hub.drained(viewer)
    assert relay.asked() == []


# --- compressed ------------------------------------------------------------------------------------------------------


def bytes_of(made):
    return sum(map(len, made.bodies()))


@pytest.mark.parametrize(("spare", "compressed"), [(0, False), (-1, True)])
def test_a_little_is_sent_uncompressed(make, monkeypatch, spare, compressed):
    """At the head at once; beyond the bound the lines go through a compressor first."""
    relay = make()
    first, second = batch(21, 23), batch(24, 26)
    for made in (first, second):
        relay.hub.publish(made)
    monkeypatch.setattr(hub_module, "SMALL_BYTES", bytes_of(first) + bytes_of(second) + spare)
    viewer = relay.viewer(deflate=True)
    relay.hub.start_after(viewer, 20)
    if not compressed:
        assert (viewer.sink.got(), relay.asked(), relay.hub.behind()) == (list(range(21, 27)), [], 0)
        return
    assert (viewer.sink.got(), relay.asked()) == ([], [("compress", list(range(21, 27)), 26)])
    relay.hub.retry()
    assert relay.asked() == [], "its lines are awaited"


@pytest.mark.parametrize(("spare", "until"), [(0, 23), (1, 26)])
def test_what_is_compressed_at_once_is_about_a_page(make, monkeypatch, spare, until):
    """Whole batches, until there is enough; the rest follows the answer."""
    monkeypatch.setattr(hub_module, "SMALL_BYTES", 1)
    relay = make()
    first = batch(21, 23)
    for made in (first, batch(24, 26), batch(27, 29)):
        relay.hub.publish(made)
    viewer = relay.viewer(deflate=True)
    viewer.page_bytes = bytes_of(first) + spare
    monkeypatch.setattr(hub_module, "MIN_PAGE_BYTES", bytes_of(first) + spare)
    relay.hub.start_after(viewer, 20)
    assert relay.asked() == [("compress", list(range(21, until + 1)), until)]
    relay.hub.compressed(relay.last[0], relay.last[0].compressed())
    assert relay.asked() == [("compress", list(range(until + 1, 30)), 29)]


def test_only_what_is_wanted_and_not_yet_sent_is_compressed(make, monkeypatch):
    """The viewer then stands behind the last batch, wanted or not."""
    monkeypatch.setattr(hub_module, "SMALL_BYTES", 1)
    relay = make()
    relay.hub.publish(batch(21, 24, ERROR))
    relay.hub.publish(batch(25, 28, lambda seq: ERROR if seq == 26 else INFO))
    viewer = relay.viewer(ERRORS, deflate=True)
    relay.hub.start_after(viewer, 22)
    assert relay.asked() == [("compress", [23, 24, 26], 28)]
    segments = relay.last[0].compressed()
    relay.hub.compressed(relay.last[0], segments)
    assert (relay.hub.position(viewer), relay.hub.behind(), relay.asked()) == (28, 0, [])
    assert viewer.sink.raw == b"".join(segment.payload for segment in segments)
    assert relay.hub.lines_sent == 3
    relay.hub.start_after(viewer, 22)
    relay.asked()
    [old] = relay.last
    relay.hub.start_after(viewer, 28)
    raw = viewer.sink.raw
    relay.hub.compressed(old, segments)
    assert viewer.sink.raw == raw, "nobody waits for it any more"


def test_a_page_of_a_compressed_viewer_comes_compressed(make):
    """By the thread that read it: what it made is sent as it is."""
    relay = make()
    viewer = relay.viewer(deflate=True)
    relay.hub.start_after(viewer, 17)
    assert relay.asked() == [page(17, 20)]
    answer = found(18, 20, reached=20)
    answer.segments = relay.last[0].compressed(answer.bodies, answer.seqs)
    relay.hub.paged(relay.last[0], answer)
    assert viewer.sink.raw == b"".join(segment.payload for segment in answer.segments)
    assert (relay.hub.lines_sent, relay.hub.behind()) == (2, 0)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(20, 32))
def test_memory_is_searched_from_either_end(make, after):
    """Six batches of two lines: wherever a viewer stands, it gets the rest, once and in order."""
    relay = make()
    for first in range(21, 33, 2):
        relay.hub.publish(batch(first, first + 1))
    viewer = relay.viewer()
    relay.hub.start_after(viewer, after)
    assert viewer.sink.got() == list(range(after + 1, 33))
    assert relay.hub.behind() == 0


def test_a_socket_that_is_full_in_the_middle_of_memory_goes_on_there(make):
    """Batch by batch; the viewer is at the head when the last one has gone."""
    relay = make()
    for first in range(21, 27, 2):
        relay.hub.publish(batch(first, first + 1))
    viewer = relay.viewer(room=1)
    relay.hub.start_after(viewer, 20)
    for position in (22, 24, 26):
        assert (viewer.sink.got(), relay.hub.position(viewer)) == ([position - 1, position], position)
        assert (relay.hub.behind(), viewer.stalled) == (1, True)
        relay.hub.retry()
        viewer.sink.room = 1 if position < 26 else 10
        relay.hub.drained(viewer)
    assert relay.hub.behind() == 0


# --- devices that were away ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tail", "behind", "expected"),
    [(3, 10, ["away", 18, 19, 20]), (3, 17, [18, 19, 20]), (3, 19, [20]), (3, 20, []), (0, 18, ["away"])],
)
def test_a_device_that_was_away_is_told_what_it_has_missed(tail, behind, expected):
    """Before the newest lines, a gap that counts those between; a line that it has does not come again."""
    relay = Relay(head=0)
    relay.hub.publish(batch(1, 20))
    viewer = relay.viewer()
    assert relay.hub.received(viewer) == 0
    relay.hub.start_tail(viewer, tail, behind)

    assert viewer.sink.got() == expected
    assert [(gap.first, gap.last, gap.count) for gap in relay.gaps] == (
        [(behind + 1, 20 - tail, 20 - tail - behind)] if "away" in expected else []
    )
    assert relay.hub.received(viewer) == 20


@pytest.mark.parametrize(
    ("found_seqs", "complete", "expected"),
    [((17, 19), True, ["away", 17, 19]), ((9, 19), True, [19]), ((), True, [])],
)
def test_where_its_newest_lines_have_to_be_searched_for(found_seqs, complete, expected):
    """What was away is known when the place is found; until then nothing that it has received is known."""
    relay = Relay()
    viewer = relay.viewer(ERRORS)
    relay.hub.start_tail(viewer, 2, 10)
    assert relay.hub.received(viewer) is None
    relay.asked()
    relay.hub.started(relay.last[0], found(*found_seqs, reached=0, complete=complete))
    for fetch in relay.hub.take_requests():
        wanted = [seq for seq in found_seqs if seq > fetch.after]
        relay.hub.paged(fetch, found(*wanted, reached=20))

    assert viewer.sink.got() == expected
    assert relay.hub.received(viewer) == 20


def test_a_batch_that_the_journal_has_already_is_shown_and_committed_at_once():
    """As if `publish` and `commit` had been called."""
    one, two = Relay(), Relay()
    for relay in (one, two):
        viewer = relay.viewer()
        relay.hub.start_after(viewer, 20)
        relay.hub.commit(20, 1)
        relay.sink = viewer.sink
    one.hub.publish(batch(21, 22), oldest=3)
    two.hub.publish(batch(21, 22))
    two.hub.commit(22, 3)
    assert (one.hub.head, one.hub.committed, one.hub.oldest) == (two.hub.head, two.hub.committed, two.hub.oldest)
    assert one.hub.committed == 22
    assert one.sink.got() == two.sink.got() == [21, 22]
