"""Variables of the environment: a typing error is said once and never stops a bot."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from robo_trader.log_relay import LogRelayProcessor, environment
from robo_trader.log_relay import processor as module
from tests.support.waiting import DEADLINE_S


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    for name in ("LEVEL", "EXCLUDE", "DISABLED", "APP"):
        monkeypatch.delenv(f"LOGRELAY_{name}", raising=False)
    before = set(environment._said)
    environment._said.clear()
    yield
    environment._said.clear()
    environment._said.update(before)


def made(**options):
    """A processor that goes nowhere."""
    processor = LogRelayProcessor("/nonexistent/s", **options)
    processor._closed = True
    return processor


@pytest.mark.parametrize(("value", "rank"), [("debug", 10), (" WARN ", 30), ("", 20), ("fatal", 50)])
def test_the_level(monkeypatch, capfd, value, rank):
    """Any of the words, in either case; an argument wins."""
    monkeypatch.setenv("LOGRELAY_LEVEL", value)
    assert made()._threshold == rank
    assert made(level="error")._threshold == 40
    assert capfd.readouterr().err == ""


def test_a_bad_value_is_said_once(monkeypatch, capfd):
    """With what is allowed, and the default is used."""
    monkeypatch.setenv("LOGRELAY_LEVEL", "loud")
    monkeypatch.setenv("LOGRELAY_DISABLED", "perhaps")
    for _ in range(3):
        processor = made()
        assert (processor._threshold, processor._disabled) == (20, False)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2
    assert "LOGRELAY_LEVEL='loud' is not one of debug, info, warning, error, critical; using info" in said[0]
    assert "LOGRELAY_DISABLED='perhaps' is not 1 (on) or 0 (off); using 0 (off)" in said[1]


@pytest.mark.parametrize(
    ("value", "disabled"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False)]
)
def test_disabled(monkeypatch, value, disabled):
    """Every usual word; an argument wins."""
    monkeypatch.setenv("LOGRELAY_DISABLED", value)
    assert made().stats()["state"] == ("disabled" if disabled else "closed")
    assert made(disabled=not disabled)._disabled is not disabled


def test_the_names_that_are_excluded(monkeypatch):
    """Those of the variable come to those of the argument, so that an operator can keep lines here."""
    monkeypatch.setenv("LOGRELAY_EXCLUDE", "risk, bot.pnl,,")
    assert made()._exclude == ("audit", "security", "risk", "bot.pnl")
    assert made(exclude="x, y")._exclude == ("x", "y", "risk", "bot.pnl")
    assert made(exclude=())._is_excluded({"logger": "bot.pnl.daily"})
    assert not made(exclude=())._is_excluded({"logger": "audit"})


def test_the_name_of_the_bot(monkeypatch):
    """The argument, else the variable, else the program's name; what is shipped of it is bounded."""
    monkeypatch.setattr(module, "_program", lambda: "program")
    assert made()._app == "program"
    monkeypatch.setenv("LOGRELAY_APP", " mean_reversion ")
    assert made()._app == "mean_reversion"
    assert made(app="x")._app == "x"
    monkeypatch.setenv("LOGRELAY_APP", "x" * 5_000)
    assert len(made()._app) == module.APP_CHARS


def test_what_is_said_is_bounded(monkeypatch, capfd):
    """A bad value may be anything; and a hundred different texts are enough."""
    monkeypatch.setenv("LOGRELAY_LEVEL", "x" * 5_000)
    made()
    assert len(capfd.readouterr().err) < 300
    for number in range(2 * environment.WARNINGS):
        environment.warn_once(f"text {number}")
    assert len(capfd.readouterr().err.splitlines()) == environment.WARNINGS - 1


def test_without_stderr_nothing_is_said_and_nothing_fails(root):
    """A daemon may have closed it."""
    code = """
import os, sys
os.environ["LOGRELAY_LEVEL"] = "loud"
os.close(2)
sys.stderr = None
from robo_trader.log_relay import LogRelayProcessor
LogRelayProcessor("/nonexistent/s", exit_timeout=0)
print("made")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.stdout, done.returncode) == ("made\n", 0)


@pytest.mark.parametrize(
    ("word", "on"),
    [("on", True), ("1", True), ("true", True), ("yes", True), (" YES ", True),
     ("off", False), ("0", False), ("false", False), ("no", False), ("", False), ("No", False)],
)  # fmt: skip
def test_every_word_of_a_switch(word, on):
    """In either case, with blanks around it."""
    assert environment.flag(word) is on


def test_another_word_is_refused_with_what_it_was():
    """The text is shown, and only the beginning of a long one."""
    with pytest.raises(ValueError, match=r"^'perhaps' is neither on nor off$"):
        environment.flag("perhaps")
    with pytest.raises(ValueError, match=f"^'{'x' * environment.SHOWN_CHARS}' is neither on nor off$"):
        environment.flag("x" * 5_000)


@pytest.mark.parametrize(("default", "used"), [(True, "1 (on)"), (False, "0 (off)")])
def test_the_default_of_a_switch_is_named(monkeypatch, capfd, default, used):
    """As one would write it into the variable."""
    monkeypatch.setenv("LOGRELAY_DISABLED", "perhaps")
    assert environment.switch("LOGRELAY_DISABLED", default=default) is default
    assert capfd.readouterr().err.endswith(f"'perhaps' is not 1 (on) or 0 (off); using {used}\n")


def test_a_default_that_is_a_number_is_named_as_a_number(monkeypatch, capfd):
    """1 equals True, and is not a switch."""
    monkeypatch.setenv("LOGRELAY_LEVEL", "many")
    assert environment.choice("LOGRELAY_LEVEL", 1, "a whole number", int) == 1
    assert capfd.readouterr().err.endswith("LOGRELAY_LEVEL='many' is not a whole number; using 1\n")


def test_names_of_a_given_environment(monkeypatch):
    """What is given counts instead of that of the process; a variable that is not set lists nothing."""
    monkeypatch.setenv("LOGRELAY_EXCLUDE", "process")
    assert environment.names("LOGRELAY_EXCLUDE") == ("process",)
    assert environment.names("LOGRELAY_EXCLUDE", {"LOGRELAY_EXCLUDE": "given, too"}) == ("given", "too")
    assert environment.names("LOGRELAY_EXCLUDE", {}) == ()
    monkeypatch.delenv("LOGRELAY_EXCLUDE")
    assert environment.names("LOGRELAY_EXCLUDE") == ()


def test_a_full_stderr_is_not_waited_for(monkeypatch, capfd):
    """It is asked whether it takes a line now, and gets nothing if it does not."""
    waits = []

    class Full:
        def register(self, _descriptor, _events):
            pass

        def poll(self, timeout):
            waits.append(timeout)
            return []

    with monkeypatch.context() as patched:
        patched.setattr(select, "poll", Full)
        environment.warn_once("lost")
    assert waits == [0]
    assert capfd.readouterr().err == ""


def test_a_stderr_that_fails_stops_nobody(monkeypatch):
    """A disk may be full where it is sent to a file."""
    tried = []

    def fails(descriptor, _data):
        tried.append(descriptor)
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", fails)
        environment.warn_once("lost")
    assert tried == [2]


def test_text_that_no_encoding_has_is_said_escaped(capfd):
    """A variable may hold any bytes, which Python reads as lone surrogates."""
    environment.warn_once("odd \udc80 byte")
    assert capfd.readouterr().err.endswith(": odd \\udc80 byte\n")
