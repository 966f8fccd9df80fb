"""The two distributions, `logrelay-daemon` and `logrelay-client`, as a user installs them: from their wheels, by pip.

Every environment here is a real one, made for the test. A bot that has a package `robo_trader` of its own must keep it,
whatever is installed, upgraded or uninstalled beside it.
"""

from __future__ import annotations

import email
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "robo_trader" / "log_relay"
DEADLINE_S = 300
"""For one command; pip may have to fetch packages over a slow line."""

pytestmark = pytest.mark.timeout(900)  # environments are made and packages are fetched within a test's fixtures

BOT_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "someones-bot"
version = "3.1"
[tool.hatch.build.targets.wheel]
packages = ["robo_trader"]
"""

SHIPS = """
import sys
import structlog
from logrelay_client import LogRelayProcessor
ship = LogRelayProcessor(socket=sys.argv[1], app="someones_bot")
structlog.configure(processors=[structlog.processors.add_log_level, ship, structlog.processors.JSONRenderer()])
structlog.get_logger().warning("shipped.from_wheel", symbol="AAPL")
print(ship.flush(float(sys.argv[2])), "robo_trader" in sys.modules, "logrelay" in sys.modules)
"""


SECRET = "q7Hx0vTz3LmN8pRs"

BOT_WITH_STRUCTLOG = f"""
import sys
import structlog
from logrelay_client import LogRelayProcessor
structlog.configure(processors=[
    structlog.processors.add_log_level, ship := LogRelayProcessor(), structlog.processors.JSONRenderer()
])
structlog.get_logger().warning("adopted", symbol="AAPL", api_key="{SECRET}", note="api_key={SECRET}")
ship.flush({DEADLINE_S / 2})
print("logging" in sys.modules)
"""

BOT_WITH_LOGGING = f"""
import logging.config, sys
logging.config.dictConfig({{
    "version": 1,
    "handlers": {{"relay": {{"class": "logrelay_client.LogRelayHandler", "level": "INFO", "app": "someones_bot"}}}},
    "root": {{"level": "INFO", "handlers": ["relay"]}},
}})
logging.warning("adopted", extra={{"symbol": "AAPL", "api_key": "{SECRET}", "note": "api_key={SECRET}"}})
logging.getLogger().handlers[0].flush({DEADLINE_S / 2})
print("structlog" in sys.modules)
"""


def environment():
    """The caller's environment without what would let a program find the checkout or another's settings."""
    ours = ("LOGRELAY_", "ROBO_", "MAKE", "MFLAGS", "PYTHONPATH", "VIRTUAL_ENV", "COV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def run(*command, cwd, check=True, **more):
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment() | more, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}"
    return done


@dataclass
class Environment:
    """A virtual environment of its own."""

    home: Path

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    @property
    def packages(self) -> Path:
        (found,) = (self.home / "lib").glob("python*/site-packages")
        return found

    def python(self, *arguments, **more):
        return run(self.bin / "python", *arguments, cwd=more.pop("cwd", self.home), **more)

    def pip(self, *arguments):
        return self.python("-m", "pip", "--disable-pip-version-check", *arguments)

    def installed(self):
        return {d["name"]: d["version"] for d in json.loads(self.pip("list", "--format=json").stdout)}


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The package index pip is set up for; skips where none can be reached, as what is built needs hatchling."""
    into = tmp_path_factory.mktemp("index")
    asked = run(sys.executable, "-m", "pip", "download", "--no-deps", "-d", into, "hatchling", cwd=into, check=False)
    if asked.returncode != 0:
        pytest.skip("pip cannot reach a package index")


@pytest.fixture(scope="module")
def make_environment(tmp_path_factory):
    def make(name, *options):
        home = tmp_path_factory.mktemp(name) / "venv"
        run(sys.executable, "-m", "venv", *options, home, cwd=ROOT)
        return Environment(home)

    return make


@pytest.fixture(scope="module")
def dist(index, tmp_path_factory):
    """What `make dist` builds, by distribution and suffix. Each wheel is built from its sdist, which tests that too."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    home = tmp_path_factory.mktemp("dist")
    (home / "ready").touch()
    done = run("make", "dist", f"DIST={home / 'dist'}", f"BIN={Path(sys.executable).parent}",
               f"READY_DEV={home / 'ready'}", cwd=ROOT)  # fmt: skip
    files = sorted((home / "dist").iterdir())
    assert len(files) == 4, done.stdout
    assert (done.stdout + done.stderr).count("Building wheel from sdist") == 2
    return {(path.name.split("-")[0], path.suffix): path for path in files}


@pytest.fixture(scope="module")
def daemon_wheel(dist):
    return dist["logrelay_daemon", ".whl"]


@pytest.fixture(scope="module")
def client_wheel(dist):
    return dist["logrelay_client", ".whl"]


@pytest.fixture(scope="module")
def next_wheels(index, tmp_path_factory):
    """Both wheels with another version, as the next release would be."""
    home = tmp_path_factory.mktemp("next")
    shutil.copytree(ROOT / "logrelay", home / "tree" / "logrelay", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CLIENT, home / "tree" / "client", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, home / "tree" / name)
    for path in (home / "tree" / "logrelay" / "__init__.py", home / "tree" / "client" / "pyproject.toml"):
        text, changed = re.subn(r'(?m)^((?:__)?version(?:__)?) = ".*"$', r'\1 = "99.0"', path.read_text())
        assert changed == 1, path
        path.write_text(text)
    trees = (home / "tree", home / "tree" / "client")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", home / "dist", *trees, cwd=home)
    return sorted((home / "dist").iterdir())


@pytest.fixture(scope="module")
def relay_environment(make_environment, daemon_wheel):
    """An environment with the relay's wheel and what it asks for, nothing else."""
    made = make_environment("relay")
    made.pip("install", daemon_wheel)
    return made


@pytest.fixture(scope="module")
def client_environment(make_environment, client_wheel):
    """A bot's environment: structlog, and the client's wheel."""
    made = make_environment("client")
    made.pip("install", client_wheel, "structlog")
    return made


@pytest.fixture
def relay(relay_environment, tmp_path):
    """The relay of the wheel, running: the path of its socket and the URL of its pages."""
    command = [relay_environment.bin / "logrelay", "serve", "--port", "0", "--journal", tmp_path / "journal.db",
               "--socket", tmp_path / "s"]  # fmt: skip
    process = subprocess.Popen(
        [*map(str, command)], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    alarm = threading.Timer(DEADLINE_S, process.kill)
    alarm.start()
    try:
        said = process.stderr.readline()
        assert "ready" in said, said
        yield str(tmp_path / "s"), re.search(r"ws://([\d.:]+)", said)[1]
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        alarm.cancel()
        process.kill()
        process.wait()
        process.stderr.close()


def content(wheel):
    """The files of a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def files_of(folder, into):
    """The files of a package in the checkout, as they should stand in a wheel."""
    paths = [p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    return {f"{into}/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in paths}


def test_the_relay_s_wheel_is_the_package_logrelay_and_nothing_else(daemon_wheel):
    """Every file of the package should be in it, units and pages included, and no file of anybody else's name."""
    assert content(daemon_wheel) == files_of(ROOT / "logrelay", "logrelay")
    assert "logrelay/py.typed" in content(daemon_wheel)


def test_the_client_s_wheel_is_the_folder_log_relay_under_its_own_name(client_wheel):
    """The files should be those of the repository, byte for byte, and only the package's name another."""
    expected = files_of(CLIENT, "logrelay_client")
    for name in ("pyproject.toml", "README.md"):
        del expected[f"logrelay_client/{name}"]

    assert content(client_wheel) == expected
    assert "logrelay_client/py.typed" in expected


def test_the_metadata_claims_only_what_is_there(daemon_wheel, client_wheel):
    """Each should ask for what it needs, and name neither a licence file nor an address that does not exist."""
    told = {"logrelay-daemon": metadata(daemon_wheel), "logrelay-client": metadata(client_wheel)}
    for name, fields in told.items():
        assert fields["Name"] == name
        assert fields["Requires-Python"] == ">=3.11"
        assert fields["Description-Content-Type"] == "text/markdown"
        assert not [key for key in fields if key.lower().startswith(("license", "project-url", "home-page", "author"))]
        assert not [c for c in fields.get_all("Classifier") if c.startswith("License")]
    needs = {
        name: {re.match(r"[\w-]+", need)[0] for need in fields.get_all("Requires-Dist") if "extra ==" not in need}
        for name, fields in told.items()
    }
    assert needs["logrelay-daemon"] == {"click", "msgpack", "orjson", "segno", "uvloop", "websockets"}
    assert needs["logrelay-client"] == {"msgpack"}


def test_the_relay_s_wheel_works_alone(relay_environment):
    """In a clean environment the command should run, with nothing of a bot beside it."""
    told = run(relay_environment.bin / "logrelay", "--version", cwd=relay_environment.home).stdout

    assert told == f"logrelay {relay_environment.installed()['logrelay-daemon']}\n"
    assert not {"structlog", "logrelay-client"} & relay_environment.installed().keys()
    assert not (relay_environment.packages / "robo_trader").exists()
    assert not (relay_environment.bin / "robo-trader").exists()


def test_a_line_goes_from_the_client_s_wheel_through_the_relay_s(relay, client_environment):
    """A bot with structlog and the client should be heard by a relay that was installed elsewhere."""
    socket, address = relay
    assert not {"logrelay-daemon", "websockets"} & client_environment.installed().keys()
    said = client_environment.python("-c", SHIPS, socket, DEADLINE_S / 2).stdout
    with urllib.request.urlopen(f"http://{address}/logs?source=someones_bot", timeout=DEADLINE_S) as answer:
        lines = [line for line in map(json.loads, answer) if line["source"] != "logrelay"]

    assert said.splitlines()[-1] == "True False False"
    assert [(line["message"], line["level"], line["context"]) for line in lines] == [
        ("shipped.from_wheel", "WARNING", {"symbol": "AAPL"})
    ]


@pytest.fixture(scope="module")
def plain_environment(make_environment, client_wheel):
    """The environment of a bot that has nothing but the client's wheel."""
    made = make_environment("plain")
    made.pip("install", client_wheel)
    return made


@pytest.mark.parametrize("kind", ["structlog", "logging"])
def test_a_bot_adopts_it_with_one_line(relay, kind, request):
    """Processor and handler should be heard from a clean environment, and no secret with them."""
    socket, address = relay
    bot = request.getfixturevalue("client_environment" if kind == "structlog" else "plain_environment")
    assert "logrelay-daemon" not in bot.installed()
    assert ("structlog" in bot.installed()) == (kind == "structlog")
    code = BOT_WITH_STRUCTLOG if kind == "structlog" else BOT_WITH_LOGGING
    done = bot.python("-c", code, LOGRELAY_SOCKET=socket, LOGRELAY_APP="someones_bot")
    with urllib.request.urlopen(f"http://{address}/logs?limit=1000", timeout=DEADLINE_S) as answer:
        text = answer.read().decode()
    lines = [line for line in map(json.loads, text.splitlines()) if line["source"] != "logrelay"]

    assert done.stderr == ""
    assert [(line["message"], line["level"]) for line in lines] == [("adopted", "WARNING")]
    assert lines[0]["source"] == ("someones_bot" if kind == "structlog" else "root")
    context = lines[0]["context"]
    assert (context["symbol"], context["api_key"], context["note"]) == ("AAPL", "[redacted]", "api_key=[redacted]")
    assert SECRET not in text


def test_a_bot_keeps_its_own_robo_trader(make_environment, tmp_path, daemon_wheel, client_wheel, next_wheels):
    """Install, upgrade and uninstall of both should leave a package of that name as it was, file by file."""
    bot = tmp_path / "bot"
    (bot / "robo_trader" / "log_relay").mkdir(parents=True)
    (bot / "pyproject.toml").write_text(BOT_PROJECT)
    for name in ("__init__", "__main__", "logger", "log_relay/__init__"):
        (bot / "robo_trader" / f"{name}.py").write_text(f'OWN = "{name}"\n')
    made = make_environment("bot")
    made.pip("install", bot)

    def own():
        assert made.python("-c", "import robo_trader.log_relay as r; print(r.OWN)").stdout == "log_relay/__init__\n"
        paths = [p for n in ("robo_trader", "someones_bot-3.1.dist-info") for p in (made.packages / n).rglob("*")]
        return {
            str(p): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in paths
            if p.is_file() and "__pycache__" not in p.parts
        }

    before = own()
    assert len(before) > 4
    made.pip("install", daemon_wheel, client_wheel)
    first = made.installed()
    assert own() == before
    made.pip("install", "--upgrade", *next_wheels)
    assert own() == before
    assert made.installed() == first | {"logrelay-daemon": "99.0", "logrelay-client": "99.0"}
    made.pip("uninstall", "--yes", "logrelay-daemon", "logrelay-client")
    assert own() == before
    assert not [n for n in ("logrelay", "logrelay_client") if list((made.packages / n).rglob("*.py"))]
    assert not (made.bin / "logrelay").exists()


def test_the_sample_bot_runs_from_the_checkout(tmp_path):
    """`python -m robo_trader` in the checkout should trade and end cleanly."""
    done = run(sys.executable, "-m", "robo_trader", "--speed", "0", "--duration", "1", cwd=ROOT, LOGRELAY_DISABLED="1")

    assert "engine.stopped" in done.stdout


@pytest.mark.parametrize(("module", "missing"), [("robo_trader", "(structlog|msgpack)"), ("logrelay", "click")])
def test_a_missing_package_is_said_in_one_line(make_environment, module, missing):
    """Whoever starts from a checkout without `make setup` should be told what to do instead of shown a traceback."""
    bare = make_environment("bare", "--without-pip")
    done = bare.python("-m", module, cwd=ROOT, check=False, PYTHONDONTWRITEBYTECODE="1")

    assert done.returncode == 1
    assert re.fullmatch(rf"{module}: {missing} is not installed for \S+; .*`make setup`.*\n", done.stderr)
