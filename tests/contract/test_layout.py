"""Where things live: tests/unit mirrors the packages, and the top level holds what was agreed and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"

TOP_LEVEL = {
    "logrelay",
    "robo_trader",
    "tests",
    "docs",
    "pyproject.toml",
    "package.json",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
}
"""Besides files and folders whose names begin with a dot."""

TEST_FOLDERS = {
    "unit",
    "integration",
    "system",
    "contract",
    "mutation",
    "bench",
    "siege",
    "fuzz",
    "support",
    "conftest.py",
}

TESTED_ELSEWHERE = {
    "logrelay/alerts/bots": "tests/unit/alerts/test_engine.py",
    "logrelay/alerts/link": "tests/system/alerts: with a real relay",
    "logrelay/alerts/task": "tests/system/alerts: every alert goes through it",
    "logrelay/alerts/records": "tests/unit/alerts/test_engine.py: records with what counts in them",
    "logrelay/alerts/release": "tests/unit/alerts/test_engine.py: what decides together is tested together",
    "logrelay/__main__": "tests/system/test_cli.py runs `python -m logrelay`",
    "logrelay/cli/alert": "tests/system/alerts",
    "logrelay/cli/check": "tests/system/test_cli.py",
    "logrelay/cli/completion": "tests/system/terminal/test_terminal_docs.py",
    "logrelay/cli/group": "tests/system/test_cli.py",
    "logrelay/cli/output": "tests/system/test_cli.py",
    "logrelay/cli/send": "tests/system/test_send.py: with a real relay",
    "logrelay/cli/serve": "tests/system/test_cli.py",
    "logrelay/cli/setting_options": "tests/system/test_cli.py",
    "logrelay/cli/systemd_units": "tests/system/test_cli.py and tests/system/systemd",
    "logrelay/cli/systemd_install": "tests/system/systemd/test_install.py",
    "logrelay/interrupts": "tests/system/terminal/test_interrupts.py: at every moment of a real process",
    "logrelay/installation/self_check": "tests/system/systemd/test_install.py",
    "logrelay/cli/token": "tests/system/test_token.py",
    "logrelay/cli/verify": "tests/system/test_cli.py",
    "logrelay/doctor/access_findings": "tests/unit/doctor/test_diagnosis.py: every question in one table",
    "logrelay/doctor/journal_findings": "tests/unit/doctor/test_diagnosis.py",
    "logrelay/doctor/machine_findings": "tests/unit/doctor/test_diagnosis.py",
    "logrelay/doctor/report": "tests/system/test_doctor.py",
    "logrelay/doctor/unit_findings": "tests/unit/doctor/test_diagnosis.py",
    "logrelay/cli/export": "tests/system/terminal: with a real relay and its journal",
    "logrelay/cli/line_options": "tests/system/terminal",
    "logrelay/cli/pair": "tests/system/terminal/test_pair.py",
    "logrelay/cli/place_options": "tests/system/test_token.py and tests/system/terminal",
    "logrelay/cli/purge": "tests/system/terminal/test_purge.py",
    "logrelay/cli/search": "tests/system/terminal",
    "logrelay/cli/status": "tests/system/terminal",
    "logrelay/cli/tail": "tests/system/terminal: with a real relay that is killed, and a real terminal",
    "logrelay/terminal/finding": "tests/system/terminal",
    "logrelay/terminal/history": "tests/system/terminal",
    "logrelay/terminal/journal_facts": "tests/system/terminal: the same questions to a relay and to its file",
    "logrelay/fanout/hub_types": "records without logic of their own, tests/unit/fanout/test_hub.py",
    "logrelay/journal/interface": "the journals' tests: an interface without logic",
    "logrelay/machines/collecting": "tests/system/machines",
    "logrelay/machines/collector": "tests/system/machines: with real servers",
    "logrelay/machines/forwarder": "tests/system/machines: with real servers",
    "logrelay/machines/nats_check": "tests/system/machines/test_nats_security.py: with real servers",
    "logrelay/machines/forwarding": "tests/system/machines",
    "logrelay/viewers/server": "tests/integration/relay/test_viewer_socket.py: with real sockets",
    "logrelay/viewers/stream": "an interface without logic",
    "robo_trader/__main__": "tests/system/trader/test_robo_trader.py runs it",
    "robo_trader/logger": "tests/unit/logging/test_chain.py: a facade of the chain",
    "robo_trader/logging/levels": "tests/unit/logging/test_chain.py",
    "robo_trader/log_relay/secret_names": "tests/unit/log_relay/test_redaction_table.py",
    "robo_trader/log_relay/secret_rules": "tests/unit/log_relay/test_redaction.py",
    "robo_trader/log_relay/secret_sentences": "tests/unit/log_relay/test_redaction_table.py",
    "robo_trader/log_relay/secret_shapes": "tests/unit/log_relay/test_redaction.py",
    "robo_trader/log_relay/seed_words": "tests/unit/log_relay/test_redaction.py",
}
"""Modules without a unit test file of their own, each with the place that tests it."""


def modules() -> set[str]:
    """Return every module with code of its own by its path, without the suffix."""
    paths = [path for package in ("logrelay", "robo_trader") for path in (ROOT / package).rglob("*.py")]
    return {path.relative_to(ROOT).with_suffix("").as_posix() for path in paths if path.name != "__init__.py"}


MODULES = modules()
TESTS = sorted(UNIT.rglob("test_*.py"))


def subjects_of(path: Path) -> set[str]:
    """Return the modules that a unit test file is about by its folder and name: M for test_M.py and test_M_x.py."""
    folder, name = path.parent.relative_to(UNIT).as_posix(), path.stem.removeprefix("test_")
    parts = name.split("_")
    names = {"_".join(parts[:count]) for count in range(1, len(parts) + 1)}
    folders = {"logrelay", "robo_trader"} if folder == "." else {f"logrelay/{folder}", f"robo_trader/{folder}"}
    return {f"{folder}/{name}" for folder in folders for name in names} & MODULES


def files_of_git() -> list[str]:
    """Return what git tracks, so that what lies about in a working copy does not count."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("this is no clone: there is no list of what belongs to it")
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.relative_to(UNIT).as_posix())
def test_a_unit_test_file_is_named_like_its_module(path):
    """Who looks for the tests of a module should find them at the same place below tests/unit."""
    assert subjects_of(path)


def test_every_module_has_its_tests():
    """A module without tests of its own should say who tests it; one that has them, or is gone, should not."""
    covered = {module for path in TESTS for module in subjects_of(path)}

    assert sorted(MODULES - covered - TESTED_ELSEWHERE.keys()) == [], "neither tests nor an entry"
    assert sorted(TESTED_ELSEWHERE.keys() - MODULES) == [], "entries of modules that do not exist"
    assert sorted(TESTED_ELSEWHERE.keys() & covered) == [], "entries of modules that have tests of their own"


def test_who_tests_a_module_exists():
    """A place that is named should be there."""
    named = [
        word.rstrip(":;,") for why in TESTED_ELSEWHERE.values() for word in why.split() if word.startswith("tests/")
    ]

    assert [place for place in named if not (ROOT / place).exists()] == []


def test_the_top_level_is_what_was_agreed():
    """A newcomer's first look should show the packages, the tests, the docs and how to build, nothing else."""
    found = {name.partition("/")[0] for name in files_of_git()}

    assert {name for name in found if not name.startswith(".")} <= TOP_LEVEL


def test_the_tests_have_their_folders():
    """By what they need: nothing, several parts, the programs, the documents."""
    assert {name.split("/")[1] for name in files_of_git() if name.startswith("tests/")} == TEST_FOLDERS
