"""Uncaught exceptions: each is a critical line before the hook that was there runs."""

import io
import json
import sys
import threading

from robo_trader.logger import setup_structlog
from tests.support.threads import running


def test_uncaught_exceptions_are_said_before_the_original_hooks_run(chain, monkeypatch):
    """Main thread and other threads: a critical line with the traceback, then what would have happened anyway."""
    ran = []
    monkeypatch.setattr(sys, "excepthook", lambda *a: ran.append(("main", a[1])))
    monkeypatch.setattr(threading, "excepthook", lambda a: ran.append((a.thread.name, a.exc_value)))
    recorder, _ = chain()
    error = ValueError("boom password=abcdef")
    sys.excepthook(ValueError, error, None)

    def fail():
        raise error

    with running(fail, name="worker"):
        pass
    assert ran == [("main", error), ("worker", error)]
    assert [(e["event"], e["level"]) for e in recorder.events] == [("exception.unhandled", "critical")] * 2
    assert recorder.events[1]["thread"] == "worker"
    assert all("ValueError: boom password=[redacted]" in e["exception"] for e in recorder.events)


def test_ctrl_c_and_exits_are_no_failures(chain, monkeypatch):
    """KeyboardInterrupt reaches the original hook without a critical line; SystemExit ends a thread silently."""
    ran = []
    monkeypatch.setattr(sys, "excepthook", lambda *a: ran.append(a[0]))
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    recorder, _ = chain()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    with running(sys.exit):
        pass
    assert ran == [KeyboardInterrupt]
    assert not recorder.events


def test_a_foreign_hook_set_later_is_left_in_place(chain, monkeypatch):
    """If somebody put a hook over ours, taking ours away does not remove theirs."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    chain()

    def theirs(*_):
        return None

    sys.excepthook = theirs
    setup_structlog(relay=False, stream=io.StringIO(), hooks=False)
    assert sys.excepthook is theirs


def test_the_last_words_of_a_dying_process_arrive(relay, python):
    """A process that dies of an exception: its critical line is at the relay, and stderr has the usual traceback."""
    code = (
        "from robo_trader.logger import setup_structlog, get_logger\n"
        "setup_structlog()\n"
        "get_logger('robo_trader.x').info('alive')\n"
        "raise RuntimeError('out of luck, api_key=abcdefgh')\n"
    )
    process = python("-c", code, LOGRELAY_SOCKET=relay.path, LOGRELAY_DISABLED="")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "RuntimeError: out of luck, api_key=[redacted]" in err
    assert "Traceback (most recent call last)" in err
    assert "abcdefgh" not in err
    relay.wait(lambda r: len(r.logs) == 2)
    last = relay.events[-1]
    assert (relay.logs[-1][3], last["event"]) == ("critical", "exception.unhandled")
    assert "RuntimeError: out of luck, api_key=[redacted]" in last["exception"]
    assert [json.loads(line)["level"] for line in out.splitlines()] == ["info", "critical"]


def test_what_nobody_caught_is_printed_without_its_secrets(chain, monkeypatch, capfd):
    """Main thread and other threads, when nobody had put a hook of their own in place: Python's text, redacted."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    chain()
    error = ValueError("boom password=gullgull")
    sys.excepthook(ValueError, error, None)

    def fail():
        raise error

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    said = capfd.readouterr().err
    assert said.count("ValueError: boom password=[redacted]") == 2
    assert "Exception in thread worker:\nTraceback (most recent call last):" in said
    assert "gullgull" not in said


def test_a_huge_text_is_printed_from_its_end(chain, monkeypatch, capfd):
    """The end says what happened; what is not printed is counted."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    chain()
    sys.excepthook(ValueError, ValueError("x\n" * 100_000 + "the end"), None)
    said = capfd.readouterr().err
    assert said.startswith("[")
    assert said.endswith("the end\n")
    assert len(said) < 40_000
