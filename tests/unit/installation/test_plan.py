"""What is to be done on machines of every kind, from a fresh one to one that is installed as wished."""

from __future__ import annotations

from dataclasses import replace

import pytest

from logrelay.errors import ConfigError
from logrelay.installation import plan, unit_files
from logrelay.installation.plan import (
    SYSTEM,
    DeleteUser,
    File,
    Found,
    MakeDirectory,
    Remove,
    Run,
    SetMode,
    Unit,
    Wish,
    Write,
)

BIN = "/opt/logrelay/venv/bin"
OFF, ON = Unit(), Unit(active=True, enabled=True)
FRESH = Found(
    files={}, directories=frozenset({"/etc/systemd/system"}), service=OFF, socket=OFF, users=frozenset(),
    members=frozenset(), systemd=252,
)  # fmt: skip
USER = plan.user_places({"HOME": "/home/eve"}, 1000)


def after(steps, found, places=SYSTEM):
    """What a machine looks like when the steps have been done."""
    files, directories = dict(found.files), set(found.directories)
    units = {plan.SERVICE: found.service, plan.SOCKET: found.socket}
    users, members = set(found.users), set(found.members)
    for step in steps:
        match step:
            case Write(path=path, text=text, mode=mode):
                files[path] = File(text, mode)
            case SetMode(path=path, mode=mode):
                files[path] = replace(files[path], mode=mode)
            case Remove(path=path):
                files = {name: file for name, file in files.items() if not f"{name}/".startswith(f"{path}/")}
            case MakeDirectory(path=path):
                directories.add(path)
            case DeleteUser(name=name):
                users.discard(name)
            case Run(argv=("systemd-sysusers", path)):
                traders = unit_files.read_traders(files[path].text)
                users |= {"logrelay", *traders}
                members |= set(traders)
            case Run(argv=argv):
                words = argv[len(places.systemctl) :]
                for name in set(words) & set(units):
                    if "enable" in words:
                        units[name] = replace(units[name], enabled=True)
                    if "disable" in words:
                        units[name] = replace(units[name], enabled=False)
                    if {"start", "restart", "--now"} & set(words):
                        units[name] = replace(units[name], active="disable" not in words)
                    if "stop" in words:
                        units[name] = replace(units[name], active=False)
    return replace(
        found, files=files, directories=frozenset(directories), service=units[plan.SERVICE],
        socket=units[plan.SOCKET], users=frozenset(users), members=frozenset(members),
    )  # fmt: skip


def commands(steps):
    return [" ".join(step.argv) for step in steps if isinstance(step, Run)]


WISHES = [
    Wish(BIN, None),
    Wish(BIN, True, trader="eve"),
    Wish(BIN, True, listen="0.0.0.0:9000"),
    Wish(BIN, False),
]
LATER = [Wish(BIN, None), Wish(BIN, True, listen="[::1]"), Wish(BIN, False), Wish("/srv/bin", None, trader="bob")]


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("later", LATER)
def test_a_second_installation_has_nothing_to_do(wish, later):
    """From any installation to any other, and again: the second time there is no step, and all runs."""
    found = after(plan.install(wish, SYSTEM, FRESH), FRESH)
    assert plan.install(replace(wish, activated=None, listen=None, trader=None), SYSTEM, found) == []
    assert found.service == ON

    steps = plan.install(later, SYSTEM, found)
    found = after(steps, found)
    assert plan.install(later, SYSTEM, found) == []
    assert found.service == ON
    assert found.socket == (OFF if plan.SOCKET not in " ".join(found.files) else ON)


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("places", [SYSTEM, USER])
def test_after_a_purge_nothing_is_there(wish, places):
    """Every file, directory and user that an installation made should be gone again."""
    if places is USER and wish.trader is not None:
        return
    found = after(plan.install(wish, places, FRESH), FRESH, places)
    others = {"data": (places.runtime, "/etc/logrelay", places.settings.rpartition("/")[0], places.state)}
    steps = plan.uninstall(places, found, purge=True, others=others)
    left = after(steps, found, places)

    assert (left.files, left.users, left.service, left.socket) == ({}, frozenset(), OFF, OFF)
    assert plan.uninstall(places, left, purge=True, others={}) == []


def test_without_a_purge_settings_journal_and_users_stay():
    """Whoever installs again should find everything as it was."""
    found = after(plan.install(Wish(BIN, None, trader="eve"), SYSTEM, FRESH), FRESH)
    others = {"data": (SYSTEM.runtime, "/etc/logrelay", SYSTEM.state)}
    steps = plan.uninstall(SYSTEM, found, purge=False, others=others)

    assert not [step for step in steps if isinstance(step, DeleteUser)]
    removed = {step.path for step in steps if isinstance(step, Remove)}
    assert removed == {SYSTEM.service, SYSTEM.socket, SYSTEM.runtime}


def test_a_relay_that_holds_its_sockets_lets_go_before_systemd_takes_them():
    """The other order is refused by systemd: the socket's service is active already."""
    found = after(plan.install(Wish(BIN, False), SYSTEM, FRESH), FRESH)
    order = commands(plan.install(Wish(BIN, True), SYSTEM, found))

    assert order == [
        "systemctl daemon-reload",
        "systemctl stop logrelay.socket logrelay.service",
        "systemctl enable --now logrelay.socket",
        "systemctl start logrelay.service",
    ]


def test_a_relay_behind_systemd_s_socket_is_restarted_and_never_stopped():
    """Another service file, or a program that is newer than the process: who connects meanwhile only waits."""
    found = after(plan.install(Wish(BIN, True), SYSTEM, FRESH), FRESH)

    assert commands(plan.install(Wish("/srv/bin", None), SYSTEM, found)) == [
        "systemctl daemon-reload",
        "systemctl restart logrelay.service",
    ]
    assert commands(plan.install(Wish(BIN, None), SYSTEM, replace(found, is_outdated=True))) == [
        "systemctl restart logrelay.service"
    ]


def test_an_existing_user_is_only_put_into_the_group():
    """A user that was there before must not be deleted with the installation."""
    there = replace(FRESH, users=frozenset({"eve"}))
    found = after(plan.install(Wish(BIN, None, trader="eve"), SYSTEM, there), there)
    found = after(plan.install(Wish(BIN, None, trader="bot"), SYSTEM, found), found)
    text = found.files[SYSTEM.sysusers].text

    assert unit_files.read_traders(text) == {"eve": False, "bot": True}
    deleted = [s.name for s in plan.uninstall(SYSTEM, found, purge=True, others={}) if isinstance(s, DeleteUser)]
    assert deleted == ["bot", "logrelay"]


def test_settings_that_others_can_read_are_closed():
    """The token belongs there."""
    found = after(plan.install(Wish(BIN, None), SYSTEM, FRESH), FRESH)
    found = replace(found, files=found.files | {SYSTEM.settings: File("LOGRELAY_TOKEN=x", 0o644)})
    (step,) = plan.install(Wish(BIN, None), SYSTEM, found)

    assert step == SetMode(SYSTEM.settings, 0o600, 0o644)


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ("LOGRELAY_HOST=0.0.0.0\nLOGRELAY_PORT='9000'\n", ("0.0.0.0", 9000)),
        ("LOGRELAY_HOST=::\n", ("::", 8765)),
        ("# LOGRELAY_HOST=::\n LOGRELAY_PORT = 9001\n", ("127.0.0.1", 9001)),
        ("LOGRELAY_HOST=localhost\n", ("127.0.0.1", 8765)),
    ],
)
def test_a_relay_that_gets_a_socket_stays_where_it_listened(settings, address):
    """Its settings change nothing from then on, so the socket unit has to say the same."""
    found = replace(FRESH, files={SYSTEM.settings: File(settings, 0o600), SYSTEM.service: File("old", 0o644)})
    found = after(plan.install(Wish(BIN, True), SYSTEM, found), found)

    assert plan.listens_on(SYSTEM, found) == address
    assert plan.install(Wish(BIN, None), SYSTEM, found) == []


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("9000", ("127.0.0.1", 9000)),
        ("0.0.0.0", ("0.0.0.0", 8765)),
        ("192.168.1.2:80", ("192.168.1.2", 80)),
        ("[::1]:9000", ("::1", 9000)),
        ("[::1]", ("::1", 8765)),
        ("::", ("::", 8765)),
        ("localhost:9000", ("127.0.0.1", 9000)),
    ],
)
def test_an_address_is_understood(typed, address):
    """An IP address, a port, or both."""
    assert plan.read_address(typed) == address


@pytest.mark.parametrize(
    "typed", ["", "somewhere", "host:80", "1.2.3", "0.0.0.0:0", "0.0.0.0:65536", "70000", ":", "fe80::1%eth0"]
)
def test_what_is_no_address_is_refused(typed):
    """systemd takes no names, and a unit with one would fail at the next boot."""
    with pytest.raises(ConfigError, match="allowed: an IP address"):
        plan.read_address(typed)


def test_what_does_not_go_together_is_refused():
    """An address without a socket unit, and a trader of its own for a relay of one user."""
    with pytest.raises(ConfigError, match="LOGRELAY_HOST"):
        plan.install(Wish(BIN, False, listen="9000"), SYSTEM, FRESH)
    with pytest.raises(ConfigError, match="--trader-user"):
        plan.install(Wish(BIN, None, trader="eve"), USER, FRESH)


def test_a_drop_in_of_an_address_that_comes_up_later_says_so():
    """At boot the socket is there before the network."""
    found = after(plan.install(Wish(BIN, True, listen="192.168.1.2"), SYSTEM, FRESH), FRESH)
    assert "FreeBind=yes" in found.files[SYSTEM.listen].text
    found = after(plan.install(Wish(BIN, True, listen="0.0.0.0"), SYSTEM, found), found)
    assert "FreeBind" not in found.files[SYSTEM.listen].text
    found = after(plan.install(Wish(BIN, True, listen="127.0.0.1"), SYSTEM, found), found)
    assert SYSTEM.listen not in found.files


def test_an_edited_file_is_kept():
    """What an operator had written into a unit should not be lost without a word."""
    found = after(plan.install(Wish(BIN, True), SYSTEM, FRESH), FRESH)
    edited = found.files[SYSTEM.service].text.replace("WatchdogSec=30s", "WatchdogSec=90s")
    found = replace(found, files=found.files | {SYSTEM.service: File(edited, 0o644)})
    step = plan.install(Wish(BIN, True), SYSTEM, found)[0]

    assert isinstance(step, Write)
    assert step.keep
    assert "kept as /etc/systemd/system/logrelay.service.before-install" in str(step)
