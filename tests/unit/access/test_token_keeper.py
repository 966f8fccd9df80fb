"""The tokens of a running relay: what a change of the file, of the time, or of nothing at all leads to."""

from __future__ import annotations

import os
import random

import pytest

from logrelay.access import token_keeper
from logrelay.access.token_file import change_tokens
from logrelay.access.token_keeper import Findings, TokenKeeper
from logrelay.access.token_use import Use, read_uses
from logrelay.access.tokens import Token, digest_of, make_token_set
from logrelay.access.wrong_tokens import TELL_EVERY_S
from logrelay.errors import TokenFileError
from logrelay.model import ERROR, INFO, WARNING

PHONE = Token("phone", digest_of("lr_phone"), "a1")
SHORT = Token("short", digest_of("lr_short"), "b2", expires_s=100)


class Bench:
    def __init__(self, path):
        self.path, self.now, self.mono = path, 0.0, 0.0

    def put(self, *tokens):
        change_tokens(self.path, lambda _there: tokens)

    def keeper(self, setting=None, path=True):
        return TokenKeeper(self.path if path else None, setting, now=lambda: self.now, mono=lambda: self.mono)


@pytest.fixture
def bench(tmp_path):
    return Bench(str(tmp_path / "tokens.json"))


def texts(findings):
    return [text for _, text in findings.messages]


def test_without_a_file_the_setting_is_the_only_token(bench):
    """And without that there is none, and none is needed."""
    for path in (True, False):
        assert bench.keeper(path=path).token_set == make_token_set(None)
        assert bench.keeper("lr_own", path=path).token_set == make_token_set("lr_own")
        assert bench.keeper("lr_own", path=path).check() == Findings()


def test_the_file_is_read_when_it_has_changed(bench):
    """Each change is found once; the names of who came and went are told."""
    keeper = bench.keeper("lr_own")
    bench.put(PHONE)
    assert keeper.check() == Findings(changed=True, messages=[(INFO, "the token phone was added")])
    assert keeper.token_set == make_token_set("lr_own", [PHONE])
    assert keeper.check() == Findings()
    bench.put(SHORT)
    assert texts(keeper.check()) == ["the token short was added", "the token phone was revoked"]
    bench.put()
    findings = keeper.check()
    assert findings.changed
    assert keeper.token_set.needed
    assert keeper.token_set.find("lr_own", 0.0) is not None


def test_the_file_is_read_when_that_is_asked_for(bench, monkeypatch):
    """SIGHUP reads it, whatever it looks like."""
    bench.put(PHONE)
    keeper = bench.keeper()
    reads = []
    monkeypatch.setattr(token_keeper, "read_tokens", lambda path: reads.append(path) or (PHONE,))
    assert keeper.check() == Findings()
    assert reads == []
    assert keeper.check(reload=True) == Findings()
    assert reads == [bench.path]


def test_once_there_was_a_file_a_token_is_needed(bench):
    """A file that is gone opens nothing: nobody gets in by it, and the operator is told what to do."""
    bench.put(PHONE)
    keeper = bench.keeper()
    os.unlink(bench.path)
    findings = keeper.check()
    assert findings.changed
    assert findings.messages[0][0] == WARNING
    assert "is gone: no token of it is taken any more. Put it back, or restart" in texts(findings)[0]
    assert keeper.token_set == make_token_set(None, needed=True)
    assert keeper.check() == Findings()
    bench.put(PHONE)
    assert keeper.check().changed
    assert keeper.token_set.find("lr_phone", 0.0) == PHONE


def test_a_damaged_file_lets_nobody_in_but_by_the_setting(bench):
    """While the relay runs it is told; at the start it is an error."""
    bench.put(PHONE)
    keeper = bench.keeper("lr_own")
    with open(bench.path, "w") as file:
        file.write("{")
    findings = keeper.check()
    assert findings.changed
    assert findings.messages[0][0] == ERROR
    assert "damaged" in texts(findings)[0]
    assert keeper.token_set == make_token_set("lr_own")
    with pytest.raises(TokenFileError, match="damaged"):
        bench.keeper("lr_own")


def test_a_token_whose_time_is_over_is_found_once(bench):
    """It stays in the list; who is connected with it has to be closed."""
    bench.put(PHONE, SHORT)
    keeper = bench.keeper()
    bench.now = 99.9
    assert keeper.check() == Findings()
    bench.now = 100.0
    assert keeper.check() == Findings(changed=True, messages=[(INFO, "the token short has expired")])
    assert keeper.check() == Findings()
    assert [keeper.token_set.holds(token, bench.now) for token in (PHONE, SHORT)] == [True, False]
    assert bench.keeper().check() == Findings(), "that is no news after a restart"


def test_wrong_tokens_are_told_of(bench):
    """By the same look as everything else."""
    keeper = bench.keeper("lr_own")
    keeper.note_wrong("10.0.0.1")
    assert keeper.check() == Findings(messages=[(WARNING, "a wrong token was shown from 10.0.0.1; it was refused")])
    keeper.note_wrong("10.0.0.1")
    assert keeper.check() == Findings()
    bench.mono = TELL_EVERY_S
    assert len(keeper.check().messages) == 1


def test_uses_are_written_by_a_thread_and_at_the_end(bench):
    """Also those of the token of the settings; a relay without a file writes none."""
    keeper = bench.keeper("lr_own")
    keeper.note_use(keeper.token_set.tokens[0], "10.0.0.1")
    keeper.close()
    assert os.listdir(os.path.dirname(bench.path)) == []
    bench.put(PHONE)
    keeper = bench.keeper("lr_own")
    bench.now = 7.0
    for token in keeper.token_set.tokens:
        keeper.note_use(token, "10.0.0.1")
    keeper.write_uses()
    keeper.close()
    assert read_uses(bench.path) == {"": Use(7, "10.0.0.1"), "a1": Use(7, "10.0.0.1")}
    bench.now = 8.0
    keeper.note_use(PHONE, None)
    keeper.write_uses()
    assert read_uses(bench.path)["a1"] == Use(7, "10.0.0.1"), "not so soon"
    keeper.close()
    assert read_uses(bench.path)["a1"] == Use(8, "local")
    assert bench.keeper().check() == Findings()


def test_uses_that_cannot_be_written_are_told_once(bench, monkeypatch):
    """They are for people only: nothing else suffers."""
    bench.put(PHONE)
    keeper = bench.keeper()

    def fail(_path, _uses):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(token_keeper, "write_uses", fail)
    for _ in range(2):
        bench.now += 1
        keeper.note_use(PHONE, None)
        keeper.close()
        found = texts(keeper.check())
        assert found == (["the last use of tokens cannot be written: Read-only file system"] if bench.now == 1 else [])


def test_a_token_that_is_not_known_may_have_been_made_a_moment_ago(bench):
    """The file is looked at, not without end; what there is to tell and to close is found by the next check."""
    keeper = bench.keeper("lr_own")
    assert keeper.look_again() is False
    bench.put(PHONE)
    assert keeper.token_set.find("lr_phone", 0.0) is None
    assert keeper.look_again() is True
    assert keeper.token_set.find("lr_phone", 0.0) == PHONE
    assert [keeper.look_again() for _ in range(1000)] == [False] * 1000
    bench.put(PHONE, SHORT)
    assert keeper.look_again() is False, "somebody guesses"
    bench.mono += 1.0
    assert keeper.look_again() is True
    added = [(INFO, f"the token {name} was added") for name in ("phone", "short")]
    assert keeper.check() == Findings(changed=True, messages=added)
    assert keeper.check() == Findings()
    assert bench.keeper("lr_own", path=False).look_again() is False


def test_a_token_revoked_between_two_looks_is_closed_by_the_next(bench):
    """Whoever looks in between takes nothing from it."""
    bench.put(PHONE, SHORT)
    keeper = bench.keeper()
    bench.put(SHORT)
    assert keeper.look_again() is True
    assert keeper.check() == Findings(changed=True, messages=[(INFO, "the token phone was revoked")])


def test_a_token_made_and_revoked_between_two_checks_is_found(bench):
    """The tokens are the same as at the last check, but somebody may have come in meanwhile by the one in between."""
    bench.put(SHORT)
    keeper = bench.keeper()
    bench.put(SHORT, PHONE)
    assert keeper.look_again() is True
    bench.put(SHORT)
    assert keeper.check().changed
    assert keeper.check() == Findings()
    keeper.change_setting("lr_own")
    keeper.change_setting(None)
    assert keeper.check().changed
    assert keeper.check() == Findings()


@pytest.mark.parametrize("seed", range(20))
def test_nobody_stays_past_a_check_without_a_good_token(bench, seed):
    """Whatever the order in which tokens come and go, unknown ones are shown and the watch looks."""
    chance = random.Random(seed)
    known = (PHONE, SHORT, Token("third", digest_of("lr_third"), "c3"))
    bench.put()
    keeper, inside = bench.keeper(), set()
    for _ in range(200):
        bench.mono += 1.0
        act = chance.randrange(4)
        if act == 0:
            bench.put(*chance.sample(known, chance.randrange(4)))
        elif act == 1:
            keeper.look_again()
        elif act == 2:
            inside |= {token for token in known if keeper.token_set.holds(token, bench.now)}
        elif keeper.check().changed:
            inside = {token for token in inside if keeper.token_set.holds(token, bench.now)}
        else:
            assert all(keeper.token_set.holds(token, bench.now) for token in inside)
