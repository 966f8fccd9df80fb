"""One viewer: where its subscription begins, what its requests change, and history in its turn."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from logrelay.budgets import HISTORIES_BEGUN
from logrelay.fanout.filters import Filter
from logrelay.model import ERROR, WARNING
from logrelay.viewers import session as session_module
from logrelay.viewers.history_turns import HistoryTurns
from logrelay.viewers.session import MAX_HISTORIES, Session
from tests.support.streams import FakeSocket, FakeStream
from tests.support.waiting import DEADLINE_S

TAIL = 500


class Bench:
    """A session on a fake stream and a fake socket."""

    def __init__(self, target="/", alerts=None, history_turns=None, **settings):
        self.stream = FakeStream(**settings)
        self.socket = FakeSocket()
        loop = asyncio.get_running_loop()
        self.session = Session(
            self.stream,
            self.socket,
            form="single",
            deflate=True,
            tail=TAIL,
            loop=loop,
            alerts=alerts,
            history_turns=history_turns,
        )
        self.session.begin(target)

    def ask(self, **request):
        self.session.message_received(json.dumps(request).encode())

    def calls(self):
        """Return what was asked of the stream since the last time."""
        calls, self.stream.calls = self.stream.calls, []
        return calls

    async def answers(self, count):
        """Wait until nothing is under way any more; return all messages, which are so many."""
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        assert len(self.socket.sent) == count, self.socket.sent
        return self.socket.sent


def on_a_loop(test):
    """Run an async test to its end."""

    def run(*args, **kwargs):
        asyncio.run(test(*args, **kwargs))

    run.__doc__, run.__name__ = test.__doc__, test.__name__
    return run


# --- where it begins ----------------------------------------------------------------------------------------


@on_a_loop
async def test_it_begins_with_the_newest_lines():
    """Without a wish in the URL: everything, the last `tail` lines first, in the form of the handshake."""
    bench = Bench()
    assert bench.calls() == [("join", Filter(), "single", True), ("start_tail", TAIL)]
    assert Bench("/?tail=0").calls()[1:] == [("start_tail", 0)]
    assert Bench("/?tail=7&level=ERROR").calls() == [("join", Filter(ERROR), "single", True), ("start_tail", 7)]


@on_a_loop
async def test_it_resumes_behind_an_id():
    """An id wins over a number of lines."""
    assert Bench("/?after=k3f9ab-4&tail=7").calls()[1:] == [("start_after", 4, None)]


@on_a_loop
async def test_an_id_of_another_journal_begins_with_the_oldest_line_and_a_gap():
    """What is missing behind it nobody knows; the viewer is told so before the oldest line kept."""
    ((_, seq, gap),) = Bench("/?after=zzzzzz-4", oldest=3).calls()[1:]
    assert seq == 2
    assert (gap.cause, gap.first, gap.last, gap.count, gap.levels) == ("epoch", 0, 2, 0, None)
    assert gap.detail == (
        "zzzzzz-4 is an id of another journal, or of an epoch that this one does not remember; "
        "its newest line is k3f9ab-10"
    )


@on_a_loop
async def test_an_id_of_a_line_that_is_gone_goes_on_behind_what_is_left():
    """Its viewer is told which lines it was shown and the journal does not have, then gets everything behind them."""
    ((_, seq, gap),) = Bench("/?after=cut111-9", earlier=("cut111",), first=7).calls()[1:]
    assert seq == 6
    assert (gap.cause, gap.epoch, gap.first, gap.last, gap.count, gap.behind) == ("unsynced", "cut111", 7, 9, 3, 6)
    assert Bench("/?after=cut111-6", earlier=("cut111",), first=7).calls()[1:] == [("start_after", 6, None)]


@on_a_loop
async def test_a_wrong_url_is_told_and_closed():
    """The error comes first, the close code says not to come back unchanged; nothing is ever asked of the stream."""
    bench = Bench("/?level=" + "x" * 300)
    (error,) = bench.socket.sent
    assert (error["type"], error["code"]) == ("error", "bad_level")
    code, reason = bench.socket.closed
    assert code == 4400
    assert error["message"].startswith(reason)
    assert len(reason.encode()) <= 123
    bench.ask(type="subscribe", level="ERROR")
    bench.session.writing_resumed()
    bench.session.connection_lost()
    assert bench.calls() == []


@on_a_loop
async def test_what_means_nothing_is_told_and_changes_nothing():
    """A misspelt parameter or field is noted in a message that is no error, and the rest of the request holds."""
    bench = Bench("/?tial=7&level=ERROR")
    (note,) = bench.socket.sent
    assert (note["type"], note["code"]) == ("note", "unknown")
    assert "'tial'" in note["message"]
    assert bench.calls()[1:] == [("start_tail", TAIL)]
    bench.socket.sent.clear()
    bench.ask(type="subscribe", tial=7)
    assert [message["type"] for message in bench.socket.sent] == ["subscribed", "note"]


# --- what a request changes ---------------------------------------------------------------------------------


@on_a_loop
async def test_what_is_so_already_changes_nothing():
    """The app subscribes to what it gets since it connected: it is answered, and gets nothing twice."""
    bench = Bench("/?level=WARNING")
    bench.calls()
    bench.ask(type="subscribe", channel="logs")
    bench.ask(type="subscribe", level="warning")
    assert bench.calls() == []
    answer = {"type": "subscribed", "channel": "logs", "filter": {"level": "WARNING"}, "head": "k3f9ab-10"}
    assert bench.socket.sent == [answer, answer]


@on_a_loop
async def test_another_filter_goes_on_from_where_the_viewer_stands():
    """Without `tail` and `after` nothing is sent again."""
    bench = Bench()
    bench.calls()
    bench.ask(type="subscribe", level="WARNING")
    assert bench.calls() == [("resubscribe", Filter(WARNING))]
    assert bench.socket.sent[-1]["filter"] == {"level": "WARNING"}


@on_a_loop
async def test_another_beginning():
    """`tail` and `after` begin anew, with the new filter where one is given."""
    bench = Bench()
    bench.calls()
    bench.ask(type="subscribe", tail=3)
    assert bench.calls() == [("start_tail", 3)]
    bench.ask(type="subscribe", level="WARNING", after="k3f9ab-9")
    assert bench.calls() == [("change", Filter(WARNING)), ("start_after", 9, None)]


@on_a_loop
async def test_a_bad_request_changes_nothing():
    """It is answered with its code."""
    bench = Bench()
    bench.calls()
    bench.ask(type="subscribe", level="loud")
    bench.ask(type="history", before="k3f9ab-11")
    bench.session.message_received(b"nonsense")
    assert [message["code"] for message in bench.socket.sent] == ["bad_level", "expired", "bad_json"]
    assert bench.calls() == []
    bench.ask(type="ping")
    assert bench.socket.sent[-1] == {"type": "pong"}


@on_a_loop
async def test_room_in_the_socket_and_the_end_are_passed_on():
    """The hub learns of both."""
    bench = Bench()
    bench.calls()
    bench.session.writing_resumed()
    bench.session.connection_lost()
    assert bench.calls() == [("drained",), ("leave",)]


# --- history ------------------------------------------------------------------------------------------------


def numbers(answer):
    assert answer["type"] == "history"
    return [line["n"] for line in answer["logs"]]


@on_a_loop
async def test_history_is_the_newest_lines_before_an_id():
    """Ascending, with the viewer's filter, and with `more` while there are older ones."""
    bench = Bench("/?level=ERROR")
    bench.ask(type="history", before="k3f9ab-8", limit=3)
    (answer,) = await bench.answers(1)
    assert numbers(answer) == [5, 6, 7]
    assert answer["more"] is True
    (query,) = bench.stream.queries
    assert (query.after, query.until, query.limit, query.newest) == (0, 7, 3, True)
    assert query.filter == Filter(ERROR)


@on_a_loop
async def test_history_before_a_line_that_is_gone():
    """What is left of the lines before it, and which are gone; none is when it was the first of those."""
    bench = Bench(earlier=("cut111",), first=7)
    bench.ask(type="history", before="cut111-9", limit=2)
    bench.ask(type="history", before="cut111-7", limit=2)
    told, plain = await bench.answers(2)
    assert told["logs"] == [{"n": 5}, {"n": 6}, {"gap": ["unsynced", "cut111", 7, 8, 2]}]
    assert plain["logs"] == [{"n": 5}, {"n": 6}]


@on_a_loop
async def test_history_of_many_reads():
    """A read that looks at few lines is followed by others; the first line kept ends it."""
    bench = Bench(looked_at=2, oldest=3)
    bench.ask(type="history", before="k3f9ab-10")
    (answer,) = await bench.answers(1)
    assert numbers(answer) == [3, 4, 5, 6, 7, 8, 9]
    assert answer["more"] is False
    assert len(bench.stream.queries) == 4


@on_a_loop
async def test_history_does_not_show_what_is_not_committed():
    """Lines that are only live have no place in an answer from the journal."""
    bench = Bench(committed=6)
    bench.ask(type="history", before="k3f9ab-9", limit=2)
    (answer,) = await bench.answers(1)
    assert numbers(answer) == [5, 6]


@on_a_loop
async def test_history_before_the_oldest_line_is_empty():
    """Nothing is read for it."""
    bench = Bench(oldest=5)
    bench.ask(type="history", before="k3f9ab-5")
    (answer,) = await bench.answers(1)
    assert (answer["logs"], answer["more"]) == ([], False)
    assert bench.stream.queries == []


def test_long_lines_end_an_answer_early(monkeypatch):
    """An answer is bounded in bytes, and says that there is more."""
    monkeypatch.setattr(session_module, "HISTORY_BYTES", 25)

    async def scenario():
        bench = Bench(looked_at=1)
        bench.ask(type="history", before="k3f9ab-9")
        (answer,) = await bench.answers(1)
        assert numbers(answer) == [6, 7, 8]  # 8 bytes each, with the comma
        assert answer["more"] is True

    asyncio.run(scenario())


@on_a_loop
async def test_only_so_many_histories_wait():
    """One more is refused as busy; the others are answered in order."""
    bench = Bench()
    for before in range(2, 2 + MAX_HISTORIES):
        bench.ask(type="history", before=f"k3f9ab-{before}", limit=1)
    bench.ask(type="history", before="k3f9ab-9", limit=1)
    assert [message["code"] for message in bench.socket.sent] == ["busy"]
    answers = await bench.answers(1 + MAX_HISTORIES)
    assert [numbers(answer) for answer in answers[1:]] == [[n] for n in range(1, 1 + MAX_HISTORIES)]
    bench.ask(type="history", before="k3f9ab-9", limit=1)
    assert numbers((await bench.answers(2 + MAX_HISTORIES))[-1]) == [8]


@on_a_loop
async def test_a_journal_that_cannot_be_read_is_told():
    """The request is answered with an error, and the next one is served."""
    bench = Bench(unreadable=True)
    bench.ask(type="history", before="k3f9ab-9", limit=1)
    (error,) = await bench.answers(1)
    assert error == {
        "type": "error",
        "code": "journal",
        "message": "the journal cannot be read: the disk does not answer",
    }
    bench.stream.unreadable = False
    bench.ask(type="history", before="k3f9ab-9", limit=1)
    assert numbers((await bench.answers(2))[-1]) == [8]


@on_a_loop
async def test_history_waits_for_room_in_the_socket():
    """A viewer that does not read its answers is not read for."""
    bench = Bench()
    bench.socket.pause_after_send = True
    bench.ask(type="history", before="k3f9ab-5", limit=1)
    bench.ask(type="history", before="k3f9ab-6", limit=1)
    await bench.answers(1)
    assert len(bench.stream.queries) == 1
    bench.socket.writing_paused = False
    bench.session.writing_resumed()
    assert numbers((await bench.answers(2))[-1]) == [5]


@on_a_loop
async def test_histories_of_many_viewers_are_read_in_turn():
    """Who waits for its turn keeps nothing and asks for nothing; in the end all have their answers."""
    turns, benches, pages, most = HistoryTurns(), [], [], 0
    for _ in range(HISTORIES_BEGUN + 5):
        bench = Bench(looked_at=2, oldest=3, history_turns=turns)
        read = bench.stream.read

        async def page(query, read=read):
            nonlocal most
            pages.append(asyncio.get_running_loop().create_future())
            await pages[-1]
            most = max(most, turns.expected)
            return await read(query)

        bench.stream.read = page
        bench.ask(type="history", before="k3f9ab-10")
        benches.append(bench)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(pages) == HISTORIES_BEGUN
    while not all(bench.socket.sent for bench in benches):
        for waiting in pages:
            if not waiting.done():
                waiting.set_result(None)
        await asyncio.sleep(0)
    for bench in benches:
        assert numbers(bench.socket.sent[0]) == [3, 4, 5, 6, 7, 8, 9]
    assert most > 0, "what is read and not sent is counted"
    assert turns.expected == 0


@on_a_loop
async def test_an_answer_that_is_sent_is_kept_by_nobody():
    """Not while the next one is waited for: two hundred viewers would keep two hundred answers."""
    bench = Bench()
    read, bodies, asked = bench.stream.read, [], asyncio.Event()

    async def page(query):
        if bodies:
            asked.set()
            await asyncio.Event().wait()
        found = await read(query)
        bodies.extend(found.bodies)
        return found

    bench.stream.read = page
    bench.ask(type="history", before="k3f9ab-9", limit=3)
    bench.ask(type="history", before="k3f9ab-6", limit=3)
    await asked.wait()
    assert len(bench.socket.sent) == 1
    assert [sys.getrefcount(bodies[n]) for n in range(3)] == [3, 3, 3], "this list, the stream's, and the argument"
    bench.session.connection_lost()


@on_a_loop
async def test_the_end_drops_a_history_under_way():
    """Nothing is sent to a viewer that is gone, and no task stays."""
    bench = Bench()
    asked = asyncio.Event()

    async def never(_query):
        asked.set()
        await asyncio.Event().wait()

    bench.stream.read = never
    bench.ask(type="history", before="k3f9ab-5")
    await asked.wait()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    bench.session.connection_lost()
    (ended,) = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)
    assert bench.socket.sent == []


@pytest.mark.parametrize("form", ["single", "batch"])
@pytest.mark.parametrize("deflate", [True, False])
def test_what_the_handshake_agreed_on_reaches_the_stream(form, deflate):
    """Form and compression are the viewer's."""

    async def scenario():
        stream = FakeStream()
        loop = asyncio.get_running_loop()
        Session(stream, FakeSocket(), form=form, deflate=deflate, tail=1, loop=loop).begin("/")
        assert stream.calls[0] == ("join", Filter(), form, deflate)

    asyncio.run(scenario())


# --- alerts -------------------------------------------------------------------------------------------------


class FakeAlerts:
    """Alerts that are silenced once the test says so."""

    def __init__(self):
        self.asked, self.done = [], asyncio.Event()

    def shown(self):
        return {"type": "alerts", "silences": [app for app, _ in self.asked]}

    async def silence(self, app, for_s):
        await self.done.wait()
        self.asked.append((app, for_s))


@on_a_loop
async def test_a_silence_is_answered_once_it_is_written_down():
    alerts = FakeAlerts()
    bench = Bench(alerts=alerts)
    bench.ask(type="silence", app="scal*", for_s=60)
    bench.ask(type="unsilence", app="other")
    assert [message["code"] for message in bench.socket.sent] == ["busy"]
    alerts.done.set()
    answers = await bench.answers(2)

    assert answers[1] == {"type": "alerts", "silences": ["scal*"]}
    bench.ask(type="unsilence", app="scal*")
    await bench.answers(3)
    assert alerts.asked == [("scal*", 60.0), ("scal*", 0.0)]


@on_a_loop
async def test_a_viewer_that_leaves_waits_for_no_silence():
    alerts = FakeAlerts()
    bench = Bench(alerts=alerts)
    bench.ask(type="silence", app="scal*", for_s=60)
    await asyncio.sleep(0)
    bench.session.connection_lost()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    alerts.done.set()

    assert (alerts.asked, bench.socket.sent) == ([], [])


@on_a_loop
async def test_without_alerts_nothing_can_be_silenced():
    bench = Bench()
    bench.ask(type="silence", app="scal*", for_s=60)
    answers = await bench.answers(1)

    assert answers[0]["code"] == "alerts"
