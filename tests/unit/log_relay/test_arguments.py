"""Every argument of the processor and the handler, with wrong types and values: ValueError that says what to do."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from robo_trader.log_relay import LogRelayHandler, LogRelayProcessor, Redactor, arguments


class Unshown:
    """Cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("no")


NO_TEXT = (5, 1.5, True, object(), [], Unshown())
WRONG = {
    "socket": NO_TEXT,
    "spool": NO_TEXT,
    "app": (5, b"bot", [], Unshown()),
    "level": ("loud", "", True, 1.5, [], b"info"),
    "exclude": (5, None, b"audit", [5], ["audit", None], True, Unshown()),
    "max_bytes": (None, True, 1e9, "big", -1, 0, 262143, float("nan"), []),
    "exit_timeout": (None, True, "x", -0.1, float("nan"), []),
    "disabled": (1, 0, "maybe", []),
    "redact": ("maybe", 5, 1, 0, [], {}),
}
OF_THE_HANDLER = {"processor": (5, "x", object(), True)}
NO_LIST = ("abc", b"abc", 5, None, True, [5], ["a", None], Unshown())
OF_THE_REDACTOR = {
    "deny": NO_LIST,
    "allow": NO_LIST,
    "keys": NO_LIST,
    "trusted": NO_LIST,
    "known": NO_LIST,
    "personal": (1, 0, "on", "maybe", [], Unshown()),
    "environ": ("A=b", 5, [("A", "b")], {"A": 1}, {1: "b"}, Unshown()),
}
RIGHT_OF_THE_REDACTOR = {
    "deny": ((), [], ["a"], ("a", "b c"), {"a"}, iter(["a"])),
    "known": ((), ["swordfish"]),
    "personal": (None, True, False),
    "environ": (None, {}, {"A": "b"}),
}
RIGHT = {
    "socket": (None, "/x/s", Path("/x/s"), b"/x/s"),
    "app": (None, "bot"),
    "level": (None, "info", "WARN", 0, 35),
    "exclude": ((), [], "a, b", {"a"}, ("a", "b"), iter(["a"])),
    "max_bytes": (262144, 10**9),
    "exit_timeout": (0, 0.5, 3, float("inf")),
    "disabled": (None, True),
    "redact": (True, False, None, dict),
}


@pytest.fixture(autouse=True)
def disabled(monkeypatch):
    """Nothing is opened by what is made."""
    monkeypatch.setenv("LOGRELAY_DISABLED", "1")


def test_every_argument_is_tried():
    """Those that there are, and no other."""
    assert WRONG.keys() == set(inspect.signature(LogRelayProcessor).parameters)
    assert WRONG.keys() | OF_THE_HANDLER.keys() == set(inspect.signature(LogRelayHandler).parameters)


@pytest.mark.parametrize("maker", [LogRelayProcessor, LogRelayHandler])
@pytest.mark.parametrize("name", [*WRONG, *OF_THE_HANDLER])
def test_a_wrong_argument_is_named_with_what_is_allowed(maker, name):
    """With its name first, what was given, what is allowed and what to do; whatever it is, also where it is off."""
    as_text = {"disabled": ("maybe", 2.5, []), "redact": ("perhaps", 5, 1, [])} if maker is LogRelayHandler else {}
    if maker is LogRelayHandler:
        as_text |= {"level": ("loud", True, 1.5, []), "socket": (5, object()), "spool": (5, object())}
        as_text |= {"app": (5, b"bot", Unshown())}
    values = as_text.get(name) or WRONG.get(name) or OF_THE_HANDLER[name]
    if name in OF_THE_HANDLER and maker is LogRelayProcessor:
        return
    for value in values:
        with pytest.raises(ValueError, match=rf"^{name} is .*(must be )") as caught:
            maker(**{name: value})
        assert len(str(caught.value)) < 300


def test_every_argument_of_the_redactor_is_tried():
    """But the switch that only this package gives."""
    assert OF_THE_REDACTOR.keys() == inspect.signature(Redactor).parameters.keys() - {"known_only"}


@pytest.mark.parametrize("name", OF_THE_REDACTOR)
def test_a_wrong_argument_of_the_redactor_is_refused(name):
    """`deny="abc"` is no list of three letters; what may hold a secret is not shown."""
    for value in OF_THE_REDACTOR[name]:
        with pytest.raises(ValueError, match=f"^{name} is .*, must be .*; leave it out for .+") as told:
            Redactor(**{name: value})
        shown = str(told.value)
        if name in ("known", "environ"):
            assert f"a {type(value).__name__} (its value is not shown)" in shown
        elif isinstance(value, str):
            assert repr(value) in shown


@pytest.mark.parametrize("name", RIGHT_OF_THE_REDACTOR)
def test_a_right_argument_of_the_redactor_is_taken(name):
    """Lists of every kind."""
    for value in RIGHT_OF_THE_REDACTOR[name]:
        assert Redactor(**{name: value}).text("x=1") == "x=1"


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_argument_is_taken(name):
    """As it was."""
    for value in RIGHT[name]:
        LogRelayProcessor(**{name: value})


def test_a_value_is_shown_as_far_as_it_is_recognised():
    """One that cannot be shown is named by its type."""
    assert str(arguments.wrong("x", "y" * 500, "z", "w")) == f"x is '{'y' * 56}..., must be z; leave it out for w"
    assert str(arguments.wrong("x", Unshown(), "z", "w")).startswith("x is a Unshown, must be z")
