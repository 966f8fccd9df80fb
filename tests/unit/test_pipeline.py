"""The pipeline with a journal that hangs or cannot be read: what its timers do, and what is said of it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from logrelay import pipeline as module
from logrelay.errors import JournalError
from logrelay.fanout.collected_line import Collected, Told, read_line
from logrelay.fanout.filters import Filter
from logrelay.fanout.line_json import log_line
from logrelay.ingest.frames import Hello, Log
from logrelay.ingest.trader import DEAD, End
from logrelay.journal.interface import Opening, Query
from logrelay.model import CRITICAL, INFO, WARNING, CollectedRow
from logrelay.pipeline import LOOP_LATE_S, STALLED_S, SYNC_BURST, SYNCS_PER_S, Pipeline
from logrelay.progress import Progress, Work
from tests.support.waiting import DEADLINE_S


class HangingJournalThread:
    """Takes everything and commits nothing; reads stay open until the test answers them."""

    def __init__(self):
        self.submitted = []
        self.reads = []
        self.stalled_s = 0.0

    def start(self):
        """There is no thread."""

    def submit(self, commit):
        self.submitted.append(commit)

    def commit_now(self, commit, size):
        """Leave every commit to the thread."""
        return False

    def look_after_files(self):
        """Nobody touches them."""

    def read_and(self, query, convert):
        assert isinstance(query, Query)
        self.reads.append(Future())
        return self.reads[-1]


class Server:
    """A traders' server whose ticks are made by the test."""

    def pause_reading(self):
        """Nothing is read anyway."""

    def resume_reading(self):
        """Nothing is read anyway."""

    def schedule_tick(self):
        """The test calls `tick` itself."""

    def forget_process(self, run):
        """No process is watched."""


class Connection:
    """A trader's connection that nobody listens to."""

    def ack(self, seq, *, now):
        """Nobody reads acks here."""

    def abort(self):
        """There is no socket."""


class Sink:
    """A viewer that takes everything."""

    def write(self, payload):
        return True


class RecordingLoop:
    """The running loop, with a list of the timers that were set."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self.timers = []

    def call_later(self, delay_s, function):
        self.timers.append(self._loop.call_later(delay_s, function))
        return self.timers[-1]

    def call_soon_threadsafe(self, function, *args):
        return self._loop.call_soon_threadsafe(function, *args)

    def waiting(self):
        """Return the timers that will still fire."""
        now = self._loop.time()
        return [timer for timer in self.timers if not timer.cancelled() and timer.when() > now]


class Bench:
    """A pipeline on the running loop, with one trader that is connected."""

    def __init__(self, head=0, **more):
        self.loop = RecordingLoop()
        self.notices = []
        self.pipeline = Pipeline(
            Opening("k3f9ab", 1, head, [], set()),
            make_journal_thread=more.pop("make_journal_thread", lambda _events: HangingJournalThread()),
            make_trader_server=lambda _intake: Server(),
            on_fatal=pytest.fail,
            on_notice=lambda _rank, text: self.notices.append(text),
            random_text=lambda length: "z" * length,
            loop=self.loop,
            quiet_after_s=DEADLINE_S,
            max_lag=1000,
            landing_lines=10,
            commit_deadline_s=DEADLINE_S,
            read_retry_s=DEADLINE_S,
            **more,
        )
        self.journal = self.pipeline.journal_thread
        self.trader = Connection()
        self.pipeline.start()
        self.pipeline.hello(self.trader, Hello(b"r" * 16, "bot", "box", 7, 0))

    def line(self, seq, rank=INFO):
        self.pipeline.frames(self.trader, [Log(seq, seq * 1000, rank, {"event": f"line {seq}"})])
        self.pipeline.tick()

    async def fail_read(self, error):
        """Have a viewer ask for lines, and the journal answer with that error; return the last notice."""
        viewer = self.pipeline.join(Sink(), Filter(level=INFO), "single")
        self.pipeline.start_tail(viewer, 5)
        self.journal.reads[-1].set_exception(error)
        await asyncio.sleep(0)  # the answer comes by `call_soon_threadsafe`
        return self.notices[-1]


def test_a_disk_that_does_not_answer_is_told_although_no_line_comes():
    """Nothing waits for a commit then, so none is late; once is enough."""

    async def go():
        bench = Bench()
        before = len(bench.notices)
        for stalled_s in (STALLED_S - 0.1, STALLED_S, STALLED_S + 1):
            bench.journal.stalled_s = stalled_s
            bench.pipeline.look_after_files()
        assert [text[:71] for text in bench.notices[before:]] == [
            "the journal cannot be written: the disk has not answered for 5 s; lines"
        ]
        assert bench.pipeline.trouble == "the disk has not answered for 5 s"
        await bench.pipeline.wait_committed(0.0)

    asyncio.run(go())


def test_no_timer_outlives_a_stop_that_ran_out_of_time():
    """The journal hangs at the stop: after the wait nothing may fire into parts that are being closed."""

    async def go():
        bench = Bench(head=20)
        bench.line(1)
        await bench.fail_read(JournalError("the disk does not answer"))
        assert len(bench.loop.waiting()) == 3, "the deadlines of trader, commit and read"
        assert not await bench.pipeline.wait_committed(0.0)
        assert bench.loop.waiting() == []

    asyncio.run(go())


def test_after_the_stop_no_timer_is_set_anew():
    """Traders may send, and be refused, until their connections are closed."""

    async def go():
        bench = Bench()
        await bench.pipeline.wait_committed(0.0)
        bench.line(1)
        bench.pipeline.refused(Connection(), "no hello")
        assert bench.pipeline.ended(bench.trader, End()) is False
        bench.pipeline.process_died(b"k" * 16)
        bench.pipeline.tick()
        assert bench.journal.submitted, "lines are taken all the same"
        assert bench.loop.waiting() == []

    asyncio.run(go())


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_late_timer_lets_the_sockets_be_read_first(monkeypatch, comes_back):
    """The relay was stopped: a trader whose new connection stands in the queue is not told to have crashed."""
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])

    async def go():
        bench = Bench()
        trader, again = Connection(), Connection()
        run = Hello(b"s" * 16, "other", "box", 8, 0)
        bench.pipeline.hello(trader, run)
        bench.pipeline.ended(trader, End(DEAD))
        clock[0] += 60.0  # the grace time is long over when the process goes on, and the timer is the first to fire
        bench.pipeline._on_deadline()
        assert not [text for text in bench.notices if "without saying goodbye" in text]
        if comes_back:
            bench.pipeline.hello(again, run)
        for _ in range(2):
            clock[0] += 2 * LOOP_LATE_S  # a loop that is always late says it all the same
            bench.pipeline._on_deadline()
        told = [text for text in bench.notices if "without saying goodbye" in text]
        assert len(told) == (not comes_back)

    asyncio.run(go())


def test_critical_lines_share_the_syncs_of_a_second(monkeypatch):
    """So many commits wait for the disk; what follows waits for its turn together, and other lines do with it."""
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0)

    async def go():
        bench = Bench()
        commits = bench.journal.submitted
        commits.clear()
        for seq in range(1, SYNC_BURST + 1):
            bench.line(seq, CRITICAL)
        assert len(commits) == SYNC_BURST
        timers = len(bench.loop.timers)
        for seq in range(SYNC_BURST + 1, SYNC_BURST + 51):
            bench.line(seq, CRITICAL)
        assert len(commits) == SYNC_BURST
        (timer,) = bench.loop.timers[timers:]
        assert timer.when() - bench.loop._loop.time() == pytest.approx(1 / SYNCS_PER_S)
        await bench.pipeline.wait_committed(0.0)
        assert [len(commit.lines) for commit in commits[SYNC_BURST:]] == [50]
        assert commits[-1].durable
        assert timer.cancelled()

    asyncio.run(go())


def test_lines_below_critical_never_wait_for_a_sync():
    async def go():
        bench = Bench()
        commits = bench.journal.submitted
        commits.clear()
        for seq in range(1, 3 * SYNC_BURST):
            bench.line(seq)
        assert len(commits) == 3 * SYNC_BURST - 1

    asyncio.run(go())


def collected(seq, size=10):
    """A line of another machine."""
    event = {"event": "x" * size, "logger": "bot.x"}
    line = log_line("edge01", seq, 3, "bot", 1_769_162_400_000_000 + seq, INFO, event, b"k" * 16)[0]
    return read_line("berlin", "box", INFO, line.time_us, "bot", line.run_name, line.body)


def test_collected_lines_and_how_far_they_are_go_into_one_commit():
    """With what is told between them, in order; nothing of it is committed by itself."""

    async def go():
        bench = Bench()
        row = CollectedRow(1, "edge", "berlin", "edge01", 2, "j", 5)
        gap = Told(WARNING, "gap", "1 line missing", {"cause": "stream", "count": 1})
        bench.pipeline.tick()
        before = len(bench.journal.submitted)
        bench.pipeline.collect(Collected([collected(1), gap, collected(3)], [row]))
        assert len(bench.journal.submitted) == before
        bench.pipeline.tick()
        [commit] = bench.journal.submitted[before:]
        assert [line.edge for line in commit.lines] == ["berlin", "", "berlin"]
        assert commit.collected == [row]

    asyncio.run(go())


def test_lines_of_other_machines_wait_while_the_journal_has_no_room():
    """As much as it may have to write, or trouble: they stay in the stream, and come when there is room again."""

    async def go():
        bench = Bench()
        await bench.pipeline.wait_room()
        for seq in range(1, 30):
            bench.pipeline.collect(Collected([collected(seq, 40_000)]))
            bench.pipeline.tick()
        waiting = asyncio.ensure_future(bench.pipeline.wait_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        bench.pipeline.on_committed(bench.journal.submitted[-1].lines[-1].seq, 1)
        await asyncio.wait_for(waiting, DEADLINE_S)
        bench.pipeline.on_trouble(JournalError("the disk is full"))
        waiting = asyncio.ensure_future(bench.pipeline.wait_room())
        await asyncio.sleep(0)
        assert not waiting.done()
        bench.pipeline.tick()
        bench.pipeline.on_committed(bench.journal.submitted[-1].lines[-1].seq, 1)
        await asyncio.wait_for(waiting, DEADLINE_S)

    asyncio.run(go())


class Machines:
    """Other machines as they are shown."""

    def bots_shown(self, mono):
        return [{"app": "far", "edge": "berlin"}]

    def edges_shown(self, mono):
        return [{"edge": "berlin"}]

    def samples(self, mono):
        return {"trader_up": [({"app": "far", "edge": "berlin"}, 1)], "edge_up": [({"edge": "berlin"}, 1)]}

    def counters(self):
        return {"edges": 1}


def test_bots_of_other_machines_stand_behind_its_own():
    """In what viewers and monitors are told; without other machines nothing is said of them."""

    async def go():
        pipeline = Bench(machines=Machines()).pipeline
        assert [trader["app"] for trader in pipeline.traders_shown()] == ["bot", "far"]
        assert [trader["app"] for trader in pipeline.own_traders()] == ["bot"]
        assert pipeline.edges_shown() == [{"edge": "berlin"}]
        samples = pipeline.app_samples()
        assert [labels for labels, _ in samples["trader_up"]] == [{"app": "bot"}, {"app": "far", "edge": "berlin"}]
        assert samples["edge_up"] == [({"edge": "berlin"}, 1)]
        assert Bench().pipeline.edges_shown() is None
        assert "edge_up" not in Bench().pipeline.app_samples()

    asyncio.run(go())


class QuickJournalThread(HangingJournalThread):
    """Commits everything at once, on the loop."""

    oldest = 1

    def commit_now(self, commit, size):
        self.submitted.append(commit)
        return True


def test_whoever_forwards_is_told_of_every_commit():
    """Also of those that the loop makes by itself: a lone line would wait for the next state of the edge."""

    async def go():
        told = []
        bench = Bench(
            make_journal_thread=lambda _events: QuickJournalThread(), after_commit=lambda *ends: told.append(ends)
        )
        bench.line(1)
        bench.line(2)
        assert told == [(commit.lines[-1].seq, 1) for commit in bench.journal.submitted]
        assert len(told) == 2

    asyncio.run(go())


def stuck_after(bench, looks=3):
    """Have the watchdog look at the pipeline's parts; return those that are stuck."""
    progress = Progress()
    return [progress.look(bench.pipeline.works(Work(False, 0)), float(mono)) for mono in range(looks)][-1]


def test_a_journal_that_waits_for_its_disk_is_not_stuck():
    """Neither while the thread is at one write nor once the trouble is known: the relay goes on without the journal."""

    async def main():
        bench = Bench()
        thread = bench.pipeline.journal_thread
        thread.pending, thread.head = 1, 0
        thread.stats = lambda: SimpleNamespace(commits=0)
        assert stuck_after(bench) == {"journal": 2.0}, "a commit waits, and nobody is at it"
        thread.stalled_s = 0.1
        assert stuck_after(bench) == {}
        thread.stalled_s = 0.0
        bench.pipeline.on_trouble(JournalError("no space left on device"))
        assert stuck_after(bench) == {}

    asyncio.run(main())


def test_a_report_that_never_arrives_is_work_that_is_not_done():
    """Lines that are in the journal and that the hub was not given: no viewer sees them."""

    async def main():
        bench = Bench(head=7)
        thread = bench.pipeline.journal_thread
        thread.pending, thread.head = 0, 7
        thread.stats = lambda: SimpleNamespace(commits=0)
        assert stuck_after(bench) == {}
        thread.head = 9
        assert stuck_after(bench) == {"fan-out": 2.0}
        bench.pipeline.on_committed(9, 1)
        assert stuck_after(bench) == {}

    asyncio.run(main())
