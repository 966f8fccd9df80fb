"""G1 to G6: log calls that come in the middle of log calls."""

import ast
import ctypes
import gc
import itertools
import json
import logging
import logging.config
import signal
import threading
import time
import warnings
import weakref
from functools import partial
from pathlib import Path

import pytest
import structlog

from tests.support import bots as bots_module
from tests.support.threads import running
from tests.support.waiting import DEADLINE_S

bots = vars(bots_module)
Bot, scaled = bots["Bot"], bots["scaled"]

SECONDS = scaled(5, 60)
"""How long threads, signals and forks go on together."""


def test_g1_signal_handlers_that_log(ship, peer, balanced):
    """A handler logs every 0.2 ms while the main thread logs through a chain without a sink: no deadlock, all lines."""
    processor = ship()
    chain = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[processor, lambda *_: ((), {})], wrapper_class=structlog.BoundLogger
    )
    handled = []
    numbers = itertools.count(1)  # a handler may be interrupted by the next signal: only one call may take a number
    nested = []

    def handler(*_):
        if len(nested) == 20:  # on a busy machine each interrupts the one before, to the limit of recursion
            return
        nested.append(None)
        number = next(numbers)
        handled.append(number)
        chain.warning("signal", n=number)
        nested.pop()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    count = 0
    try:
        end = time.monotonic() + scaled(2, 60)
        while time.monotonic() < end or len(handled) <= 100:
            count += 1
            chain.info("main", n=count)
            while count % 1_000 == 0 and processor.stats()["pending"] > 5_000:
                time.sleep(0.001)  # this relay is slower than a loop that does nothing else
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    assert stats["produced"] == stats["acked"] == count + len(handled)
    events = peer.events()
    assert [event["n"] for event in events if event["event"] == "main"] == list(range(1, count + 1))
    assert sorted(event["n"] for event in events if event["event"] == "signal") == sorted(handled)
    assert len(handled) > 100


STORM = """
import json
faulthandler.cancel_dump_traceback_later()  # deadlocks in forks
ship = LogRelayProcessor(SOCK, level="debug", max_bytes=4 << 20)
calls = [0] * 10
stop = False
depth = 0

def handler(*_):
    # On a busy machine signals come faster than they are handled, and each interrupts the one before: not for ever,
    # or the interpreter's limit of recursion ends calls where nobody can count them.
    global depth
    if depth == 20:
        return
    depth += 1
    try:
        calls[9] += 1
        ship(None, "warning", {"event": "signal", "n": calls[9], "list": [calls[9]]})
    finally:
        depth -= 1

def talk(n):
    while not stop:
        calls[n] += 1
        level = "error" if calls[n] % 10 == 0 else "info"
        ship(None, level, {"event": "thread", "t": n, "n": calls[n], "pad": "p" * (n * 20)})

def child():
    signal.alarm(int(HANGS_S))
    before = calls[9]
    signal.setitimer(signal.ITIMER_PROF, 0.0002, 0.0002)
    for n in range(200):
        ship(None, "info", {"event": "child", "n": n})
    signal.setitimer(signal.ITIMER_PROF, 0)
    mine = 200 + calls[9] - before
    assert ship.flush(DEADLINE_S), ship.stats()
    stats = balanced(ship)
    assert stats["produced"] == mine, (mine, stats)
    assert ship.close(DEADLINE_S)

signal.signal(signal.SIGALRM, handler)
signal.signal(signal.SIGPROF, handler)
threads = [threading.Thread(target=talk, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
codes = []
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end or not codes or not all(calls):
    pid = os.fork()
    if not pid:
        code = 9
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            child()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    for _ in range(50):
        calls[8] += 1
        ship(None, "info", {"event": "main", "n": calls[8]})
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop = True
signal.setitimer(signal.ITIMER_REAL, 0)
for thread in threads: thread.join()
quiet = balanced(ship)
assert quiet["produced"] == sum(calls), (quiet, calls)
assert ship.flush(DEADLINE_S), ship.stats()
stats = balanced(ship)
tell(json.dumps({"codes": codes, "calls": calls, "stats": stats}))
"""


@pytest.mark.timeout(900)
def test_g1_signals_threads_and_forks_together(make_peer, sock, wait_for):
    """A handler every 0.2 ms, eight threads, forks under load: no deadlock, all frames decode, the books balance.

    60 s with LOG_RELAY_FULL=1.
    """
    peer = make_peer()
    peer.keep_lines = False
    peer.start()
    with Bot(STORM, sock, SECONDS, options=("-W", "ignore:This process:DeprecationWarning")) as bot:
        told = json.loads(bot.line())
        assert bot.wait() == 0, bot.err
    assert "Traceback" not in bot.err
    stats, calls, codes = told["stats"], told["calls"], told["codes"]
    assert set(codes) == {0}, codes
    assert all(calls)
    assert peer.complaints == []
    run = bytes.fromhex(stats["run"])
    assert stats["pending"] == 0
    assert stats["produced"] == stats["acked"] + sum(stats["dropped"].values()) == sum(calls) == peer.last[run]
    lost = sum(last - first + 1 for first, last, _ in peer.lost.get(run, []))
    assert lost == sum(stats["dropped"].values())
    wait_for(lambda: len(peer.byes) == len(codes) + 1)  # every child's goodbye agrees with what came before it, too
    print(f"{sum(calls)} lines, {calls[9]} of them by the signal handler; {len(codes)} forks; {lost} dropped and told")


def test_g2_finalizers_callbacks_and_warnings(ship, peer, balanced):
    """Garbage collection that logs runs inside our own calls and in our thread: every line arrives, once."""
    processor = ship()
    calls = 0
    quiet = False

    def say(event, **fields):
        nonlocal calls
        if not quiet:
            calls += 1
            processor(None, "info", {"event": event, **fields})

    class Loud:
        def __init__(self):
            self.me = self

        def __del__(self):
            say("del", thing=[1, 2])

        def __repr__(self):
            warnings.warn("shown", stacklevel=1)
            return "<Loud>"

    class Handler(logging.Handler):
        def handle(self, record):  # without the lock: this thread may be in here already
            say("warned", text=record.getMessage()[:50])

    def watched(phase, info):
        if calls < 20_000:
            say("gc", phase=phase)

    handler = Handler()
    threshold = gc.get_threshold()
    log = logging.getLogger("py.warnings")
    log.addHandler(handler)
    gc.callbacks.append(watched)
    keep = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            gc.set_threshold(5, 2, 2)
            for i in range(scaled(500, 20_000)):
                loud = Loud()
                keep[:] = [weakref.ref(loud, lambda _: say("weakref"))]
                say("main", i=i, thing=loud, more={"a": [i] * (i % 7)})
                del loud
            gc.set_threshold(*threshold)
            gc.collect()
            assert processor.flush(DEADLINE_S)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(watched)
        logging.captureWarnings(False)
        log.removeHandler(handler)
    gc.collect()
    assert processor.flush(DEADLINE_S)
    quiet = True
    stats = balanced(processor)
    assert stats["produced"] == stats["acked"] == calls
    names = {event["event"] for event in peer.events()}
    assert names == {"main", "del", "weakref", "gc", "warned"}
    assert [e["i"] for e in peer.events() if e["event"] == "main"] == list(range(scaled(500, 20_000)))
    assert all(e["thing"] == "<Loud>" for e in peer.events() if e["event"] == "main")


def test_g3_a_repr_that_logs(ship, peer, balanced):
    """A value whose repr logs the value itself: two lines, the inner one with a placeholder, and no third."""
    processor = ship()

    class Vain:
        def __repr__(self):
            processor(None, "info", {"event": "inner", "me": self})
            return "<Vain>"

    processor(None, "info", {"event": "outer", "me": Vain(), "n": 1})
    processor(None, "info", {"event": "outer", "me": {"deep": [Vain()]}, "n": 2})
    assert processor.flush(DEADLINE_S)
    said = [(event["event"], event["me"]) for event in peer.events()]
    assert said == [
        ("inner", "<Vain>"),
        ("outer", "<Vain>"),
        ("inner", "<Vain>"),
        ("outer", {"deep": ["<Vain>"]}),
    ]
    assert balanced(processor)["produced"] == 4


def test_g4_the_sender_never_logs(ship, peer, balanced, wait_for, capfd):
    """Failures in the thread are told on stderr only, although everything that logs or warns would be shipped."""
    processor = ship()

    class Handler(logging.Handler):
        def emit(self, record):
            processor(None, "error", {"event": "through logging", "text": record.getMessage()})

    handler = Handler()
    structlog.configure(processors=[processor, lambda *_: ((), {})], logger_factory=structlog.ReturnLoggerFactory())
    logging.getLogger().addHandler(handler)
    hook = threading.excepthook
    threading.excepthook = lambda args: processor(None, "error", {"event": "through excepthook"})
    try:
        logging.captureWarnings(True)
        processor(None, "info", {"event": "t", "i": 0})
        assert processor.flush(DEADLINE_S)
        sender = processor._sender
        turn, left = (
            sender._turn,
            [RuntimeError("broken"), MemoryError(), KeyboardInterrupt(), OSError(9, "bad"), SystemExit()],
        )

        def broken(most):
            if left:
                raise left.pop()
            return turn(most)

        before = sender.reconnects
        sender._turn = broken
        sender.wake()
        wait_for(lambda: sender.reconnects > before, "the connection to be made anew")
        before = sender.reconnects
        peer.send(b"\xc1 nonsense")
        wait_for(lambda: sender.reconnects > before)
        processor(None, "info", {"event": "t", "i": 1})
        assert processor.flush(DEADLINE_S)
    finally:
        threading.excepthook = hook
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(handler)
        structlog.reset_defaults()
    assert peer.events() == [{"event": "t", "i": 0}, {"event": "t", "i": 1}]
    assert balanced(processor)["link_errors"] == 5
    assert "Traceback" not in capfd.readouterr().err


def test_g4_nothing_that_logs_is_imported():
    """No module of the shipper imports structlog, logging or warnings, at whatever depth of its code.

    Only the handler knows the logging module, and the shipper does not know the handler.
    """
    folder = Path(__file__).parents[3] / "robo_trader" / "log_relay"
    for path in folder.glob("*.py"):
        if path.name == "handler.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("structlog", "logging", "warnings", "logrelay"), path.name


class Thrown(BaseException):
    """What is thrown into a thread that logs."""


@pytest.mark.timeout(scaled(8 * DEADLINE_S, 2_000))
# Thrown anywhere also means into the gc callbacks of pytest's plugins, which is theirs to mind.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_g5_exceptions_thrown_into_a_log_call(ship, peer, balanced):
    """Thousands of exceptions from outside, wherever they hit: the books balance and every frame decodes."""
    processor = ship()
    assert processor(None, "info", {"event": "first"})
    assert processor.flush(DEADLINE_S)
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    caught = 0
    inside = 0
    stop = False
    returned = 0
    waiting = True
    here = processor.__call__.__func__.__code__.co_filename

    def talk():
        nonlocal caught, inside, returned, waiting
        while not stop:
            try:
                waiting = False  # from here on every exception is caught below
                while not stop:
                    processor(
                        None, "error" if returned % 3 else "info", {"event": "t", "n": returned, "list": [1, "x"]}
                    )
                    returned += 1
                    processor(None, "info", {"event": "t", "n": returned})
                    returned += 1
                    waiting = returned % 100 == 0
                    while waiting and not stop:
                        time.sleep(0.0005)  # here nothing is thrown
                        waiting = len(processor._out.sent_low) + len(processor._out.unsent_low) > 2_000
            except Thrown as error:
                waiting = True
                caught += 1
                trace = error.__traceback__
                while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent != Path(here).parent:
                    trace = trace.tb_next
                inside += trace is not None

    def survive():
        nonlocal caught
        while not stop:
            try:
                talk()
            except Thrown:
                caught += 1

    def no_more():
        nonlocal stop
        stop = True

    wanted = scaled(100, 10_000)  # each costs the connection
    with running(survive, stop=no_more) as (thread,):
        deadline = time.monotonic() + scaled(4 * DEADLINE_S, 1_800)
        while caught < wanted and time.monotonic() < deadline:
            before = caught
            if waiting or not thread.is_alive():
                time.sleep(0)
                continue
            throw(ctypes.c_ulong(thread.ident), ctypes.py_object(Thrown))
            pause = time.monotonic() + 1.0
            while caught == before and time.monotonic() < pause:
                time.sleep(0)
    assert caught >= wanted
    assert inside > wanted / 4, "too few of them hit the processor"
    balanced(processor)
    assert processor.flush(DEADLINE_S), processor.stats()
    stats = balanced(processor)
    assert stats["pending"] == 0
    assert peer.last[peer.run()] == stats["produced"]
    assert peer.count() == stats["acked"]
    # A line whose call returned is there, unless it was counted as dropped.
    numbers = {event["n"] for event in peer.events() if event["event"] == "t"}
    assert len(set(range(returned)) - numbers) <= sum(stats["dropped"].values())


def test_g6_logging_is_configured_anew_during_traffic(ship, peer, balanced):
    """dictConfig with new handlers, again and again, while four threads log through them: no deadlock, no error."""
    processor = ship()
    made = []

    class Handler(logging.Handler):
        def __init__(self):
            super().__init__()
            made.append(self)

        def emit(self, record):
            processor(None, record.levelname.lower(), {"event": record.getMessage(), "logger": record.name})

        def handleError(self, record):
            raise AssertionError

    log = logging.getLogger("g6")
    settings = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"relay": {"()": Handler}},
        "loggers": {"g6": {"handlers": ["relay"], "level": "INFO", "propagate": False}},
    }
    logging.config.dictConfig(settings)
    stop = threading.Event()
    errors = []

    def talk(n):
        i = 0
        try:
            while not stop.is_set():
                log.info("line %s", n)
                i += 1
                if i % 500 == 0:
                    processor.flush(DEADLINE_S)
        except BaseException as error:
            errors.append(error)

    try:
        with running(*(partial(talk, n) for n in range(4)), stop=stop.set):
            for _ in range(scaled(100, 2_000)):
                logging.config.dictConfig(settings)
    finally:
        log.handlers.clear()
        log.propagate = True
    assert errors == []
    assert len(made) == scaled(100, 2_000) + 1
    assert processor.flush(DEADLINE_S)
    stats = balanced(processor)
    assert stats["produced"] == stats["acked"] == peer.count() > 0
