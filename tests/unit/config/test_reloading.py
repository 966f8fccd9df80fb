"""What reading the settings again changes, and what it leaves to a restart."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from logrelay.config.loading import Effective
from logrelay.config.reloading import RELOADABLE, compare, words
from logrelay.config.settings import SETTINGS, Config

IN_USE = Config(socket="/run/s", journal="/j.db")
DEFAULTS = {setting.name: "default" for setting in SETTINGS}


def read(**values):
    return Effective(replace(IN_USE, **values), DEFAULTS | {name: f"{name} in F" for name in values}, ())


def test_what_can_change_is_taken_and_the_rest_is_named():
    """The port was bound at the start."""
    changes = compare(IN_USE, DEFAULTS, read(keep_days=1.0, port=9, log_level="info"))

    assert changes.applied == ("keep_days", "log_level")
    assert changes.refused == ("port",)
    assert changes.config == replace(IN_USE, keep_days=1.0, log_level="info")
    assert words(changes, "F") == "F has been read again; changed: keep_days, log_level; only a restart changes port"


def test_what_is_not_set_any_more_goes_back_to_its_default():
    """A line that was taken out of the file."""
    changes = compare(replace(IN_USE, keep_days=1.0), DEFAULTS | {"keep_days": "keep_days in F"}, read())

    assert changes.config == IN_USE
    assert changes.applied == ("keep_days",)


def test_a_default_that_is_worked_out_anew_is_no_change():
    """A directory that somebody has made meanwhile: the log socket is where it was bound."""
    other = Effective(replace(IN_USE, socket="/run/logrelay/ingest.sock"), DEFAULTS, ())

    assert compare(IN_USE, DEFAULTS, other).refused == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "F has been read again; nothing in it has changed"),
        ({"port": 1}, "F has been read again; only a restart changes port"),
    ],
)
def test_the_words_say_what_was_done(values, said):
    """Also when that is nothing."""
    assert words(compare(IN_USE, DEFAULTS, read(**values)), "F") == said
    assert "variables of a running process cannot change" in words(compare(IN_USE, DEFAULTS, read()), None)


def test_the_words_hold_no_value():
    """The token is among the settings."""
    assert "secret" not in words(compare(IN_USE, DEFAULTS, read(token="secret")), "F")


def test_the_names_are_those_of_settings():
    """A name that is none would never be looked at."""
    assert RELOADABLE <= {field.name for field in fields(Config)}
