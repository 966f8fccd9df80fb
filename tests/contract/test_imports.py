"""Who may import whom. docs/architecture.md, section "Floors", is the same in prose.

A module imports only from lower floors, the shells of the I/O floor are strangers to each other, and what is pure
touches neither the clock nor the machine. A new module has to be given its floor here.
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

PURE = {
    "logrelay",
    "logrelay.config",
    "logrelay.fanout",
    "logrelay.http",
    "logrelay.ingest",
    "logrelay.journal",
    "logrelay.viewers",
    "logrelay.viewers.access_policy",
    "logrelay.fanout.batch",
    "logrelay.fanout.compression",
    "logrelay.config.settings",
    "logrelay.errors",
    "logrelay.fanout.filters",
    "logrelay.fanout.hub",
    "logrelay.journal.interface",  # the interface; what keeps it lies on the next floor
    "logrelay.config.value_types",
    "logrelay.fanout.line_json",
    "logrelay.http.metrics",
    "logrelay.ingest.read_coalescing",
    "logrelay.model",
    "logrelay.http.log_query",
    "logrelay.ingest.sequencer",
    "logrelay.ingest.trader_registry",
    "logrelay.ingest.frames",
}
SHELLS = {"http", "ingest", "journal", "systemd", "viewers"}
"""Each is one module or one package below `logrelay`; the modules above are excepted."""
ON_TOP = (
    "logrelay.pipeline",
    "logrelay.viewers.service",
    "logrelay.app",
    "logrelay.cli.group",
    "logrelay.cli",
    "logrelay.__main__",
)
"""Those who introduce the shells to each other, lowest first."""

TOUCHES_THE_WORLD = set(
    "asyncio concurrent fcntl glob http logging mmap multiprocessing os pathlib queue random secrets select selectors "
    "shutil signal socket socketserver sqlite3 ssl subprocess tempfile threading time uvloop".split()
)
PURE_OF_WEBSOCKETS = {"websockets.frames", "websockets.extensions.permessage_deflate"}
"""The parts of that library that are bytes in, bytes out."""


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


def shell_of(name):
    part = name.split(".")[1] if "." in name else ""
    return part if part in SHELLS and name not in PURE and name not in ON_TOP else None


def known(imported):
    """The module of ours that an imported name stands for, if any: `logrelay.model.Line` is `logrelay.model`."""
    while imported:
        if imported in RELAY:
            return imported
        imported = imported.rpartition(".")[0]
    return None


def test_every_module_has_a_floor():
    """A new module should be put on a floor by whoever writes it."""
    homeless = [n for n in RELAY if n not in PURE and n not in ON_TOP and shell_of(n) is None]

    assert homeless == []


@pytest.mark.parametrize("package", ["logrelay", "robo_trader"])
def test_relay_and_trader_never_import_each_other(package):
    """What they share should be docs/protocol.md and tests/contract/vectors, nothing else."""
    other = {"logrelay": "robo_trader", "robo_trader": "logrelay"}[package]
    found = modules(package)
    crossing = [(n, i) for n, p in found.items() for i in imports(p, n) if i.split(".")[0] == other]

    assert len(found) > 3
    assert crossing == []


@pytest.mark.parametrize("name", sorted(PURE & RELAY.keys()))
def test_what_is_pure_imports_only_what_is_pure(name):
    """No socket, no clock, no file, no thread, no event loop, and no module of a higher floor."""
    for imported in imports(RELAY[name], name):
        assert imported.split(".")[0] not in TOUCHES_THE_WORLD, imported
        if imported.split(".")[0] == "websockets":
            assert any(imported.startswith(pure) for pure in PURE_OF_WEBSOCKETS), imported
        ours = known(imported)
        assert ours is None or ours in PURE, imported


@pytest.mark.parametrize("name", sorted(n for n in RELAY if shell_of(n)))
def test_the_shells_are_strangers_to_each_other(name):
    """A shell should import what is pure and its own package, never another shell or its users."""
    for imported in imports(RELAY[name], name):
        ours = known(imported)
        assert ours is None or ours in PURE or shell_of(ours) == shell_of(name), imported


@pytest.mark.parametrize("name", [n for n in ON_TOP if n in RELAY])
def test_those_on_top_import_only_downwards(name):
    """The higher of two should be the one that imports."""
    above = set(ON_TOP[ON_TOP.index(name) + 1 :])

    assert not {known(i) for i in imports(RELAY[name], name)} & above


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
