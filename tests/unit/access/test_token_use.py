"""When and from where a token was used: noted in memory, written now and then, read by people."""

from __future__ import annotations

import os

import pytest

from logrelay.access.token_use import SUFFIX, WRITE_EVERY_S, TokenUse, Use, latest_uses, read_uses, write_uses
from logrelay.access.tokens import Token

PHONE, SCRIPT = Token("phone", b"", "a1"), Token("script", b"", "b2")
IDS = {"a1", "b2"}


def test_the_last_use_is_what_is_written():
    """At once the first time, then once in a while, with what was known before."""
    use = TokenUse({"b2": Use(1, "::1")})
    assert use.take(IDS, 0.0) is None, "nothing has happened"
    use.note(PHONE, 100.9, "10.0.0.1")
    use.note(PHONE, 101.2, "10.0.0.2")
    assert use.take(IDS, 0.0) == {"a1": Use(101, "10.0.0.2"), "b2": Use(1, "::1")}
    use.note(SCRIPT, 102.0, None)
    assert use.take(IDS, WRITE_EVERY_S - 0.01) is None
    assert use.take(IDS, WRITE_EVERY_S) == {"a1": Use(101, "10.0.0.2"), "b2": Use(102, "local")}
    assert use.take(IDS, 1e9) is None, "nothing is new"
    use.note(SCRIPT, 103.0, None)
    assert use.take(IDS, WRITE_EVERY_S + 1, at_once=True) is not None


def test_uses_of_tokens_that_are_gone_go():
    """What is kept grows no longer than the list of tokens."""
    use = TokenUse({f"old{n}": Use(n, "x") for n in range(100)})
    use.note(PHONE, 5, "x")
    assert use.take({"a1"}, 0.0) == {"a1": Use(5, "x")}


def test_what_was_written_is_read(tmp_path):
    """By the path of the token file; private like that one."""
    path = str(tmp_path / "tokens.json")
    uses = {"a1": Use(100, "10.0.0.1"), "": Use(5, "local")}
    assert read_uses(path) == {}
    write_uses(path, uses)
    assert read_uses(path) == uses
    assert os.listdir(tmp_path) == ["tokens.json" + SUFFIX]
    assert os.stat(path + SUFFIX).st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"version":2,"uses":{}}', b'{"version":1,"uses":{"a":1}}', b'{"version":1}', b"\xff"]
)
def test_a_file_that_is_damaged_is_begun_anew(tmp_path, data):
    """Nothing is decided by it."""
    path = tmp_path / "tokens.json"
    (tmp_path / f"tokens.json{SUFFIX}").write_bytes(data)
    os.chmod(f"{path}{SUFFIX}", 0o600)
    assert read_uses(str(path)) == {}


def test_the_later_use_of_each_token_counts():
    """Two relays may share the file."""
    one = {"a": Use(5, "10.0.0.1"), "b": Use(9, "10.0.0.1")}
    other = {"b": Use(7, "10.0.0.2"), "c": Use(1, "local"), "a": Use(6, "10.0.0.2")}
    assert latest_uses(one, other) == {"a": Use(6, "10.0.0.2"), "b": Use(9, "10.0.0.1"), "c": Use(1, "local")}
