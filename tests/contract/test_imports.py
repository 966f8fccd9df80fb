"""Who may import whom, as far as import-linter cannot say it, and what is really loaded.

The contract itself is in .importlinter, in docs/architecture.md, section "Floors", in prose; it is run here, too.
"""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.waiting import DEADLINE_S

ROOT = Path(__file__).parents[2]

CONTRACT_PROGRAM = Path(sys.executable).with_name("lint-imports")


def modules(package):
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path, name):
    """Every module a file imports, wherever in the file, as dotted names; `from a import b` gives a and a.b."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                upper = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*upper, base]) if base else ".".join(upper)
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"


RELAY = modules("logrelay")
TRADER = modules("robo_trader")


def test_the_contract_is_kept():
    """Layers, what is pure, no circle, and relay and trader strangers to each other; a new module needs its layer."""
    if not CONTRACT_PROGRAM.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [CONTRACT_PROGRAM, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", ["logrelay", "robo_trader"])
def test_relay_and_trader_never_import_each_other(package):
    """What they share should be docs/protocol.md and tests/contract/vectors, nothing else."""
    other = {"logrelay": "robo_trader", "robo_trader": "logrelay"}[package]
    found = modules(package)
    crossing = [(n, i) for n, p in found.items() for i in imports(p, n) if i.split(".")[0] == other]

    assert len(found) > 3
    assert crossing == []


@pytest.mark.parametrize("name", sorted(n for n in TRADER if n.startswith("robo_trader.log_relay")))
def test_the_log_processor_is_self_contained(name):
    """It should be possible to copy robo_trader/log_relay into any bot that has structlog and msgpack."""
    allowed = set(sys.stdlib_module_names) | {"structlog", "msgpack"}
    for imported in imports(TRADER[name], name):
        inside = imported.startswith("robo_trader.log_relay") or imported == "robo_trader"
        assert inside or imported.split(".")[0] in allowed, imported


def loaded_after(statement):
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    return set(done.stdout.split())


def test_the_trader_loads_nothing_of_the_relay():
    """Importing the logger should load neither the relay nor what only the relay needs."""
    loaded = loaded_after("import robo_trader.logger")

    assert "robo_trader.logger" in loaded
    assert not loaded & {"logrelay", "websockets", "click", "orjson", "uvloop"}


def test_help_is_quick_because_it_loads_no_event_loop():
    """`logrelay --help` and `logrelay check` should not pay for the daemon."""
    loaded = loaded_after("import logrelay.cli")

    assert "logrelay.cli" in loaded
    assert not loaded & {"asyncio", "websockets", "orjson", "uvloop", "sqlite3", "logrelay.app"}


def test_a_serving_relay_never_loads_the_trader(tmp_path):
    """Every import of a real relay, from its start to its end, should be without the trader."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
    command = [sys.executable, "-X", "importtime", "-m", "logrelay", "serve", "--port", "0", "--journal", ":memory:"]
    relay = subprocess.Popen(
        [*command, "--socket", str(tmp_path / "s")], cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True
    )
    alarm = threading.Timer(DEADLINE_S, relay.kill)
    alarm.start()
    said = []
    try:
        for line in relay.stderr:
            said.append(line)
            if "ready" in line and "ws://" in line:
                relay.send_signal(signal.SIGTERM)
        assert relay.wait(DEADLINE_S) == 0, "".join(said[-20:])
    finally:
        alarm.cancel()
        relay.kill()
        relay.wait()
        relay.stderr.close()
    imported = {m[1] for m in re.finditer(r"^import time:.*\| +(\S+)$", "".join(said), re.MULTILINE)}
    assert "logrelay.app" in imported
    assert not {name for name in imported if name.startswith("robo_trader")}
