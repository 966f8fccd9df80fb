"""The relay's list of the places of its socket and the trader's are the same, whatever the environment."""

from __future__ import annotations

import itertools
import os
import stat
from types import SimpleNamespace

import pytest

from logrelay.config.loading import default_socket, trader_places
from robo_trader.log_relay import sender

UID = os.getuid()
SYSTEM = "/run/logrelay"
NAMES = ("LOGRELAY_SOCKET", "XDG_RUNTIME_DIR", "TMPDIR")
ENVIRONMENTS = [
    dict(zip(NAMES, values, strict=True))
    for values in itertools.product(("", "/told.sock"), ("", f"/run/user/{UID}", "/run/other"), ("", "/tmp", "/var/t"))
]


@pytest.fixture
def machine(monkeypatch):
    """A file system that has the sockets and directories that the test names, for the trader to look at."""
    there = SimpleNamespace(sockets=set(), directories=set())

    def look(path):
        if path in there.sockets:
            return os.stat_result((stat.S_IFSOCK | 0o660, 1, 1, 1, UID, 0, 0, 0, 0, 0))
        raise FileNotFoundError(path)

    # The functions of the module alone: pytest looks at the file system, too.
    here = SimpleNamespace(
        environ={},
        getuid=os.getuid,
        stat=look,
        path=SimpleNamespace(isdir=lambda path: path in there.directories, dirname=os.path.dirname),
    )
    monkeypatch.setattr(sender, "os", here)
    there.environ = here.environ
    return there


@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=lambda e: " ".join(filter(None, e.values())) or "bare")
def test_the_trader_takes_the_first_socket_of_the_relays_list(machine, environ):
    """Each place in turn is the first that has a socket."""
    machine.environ.update(environ)
    places = trader_places(environ, UID)
    for count, place in enumerate(places):
        machine.sockets = set(places[count:])
        assert sender.default_path() == place
        machine.sockets = {place}
        assert sender.default_path() == place


@pytest.mark.parametrize("environ", ENVIRONMENTS, ids=lambda e: " ".join(filter(None, e.values())) or "bare")
@pytest.mark.parametrize("directories", [set(), {SYSTEM}], ids=["", "system"])
def test_without_a_socket_the_trader_names_the_place_where_the_relay_would_bind(machine, environ, directories):
    """So what it says on stderr is where a relay started beside it comes to be."""
    machine.environ.update(environ)
    machine.directories = directories
    bound = default_socket(environ, UID, directories.__contains__)

    assert sender.default_path() == bound
    assert bound in trader_places(environ, UID)


@pytest.mark.parametrize("of_relay", [{}, {"XDG_RUNTIME_DIR": f"/run/user/{UID}"}, {"TMPDIR": "/tmp"}], ids=str)
@pytest.mark.parametrize(
    "of_trader", [{}, {"XDG_RUNTIME_DIR": f"/run/user/{UID}"}, {"TMPDIR": "/var/t"}, {"XDG_RUNTIME_DIR": "/x"}], ids=str
)
def test_a_bot_and_a_relay_of_one_user_find_each_other_across_environments(machine, of_relay, of_trader):
    """Cron and a service have neither variable, a login has one of them."""
    bound = default_socket(of_relay, UID, lambda path: False)
    machine.environ.update(of_trader)
    machine.sockets = {bound}

    assert sender.default_path() == bound
