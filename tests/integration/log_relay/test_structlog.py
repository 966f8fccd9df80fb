"""H1 to H9: the processor in structlog's chains, with its loggers, loops and test helpers.

Some items are the whole chain's and are tested there; `test_operations.py` has the list of all items and their places.
"""

import asyncio
import collections
import gc
import importlib.util
import logging
import sys
import weakref

import pytest
import structlog
import uvloop

from tests.support import bots as bots_module
from tests.support.threads import running
from tests.support.waiting import DEADLINE_S

bots = vars(bots_module)
run_bot, scaled = bots["run_bot"], bots["scaled"]


def sink(_logger, _name, _event):
    """A renderer that needs no sink: the chain ends in a call without arguments."""
    return (), {}


@pytest.fixture
def configured():
    """Configure structlog with a chain that ends in `sink`; taken back afterwards."""

    def configure(*processors, **options):
        structlog.configure(
            processors=[*processors, sink], **{"logger_factory": structlog.ReturnLoggerFactory()} | options
        )

    yield configure
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


GENERIC = {
    "debug": "debug", "info": "info", "warning": "warning", "warn": "warning", "error": "error", "critical": "critical",
    "fatal": "critical", "msg": "info", "exception": "error", "ainfo": "info", "awarn": "warning", "notice": "info",
    "err": "error", "failure": "error", "trace": "debug", "any_name": "info",
}  # fmt: skip
FILTERING = ("debug", "info", "warning", "warn", "error", "critical", "fatal", "msg", "exception")


class Anything:
    """A logger that has every method."""

    def __getattr__(self, name):
        return lambda *args, **fields: None


@pytest.mark.parametrize("kind", ["filtering", "generic"])
def test_h1_method_names(ship, peer, configured, kind):
    """Whatever structlog's loggers pass as method name ends as one of the five words; nothing raises."""
    processor = ship()
    wrapper = structlog.make_filtering_bound_logger(0) if kind == "filtering" else structlog.BoundLogger
    configured(processor, wrapper_class=wrapper, logger_factory=Anything)
    log = structlog.get_logger()
    names = FILTERING if kind == "filtering" else tuple(GENERIC)
    for name in names:
        getattr(log, name)("t", name=name)
    assert processor.flush(DEADLINE_S)
    (lines,) = peer.lines.values()
    assert {line[3]["name"]: line[2] for line in lines} == {name: GENERIC[name] for name in names}


@pytest.mark.parametrize("before", ["nothing", "format_exc_info", "dict_tracebacks"])
def test_h2_exceptions_keep_nothing_alive(ship, peer, configured, before):
    """All six forms of exc_info, formatted before us or not: a line each, and no frame stays referenced."""
    processor = ship()
    earlier = {
        "nothing": [],
        "format_exc_info": [structlog.processors.format_exc_info],
        "dict_tracebacks": [
            structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
        ],
    }[before]
    configured(*earlier, processor, wrapper_class=structlog.make_filtering_bound_logger(0))
    log = structlog.get_logger()

    class Local:
        pass

    def scene():
        thing = Local()
        try:
            raise ValueError("boom")
        except ValueError as error:
            log.exception("t", form=1)
            log.error("t", form=2, exc_info=True)
            log.error("t", form=3, exc_info=error)
            log.error("t", form=4, exc_info=sys.exc_info())
        log.error("t", form=5, exc_info=False)
        log.error("t", form=6, exc_info=True)
        return weakref.ref(thing)

    gone = scene()
    gc.collect()
    assert gone() is None
    assert processor.flush(DEADLINE_S)
    events = peer.events()
    assert [event["form"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert all("boom" in str(event["exception"]) for event in events[:4])
    assert all("exc_info" not in event or event["exc_info"] is False for event in events)


def test_h3_capture_logs(ship, peer, configured):
    """While structlog's capture_logs is active nothing is shipped; afterwards shipping goes on."""
    processor = ship()
    configured(processor)
    log = structlog.get_logger()
    log.info("before")
    with structlog.testing.capture_logs() as captured:
        log.info("during")
    log.info("after")
    assert processor.flush(DEADLINE_S)
    assert [entry["event"] for entry in captured] == ["during"]
    assert [event["event"] for event in peer.events()] == ["before", "after"]


def test_h4_early_and_cached_loggers(ship, peer, configured):
    """Loggers bound, cached and used before the processor is put into the list ship from then on."""
    configured(cache_logger_on_first_use=True)
    early, cached = structlog.get_logger().bind(who="early"), structlog.get_logger(who="cached")
    early.info("unseen")
    cached.info("unseen")
    processor = ship()
    structlog.get_config()["processors"].insert(0, processor)
    for log in (early, cached, structlog.get_logger(who="late")):
        log.info("seen")
    assert processor.flush(DEADLINE_S)
    assert [event["who"] for event in peer.events()] == ["early", "cached", "late"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_h6_async_calls_under_cancellation(ship, peer, balanced, configured, loop):
    """Hundreds of tasks log with `ainfo`, some are cancelled in the middle: what reached the chain is there, once."""
    processor = ship()
    reached = collections.Counter()

    def note(_logger, _name, event):
        reached[event["task"], event["n"]] += 1
        return event

    configured(
        structlog.contextvars.merge_contextvars, note, processor, wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    log = structlog.get_logger()
    finished = set()

    async def task(number):
        structlog.contextvars.bind_contextvars(task=number)
        for n in range(10):
            await log.ainfo("t", n=n)
            finished.add((number, n))

    async def main():
        tasks = [asyncio.create_task(task(number)) for number in range(scaled(200, 2_000))]
        for number, one in enumerate(tasks):
            if number % 3 == 0:
                await asyncio.sleep(0)
                one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())  # its end waits for the calls that were cancelled but run
    assert processor.flush(DEADLINE_S)
    events = [(event["task"], event["n"]) for event in peer.events()]
    assert collections.Counter(events) == reached
    assert finished <= set(events)
    assert len(finished) >= scaled(200, 2_000) * 6
    assert peer.seqs() == list(range(1, len(events) + 1))
    assert balanced(processor)["acked"] == len(events)


PATCHED = """
if sys.argv[2] == "stand-in":
    # What gevent does to these modules, with parts that must not be used.
    import _socket, _thread, select, socket, types
    originals = {}
    def cooperative(*args, **options):
        raise AssertionError("a cooperative part was used by the shipper")
    def patch():
        monkey = types.ModuleType("gevent.monkey")
        for module, name in ((_socket, "socket"), (_thread, "start_new_thread"), (select, "poll")):
            originals[module.__name__, name] = getattr(module, name)
        monkey.get_original = lambda module, name: originals[module, name]
        sys.modules["gevent.monkey"] = monkey
        for module, name in ((_socket, "socket"), (_thread, "start_new_thread"), (select, "poll")):
            setattr(module, name, cooperative)
else:
    def patch():
        from gevent import monkey
        monkey.patch_all()
if sys.argv[3] == "before":
    for name in [name for name in sys.modules if name.startswith("robo_trader")]:
        del sys.modules[name]
    patch()
    from robo_trader.log_relay import LogRelayProcessor
    ship = LogRelayProcessor(SOCK, exit_timeout=DEADLINE_S)
else:
    ship = LogRelayProcessor(SOCK, exit_timeout=DEADLINE_S)
    patch()
for i in range(500):
    ship(None, "info", {"event": "t", "i": i})
if sys.argv[2] == "gevent":
    import gevent
    def talk():
        for i in range(500, 600):
            ship(None, "info", {"event": "t", "i": i})
            gevent.sleep(0)
    gevent.joinall([gevent.spawn(talk)])
assert ship.flush(DEADLINE_S), ship.stats()
balanced(ship)
"""
PATCHERS = ["stand-in", *(["gevent"] if importlib.util.find_spec("gevent") else [])]
"""gevent itself where it is installed; everywhere a stand-in that fails when one of its cooperative parts is used."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("patcher", PATCHERS)
def test_h8_patched_standard_library(peer, sock, patcher, moment):
    """With the standard library replaced before or after our import, our thread is a real one and all lines come."""
    bot = run_bot(PATCHED, sock, patcher, moment)
    assert "Traceback" not in bot.err
    assert bot.code == 0
    assert [event["i"] for event in peer.events()] == list(range(500 if patcher == "stand-in" else 600))


def test_h8_no_loop_is_needed(ship, peer, configured):
    """The processor asks for no event loop: it works in a thread without one, whatever loop the others run."""
    processor = ship()
    configured(processor)
    asyncio.set_event_loop(None)
    with running(lambda: structlog.get_logger().info("t")):
        pass
    assert processor.flush(DEADLINE_S)
    assert [event["event"] for event in peer.events()] == ["t"]


@pytest.mark.parametrize("place", ["earlier", "later"])
def test_h9_dropped_events(ship, peer, configured, place):
    """An event dropped earlier in the chain is not shipped; one that is dropped behind us is."""

    def drop(_logger, _name, event):
        if event["event"] == "dropped":
            raise structlog.DropEvent
        return event

    processor = ship()
    configured(*((drop, processor) if place == "earlier" else (processor, drop)))
    log = structlog.get_logger()
    log.info("dropped")
    log.info("kept")
    assert processor.flush(DEADLINE_S)
    expected = ["kept"] if place == "earlier" else ["dropped", "kept"]
    assert [event["event"] for event in peer.events()] == expected


# --- records and rendered lines ---------------------------------------------------------------------------------------

FORMATTER = structlog.stdlib.ProcessorFormatter


class Kept(logging.Handler):
    """Formats each record, as any handler does, and keeps nothing."""

    def emit(self, record):
        self.format(record)


@pytest.fixture
def with_handlers():
    """Make a logger of the logging module with handlers whose formatter runs processors."""
    made = []

    def make(count, *processors):
        logger = logging.getLogger(f"with_handlers.{len(made)}")
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        for _ in range(count):
            handler = Kept()
            handler.setFormatter(FORMATTER(processors=[*processors, FORMATTER.remove_processors_meta, str_of]))
            logger.addHandler(handler)
        made.append(logger)
        return logger

    yield make
    for logger in made:
        logger.handlers.clear()
        logger.propagate = True


def str_of(_logger, _name, event):
    return str(event)


@pytest.mark.parametrize("handlers", [1, 2, 3])
def test_a_record_is_shipped_once_however_many_handlers_format_it(ship, peer, with_handlers, handlers):
    """Each handler's formatter shows us the same record; the same text logged again is another line."""
    processor = ship()
    logger = with_handlers(handlers, processor)
    for number in (1, 1, 2):
        logger.warning("line %d", number)
    assert processor.flush(DEADLINE_S)
    assert [e["event"] for e in peer.events()] == ["line 1", "line 1", "line 2"]


def test_an_event_is_shipped_once_by_chain_and_formatter(ship, peer, with_handlers):
    """In both, the formatters show what the chain has shipped; in the formatters alone they ship it."""
    processor = ship()
    logger = with_handlers(2, processor)
    for steps in ([processor], []):
        own = structlog.wrap_logger(
            logger, processors=[*steps, FORMATTER.wrap_for_formatter], wrapper_class=structlog.stdlib.BoundLogger
        )
        for _ in range(2):
            own.warning("own", n=len(steps))
    logger.warning("foreign")
    assert processor.flush(DEADLINE_S)
    assert [(e["event"], e.get("n")) for e in peer.events()] == [
        ("own", 1), ("own", 1), ("own", 0), ("own", 0), ("foreign", None),
    ]  # fmt: skip


def test_a_field_called_record_is_no_record(ship, peer):
    """One object logged twice under that name is two lines."""
    processor, order = ship(), Anything()
    for _ in range(2):
        processor(None, "info", {"event": "x", "_record": order})
    assert processor.flush(DEADLINE_S)
    assert len(peer.events()) == 2


@pytest.mark.parametrize(
    ("renderer", "said"),
    [
        (structlog.processors.JSONRenderer(), '{"n": 1, "event": "hello"}'),
        (structlog.processors.KeyValueRenderer(key_order=["event", "n"]), "event='hello' n=1"),
        (structlog.processors.LogfmtRenderer(key_order=["event"]), "event=hello n=1"),
        (structlog.dev.ConsoleRenderer(colors=True), "hello n=1"),
    ],
)
def test_a_rendered_line_is_its_own_message(ship, peer, configured, renderer, said):
    """Whoever puts us behind a renderer sees its text, without a terminal's colours."""
    processor = ship()
    configured(renderer, processor, wrapper_class=structlog.make_filtering_bound_logger(0))
    structlog.get_logger().info("hello", n=1)
    assert processor.flush(DEADLINE_S)
    assert [" ".join(e["event"].split()) for e in peer.events()] == [said]
