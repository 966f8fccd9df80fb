"""The texts that are written, and which are known to hold nothing of the operator's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from logrelay.installation import unit_files

BEFORE = Path(__file__).parents[2] / "system" / "systemd" / "before"
BIN = "/opt/logrelay/venv/bin"


@pytest.mark.parametrize("make", [unit_files.service, unit_files.user_service])
def test_a_service_beside_its_socket_needs_it(make):
    """Only then does a restart of the socket restart the relay as well."""
    alone = make(BIN, activated=False, systemd=252)
    beside = make(BIN, activated=True, systemd=252)

    assert "Requires=" not in alone
    assert "Requires=logrelay.socket\nAfter=logrelay.socket\n" in beside


def test_a_relay_without_network_of_its_own_says_so_once():
    """A second line of the same kind would widen what the first one allows."""
    text = unit_files.service(BIN, activated=True, systemd=252)

    assert [line for line in text.splitlines() if line.startswith("RestrictAddressFamilies=")] == [
        "RestrictAddressFamilies=AF_UNIX"
    ]
    assert "PrivateNetwork=yes" in text


@pytest.mark.parametrize("make", [unit_files.service, unit_files.user_service])
@pytest.mark.parametrize("systemd", [247, 252, 253, 257])
def test_a_reload_is_told_in_the_way_that_this_systemd_knows(make, systemd):
    """An older one would not start Type=notify-reload at all; a newer one waits for the end of the reload with it."""
    text = make(BIN, activated=False, systemd=systemd)

    assert ("Type=notify-reload\n" in text) == (systemd >= 253)
    assert ("ExecReload=" in text) == (systemd < 253)
    assert ("# SIGHUP:" in text) == (systemd < 253)


@pytest.mark.parametrize("name", ["logrelay.service", "logrelay.socket", "logrelay.sysusers"])
def test_files_of_the_version_before_are_known(name):
    """As they were printed, for whatever directory and trader; a line more is the operator's."""
    text = (BEFORE / name).read_text()
    printed = text.replace("/opt/logrelay/venv/bin/", "/srv/x/bin/")
    of_eve = printed.replace('u robo-trader - "robo_trader paper trader"\n', "").replace("m robo-trader", "m eve")

    assert unit_files.is_ours(text)
    assert unit_files.is_ours(printed)
    assert unit_files.is_ours(of_eve)
    assert not unit_files.is_ours(text + "Nice=5\n")


def test_what_was_written_is_known_until_it_is_changed():
    """The mark holds the lines above it."""
    text = unit_files.marked("[Unit]\nA=1\n")

    assert unit_files.is_ours(text)
    assert not unit_files.is_ours(text.replace("A=1", "A=2"))
    assert not unit_files.is_ours("[Unit]\nA=1\n")
