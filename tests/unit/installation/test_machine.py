"""What is said of a step of an installation that failed, with programs that are played."""

from __future__ import annotations

import subprocess

import pytest

from logrelay.installation import machine
from logrelay.installation.plan import SERVICE


def test_the_words_of_a_service_that_failed_are_read_once_they_are_written(monkeypatch):
    """journald takes what a service says in its own time: it is asked for that first."""
    asked = []

    def run(argv, **_):
        asked.append(argv[:2])
        failed = argv[0] == "systemctl"
        return subprocess.CompletedProcess(argv, int(failed), "" if failed else "its words\n", "Job failed.")

    monkeypatch.setattr(machine.subprocess, "run", run)
    with pytest.raises(machine.InstallError) as error:
        machine.output(("systemctl", "restart", SERVICE))

    assert str(error.value) == "Job failed.\n    its words"
    assert asked == [("systemctl", "restart"), ("journalctl", "--sync"), ("journalctl", "--unit")]
