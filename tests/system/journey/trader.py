"""A trader for the journey: says what it is told on stdin, through the real chain of robo_trader.logger."""

import logging
import sys

from robo_trader.logger import get_logger, setup_structlog

setup_structlog()
log = get_logger("robo_trader.runner")


def divide():
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("order.failed", symbol="AAPL")


SAYINGS = {
    "exception": divide,
    "debug": lambda: log.debug("debug.word"),
    "info": lambda: log.info("info.word", quantity=100),
    "warn": lambda: log.warn("warn.word"),
    "warning": lambda: log.warning("warning.word"),
    "error": lambda: log.error("error.word"),
    "critical": lambda: log.critical("critical.word"),
    "fatal": lambda: log.fatal("fatal.word"),
    "int": lambda: log.info(42),
    "dict": lambda: log.info({"a": [1, 2.5, None]}),
    "raised": lambda: log.info(ValueError("as an event")),
    "stdlib": lambda: logging.getLogger("thirdparty.http").warning("retrying %s in %d s", "GET /", 5),
    "stdlib-debug": lambda: logging.getLogger("thirdparty.http").debug("nobody sees this"),
}

print("up", flush=True)
for word in sys.stdin:
    name, _, number = word.strip().partition(" ")
    if name == "count":
        log.info("counted", n=int(number))
    else:
        SAYINGS[name]()
    print("said", flush=True)
