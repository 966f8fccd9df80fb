"""The words of a refusal at their edges: how much is repeated, which key is suggested, what to do instead."""

from __future__ import annotations

import os

import pytest

from logrelay.config.loading import SHOWN_CHARS, Surroundings, load
from logrelay.config.settings import SUN_PATH_MAX_BYTES
from logrelay.errors import ConfigError


def surroundings(files=None, environ=None):
    return Surroundings({"HOME": "/home/eve", **(environ or {})}, 1000, lambda _: False, (files or {}).__getitem__)


def refusal(flags, around=None):
    with pytest.raises(ConfigError) as caught:
        load(flags, around or surroundings())
    return str(caught.value)


def test_the_file_that_was_named_is_the_one_that_is_read():
    """Of two files only the given one counts."""
    around = surroundings({"/a.toml": b"port = 1", "/b.toml": b"port = 2"})

    assert load({"config": "/b.toml"}, around).config.port == 2


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("max_viewerz", "did you mean max_viewers?"),
        # With its dash it would be near to none.
        ("max-vi", "did you mean max_viewers?"),
        ("zzz", "allowed: host, port, socket,"),
    ],
)
def test_a_misspelt_key_is_answered_with_the_nearest_one(key, hint):
    """A dash counts as the underscore it was meant to be."""
    said = refusal({"config": "/r.toml"}, surroundings({"/r.toml": f"{key} = 1".encode()}))

    assert said.startswith(f"'{key}' in /r.toml is not a setting; {hint}")


@pytest.mark.parametrize(("length", "shown"), [(SHOWN_CHARS - 2, "whole"), (SHOWN_CHARS - 1, "cut")])
def test_a_wrong_value_is_repeated_up_to_a_bound(length, shown):
    """With its quotes it takes at most that many characters; a longer one ends in dots."""
    value = "x" * length
    expected = repr(value) if shown == "whole" else "'" + "x" * (SHOWN_CHARS - 4) + "..."

    assert len(expected) == SHOWN_CHARS
    assert refusal({"sync": value}) == f"--sync is {expected}; allowed: normal or full"


def test_a_socket_path_may_be_as_long_as_the_kernel_takes():
    """The bytes count, also those that are no UTF-8."""
    longest = "/" + "s" * (SUN_PATH_MAX_BYTES - 1)
    odd = os.fsdecode(b"/\xff\xfe") + "s" * (SUN_PATH_MAX_BYTES - 3)

    assert load({"socket": longest}, surroundings()).config.socket == longest
    assert load({"socket": odd}, surroundings()).config.socket == odd


def test_a_socket_path_that_is_too_long_is_shown_with_its_length_and_a_way_out():
    """Whoever set it in a variable hears which, how long it is, and what to do."""
    path = "/" + "ä" * 54

    assert refusal({}, surroundings(environ={"LOGRELAY_SOCKET": path})) == (
        f"socket path '{path}' (LOGRELAY_SOCKET) has 109 bytes; allowed: at most 107. "
        "Choose a shorter one with --socket"
    )


def test_an_address_beyond_loopback_is_named_with_both_ways_out():
    """A token, or another address."""
    said = refusal({"host": "192.168.1.5"})

    assert said.startswith("--host is '192.168.1.5', which is not loopback: ")
    assert said.endswith("and set it as LOGRELAY_TOKEN or as token in the config file; or listen on 127.0.0.1")
