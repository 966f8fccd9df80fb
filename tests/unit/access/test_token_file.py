"""The file of the tokens: private, whole, and refused where it is not understood."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace

import pytest

from logrelay.access import token_file
from logrelay.access.token_file import change_tokens, read_private, read_tokens, signature, write_private
from logrelay.access.tokens import MAX_TOKENS, Token, digest_of
from logrelay.errors import ConfigError, TokenFileError
from logrelay.fanout.filters import Limit
from tests.support.waiting import DEADLINE_S

PHONE = Token("phone", digest_of("lr_phone"), "a1", Limit(20, ("x.*",), ("bot", "scalp*")), 1000, 2000)
SCRIPT = Token("script", digest_of("lr_script"), "b2", created_s=3000)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "state" / "tokens.json")


def put(path, *tokens):
    return change_tokens(path, lambda _there: tokens)


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_what_was_written_is_read(path):
    """With every field; the directory and the file are for their owner alone, and nothing else is left there."""
    assert read_tokens(path) is None
    assert put(path, PHONE, SCRIPT) == (PHONE, SCRIPT)
    assert read_tokens(path) == (PHONE, SCRIPT)
    assert (mode_of(path), mode_of(os.path.dirname(path))) == (0o600, 0o700)
    assert os.listdir(os.path.dirname(path)) == ["tokens.json"]
    assert change_tokens(path, lambda there: there[1:]) == (SCRIPT,)
    assert read_tokens(path) == (SCRIPT,)


def test_a_change_that_raises_changes_nothing(path):
    """Neither the file nor the lock remains changed."""
    put(path, PHONE)
    before = signature(path)

    def refuse(_there):
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        change_tokens(path, refuse)
    assert signature(path) == before
    put(path, SCRIPT)
    assert signature(path) != before


def test_a_write_that_fails_leaves_the_old_file(path, monkeypatch):
    """Whole or not at all: what cannot reach the disk does not take the place of what is there."""
    put(path, PHONE)

    def fail(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_file.os, "fsync", fail)
    with pytest.raises(TokenFileError, match="cannot be written: No space left on device; run this as the user"):
        put(path, SCRIPT)
    monkeypatch.undo()
    assert read_tokens(path) == (PHONE,)
    assert os.listdir(os.path.dirname(path)) == ["tokens.json"]


def test_changes_at_once_all_count(path, monkeypatch):
    """Whoever changes the file holds the lock from its reading to its writing."""
    monkeypatch.setattr(token_file, "LOCK_WAIT_S", DEADLINE_S)  # each of them waits for the disk with the lock
    put(path)
    together = threading.Barrier(8)

    def add(number):
        together.wait()
        token = Token(f"t{number}", digest_of(str(number)), str(number))
        change_tokens(path, lambda there: (*there, token))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in read_tokens(path)} == {f"t{number}" for number in range(8)}


def test_a_command_does_not_wait_for_ever(path, monkeypatch):
    """One that hangs while it changes the file is told of."""
    put(path, PHONE)
    monkeypatch.setattr(token_file, "LOCK_WAIT_S", 0.0)

    def change(_there):
        with pytest.raises(TokenFileError, match="another command has been changing"):
            put(path, SCRIPT)
        return ()

    assert change_tokens(path, change) == ()


def test_links_are_not_followed(path, tmp_path):
    """Neither to read nor to write: what a link points to is not ours."""
    other = tmp_path / "other"
    other.write_text("precious")
    os.mkdir(os.path.dirname(path))
    os.symlink(other, path)
    with pytest.raises(TokenFileError, match="it is a symbolic link, which is not followed"):
        read_tokens(path)
    with pytest.raises(TokenFileError, match="symbolic link"):
        put(path, PHONE)
    assert other.read_text() == "precious"


def test_what_others_may_read_or_write_is_refused(path):
    """The message should say what to do."""
    put(path, PHONE)
    for mode in (0o640, 0o604, 0o620, 0o602, 0o666):
        os.chmod(path, mode)
        with pytest.raises(TokenFileError, match=f"others may read or write the token file .*{mode:04o}.*chmod 600"):
            read_tokens(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_has_to_be_trusted_and_stays(path):
    """Root may make tokens for the relay's user: the file is that user's; a file of anybody else is refused."""
    put(path, PHONE)
    directory = os.path.dirname(path)
    os.chown(path, 4711, 4712)
    with pytest.raises(TokenFileError, match=r"belongs to another user \(uid 4711\)"):
        read_tokens(path)
    os.chown(directory, 4711, 4712)
    assert read_tokens(path) == (PHONE,)
    put(path, SCRIPT)
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (4711, 4712, 0o600)
    os.unlink(path)
    put(path, SCRIPT)
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (4711, 4712), "without a file before, the directory's owner"


def test_what_is_no_regular_file_is_refused_at_once(path):
    """A pipe in its place must not keep anybody waiting."""
    os.mkdir(os.path.dirname(path))
    os.mkfifo(path, 0o600)
    with pytest.raises(TokenFileError, match="no regular file"):
        read_tokens(path)


def test_a_file_too_long_is_none_of_ours(path, monkeypatch):
    """It is not read to its end."""
    monkeypatch.setattr(token_file, "MAX_BYTES", 1 << 20)
    os.mkdir(os.path.dirname(path))
    write_private(path, b"x" * (1 << 20))
    assert len(read_private(path)) == 1 << 20
    write_private(path, b"x" * ((1 << 20) + 1))
    with pytest.raises(TokenFileError, match="longer than 1 MiB"):
        read_private(path)


def shape(path):
    with open(path, "rb") as file:
        return json.load(file)


WRONG = {
    "no JSON": lambda s: "{",
    "a list": lambda s: "[]",
    "no version": lambda s: {"tokens": []},
    "version is text": lambda s: s | {"version": "1"},
    "no tokens": lambda s: {"version": 1},
    "tokens is no list": lambda s: s | {"tokens": {}},
    "more keys": lambda s: s | {"deny": []},
    "a token is no object": lambda s: s | {"tokens": [1]},
    "an unknown key, perhaps a limit": lambda s: s | {"tokens": [s["tokens"][0] | {"host": "x"}]},
    "too many": lambda s: s | {"tokens": s["tokens"] * (MAX_TOKENS + 1)},
    "twice the same": lambda s: s | {"tokens": s["tokens"] * 2},
    "deep": lambda s: "[" * 100_000,
}
WRONG |= {
    f"{key} {value!r}": lambda s, key=key, value=value: s | {"tokens": [s["tokens"][0] | {key: value}]}
    for key, value in [
        ("name", ""), ("name", 1), ("name", "LOGRELAY_TOKEN"), ("id", ""), ("id", None), ("sha256", "zz"),
        ("sha256", "ab"), ("sha256", None), ("created", "x"), ("created", None), ("created", True), ("expires", "x"),
        ("expires", 1.5), ("level", "LOUD"), ("level", None), ("app", "bot"), ("app", [1]), ("app", [""]),
        ("source", None), ("source", ["x" * 257]),
    ]
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_damaged_file_lets_nobody_in(path, what):
    """Nothing of it is taken, and the message says so and what to do."""
    put(path, PHONE)
    made = WRONG[what](shape(path))
    write_private(path, made.encode() if isinstance(made, str) else json.dumps(made).encode())
    with pytest.raises(TokenFileError, match=r"damaged, so no token of it is taken: .*; restore it") as caught:
        read_tokens(path)
    assert PHONE.digest.hex() not in str(caught.value)
    with pytest.raises(TokenFileError, match="damaged"):
        put(path, SCRIPT)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_refused_and_stays(path, version):
    """What a newer relay knows of its tokens must not be lost on this one."""
    put(path, PHONE)
    write_private(path, json.dumps(shape(path) | {"version": version}).encode())
    before = signature(path)
    for act in (lambda: read_tokens(path), lambda: put(path, SCRIPT)):
        with pytest.raises(TokenFileError, match=f"has version {version}, and this logrelay knows version 1 only"):
            act()
    assert signature(path) == before


def test_a_signature_changes_with_whatever_changes(path):
    """A new file, other bytes, another mode; without a file there is none."""
    assert signature(path) is None
    put(path, PHONE)
    seen = {signature(path)}
    put(path, replace(PHONE, name="tablet"))
    seen.add(signature(path))
    os.chmod(path, 0o640)
    seen.add(signature(path))
    assert len(seen) == 3
    assert None not in seen
