"""The settings table and the class that holds the values: they agree, and every row is of use."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from logrelay.config import settings
from logrelay.config.settings import (
    BY_NAME,
    MEMORY,
    OTHER_VARIABLES,
    SETTINGS,
    Config,
    authority,
    connectable,
    is_loopback,
)
from logrelay.viewers import requests

TOKEN = "correct-horse-battery-staple"


def test_the_table_and_the_class_agree_on_names_and_defaults():
    """Every row of the table should be a field of Config with the same default, and the other way round."""
    fields = {f.name: f for f in dataclasses.fields(Config)}

    assert set(fields) == set(BY_NAME)
    for setting in SETTINGS:
        if fields[setting.name].default is not dataclasses.MISSING:
            assert fields[setting.name].default == setting.default, setting.name


def test_the_default_tail_may_be_what_a_viewer_may_ask_for():
    """The bound of --tail should be the one viewers have."""
    assert BY_NAME["tail"].value_type.from_text(str(requests.MAX_TAIL)) == requests.MAX_TAIL
    with pytest.raises(ValueError):
        BY_NAME["tail"].value_type.from_text(str(requests.MAX_TAIL + 1))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.name)
def test_every_default_and_every_toml_default_is_allowed_by_its_own_type(setting):
    """A default should be a value that the operator could have given."""
    if setting.default not in (None, ()):
        assert setting.value_type.from_toml(setting.default) == setting.default
        assert setting.value_type.from_text(setting.shown_default) == setting.default


def test_the_token_is_not_in_the_repr():
    """A config that ends up in a log should not take the token along."""
    assert TOKEN not in repr(Config("/s", ":memory:", token=TOKEN))


def test_every_setting_is_used_by_some_part_of_the_relay():
    """A setting that changes nothing should not be in the table."""
    package = Path(settings.__file__).parents[1]
    parts = [p for p in package.rglob("*.py") if p.parent.name not in ("config", "cli")]
    code = "".join(p.read_text("utf-8") for p in parts)
    unused = [s.name for s in SETTINGS if s.name != "config" and f"config.{s.name}" not in code]

    assert unused == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_loopback_is_what_only_this_machine_reaches(host):
    """Every address of the loopback network counts, and the one name that always means it."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "phone-box", "127.1", "::ffff:10.0.0.1", ""])
def test_whatever_might_be_reached_from_elsewhere_is_not_loopback(host):
    """A name, a short form or a wildcard does not count: it may mean another address."""
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("192.168.1.5", "192.168.1.5"),
        ("fd00::1", "[fd00::1]"),
        ("box", "box"),
    ],
)
def test_a_browser_here_is_given_an_address_that_can_be_connected_to(host, reached):
    """A wildcard is none; an IPv6 address stands in brackets."""
    assert authority(connectable(host), 8765) == f"{reached}:8765"


def test_the_help_names_what_stands_behind_an_option():
    """As `--help` shows it: one word for a value, all words where there are few."""
    shown = {s.flag: s.value_type.metavar for s in SETTINGS}

    assert {flag: shown[flag] for flag in ("--config", "--socket", "--journal", "--host", "--token")} == {
        "--config": "PATH", "--socket": "PATH", "--journal": "PATH|:memory:", "--host": "ADDRESS", "--token": "TOKEN",
    }  # fmt: skip
    assert "NAME" in shown["--allow-hosts"]
    assert "ORIGIN" in shown["--allow-origins"]


def test_names_that_the_trader_and_the_documentation_rely_on():
    """The journal without a file, and the variables that are the trader's own."""
    assert MEMORY == ":memory:"
    others = {"DISABLED", "LEVEL", "EXCLUDE", "APP", "SPOOL", "REDACT_ALLOW", "REDACT_DENY", "REDACT_PERSONAL", "CI"}
    assert set(OTHER_VARIABLES) == {f"LOGRELAY_{name}" for name in others}
