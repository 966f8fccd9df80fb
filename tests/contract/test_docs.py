"""The documentation says what the code does: every name a user can meet is in it, and the tables are the code's.

`python tests/contract/test_docs.py` writes the tables of docs/operations.md anew.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from logrelay import budgets, errors  # noqa: E402
from logrelay.cli.serve import serve  # noqa: E402
from logrelay.config.settings import OTHER_VARIABLES, SETTINGS  # noqa: E402
from logrelay.fanout import line_json  # noqa: E402
from logrelay.http import log_query, metrics, request_head  # noqa: E402
from logrelay.interrupts import INTERRUPTED  # noqa: E402
from logrelay.viewers import connection, messages, plain_answer, requests, server, websocket  # noqa: E402
from robo_trader.log_relay import LogRelayHandler, LogRelayProcessor, Redactor  # noqa: E402
from tests.support.waiting import DEADLINE_S  # noqa: E402

CLIENT = ROOT / "robo_trader" / "log_relay"
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *CLIENT.glob("*.md")]
}


def page(name):
    return PAGES[name].read_text("utf-8")


def markers(name):
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"


def settings_table():
    """The table of docs/operations.md, as the code has it."""
    rows = [
        "| option | variable | key in the file | default | allowed | what it does, and why the default |",
        "|" + "---|" * 6,
    ]
    for setting in SETTINGS:
        cells = [
            f"`{setting.flag}`" if setting.by_flag else "none",
            f"`{setting.variable}`",
            f"`{setting.name}`" if setting.by_file else "none",
            setting.shown_default,
            setting.value_type.allowed,
            f"{setting.help} {setting.reason}",
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def test_every_exit_code_is_documented():
    """Every exit code an error can give should have a row in docs/operations.md, and no other."""
    classes = [errors.RelayError]
    for cls in classes:
        classes.extend(cls.__subclasses__())
    codes = {0, INTERRUPTED} | {cls.exit_code for cls in classes}
    section = page("docs/operations.md").partition("## Exit codes")[2].partition("\n## ")[0]

    assert {int(c) for c in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)} == codes


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("message type", messages.MESSAGE_TYPES),
        ("request type", requests.REQUEST_TYPES),
        ("error code", messages.ERROR_CODES),
        ("notice", line_json.NOTICES),
        ("close code", messages.CLOSE_CODES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_name_of_the_viewer_protocol_is_documented(what, names):
    """What a viewer can meet should be in docs/protocol.md, as code."""
    text = page("docs/protocol.md")
    missing = [n for n in map(str, names) if f"`{n}`" not in text and f'"{n}"' not in text and f"| {n} |" not in text]

    assert missing == [], f"{what} not in docs/protocol.md"


def metrics_table():
    """The metrics as docs/operations.md has them."""
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    rows += [f"| `{metrics.PREFIX}{m.name}` | {m.type} | {m.help} |" for m in metrics.METRICS]
    return "\n".join(rows) + "\n"


TABLES = {"settings": settings_table, "metrics": metrics_table}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_those_of_the_code(name):
    """docs/operations.md should list exactly what there is; `python tests/contract/test_docs.py` renews the tables."""
    begin, end = markers(name)

    assert page("docs/operations.md").partition(begin)[2].partition(end)[0] == TABLES[name]()


def test_every_refusal_is_explained():
    """Whoever is refused should find the words in docs/operations.md."""
    text = page("docs/operations.md")
    source = (ROOT / "logrelay" / "viewers" / "access_policy.py").read_text("utf-8")
    sentences = {
        "a token is needed", "the token is wrong", "Authorization is not of the form", "is not this relay's own page",
        "is a name this relay does not know", "this relay has no token", "one Host and at most one Origin",
        "not of the form name or name:port", "several different tokens were shown",
        "this came through a proxy", "a page of another site asks for this",
    }  # fmt: skip

    refusals = len(re.findall(r"Refused\(\s*4", source))
    assert len(sentences) == refusals, "a refusal was added or removed: explain it, and list it here"
    assert [s for s in sentences if s not in source] == []
    assert [s for s in sentences if s not in text] == []


def test_every_module_is_on_the_map():
    """A newcomer should find every module in docs/architecture.md, once, and none that is not there."""
    text = page("docs/architecture.md")
    for package in ("logrelay", "robo_trader"):
        paths = (path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*.py"))
        modules = {path.with_suffix("").as_posix() for path in paths if path.stem not in ("__init__", "__main__")}
        table = text.partition(f"| module of `{package}` |")[2].partition("\n\n")[0]
        cells = (row.split("|")[1] for row in table.splitlines()[2:])
        rows = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]

        assert sorted(rows) == sorted(modules)
        assert len(modules) > 10


def test_every_dependency_is_justified():
    """A dependency nobody can explain should not be there."""
    section = page("docs/architecture.md").partition("## Dependencies")[2].partition("\n## ")[0]
    rows = {m[1]: m[2] for m in re.finditer(r"^\| `([a-z-]+)` \| ([^|]+) \|", section, re.MULTILINE)}
    needs = {}
    for path in (ROOT / "pyproject.toml", CLIENT / "pyproject.toml"):
        project = tomllib.loads(path.read_text("utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        for requirement in [
            *project["dependencies"],
            *(one for extra in ("bot", "nats", "alerts") for one in extras.get(extra, [])),
        ]:
            needs.setdefault(re.match(r"[a-z-]+", requirement)[0], set()).add(project["name"])

    assert len(needs) >= 5
    assert rows.keys() == needs.keys()
    assert {n: set(re.findall(r"`(logrelay-\w+)`", cell)) for n, cell in rows.items() if n != "structlog"} == {
        n: projects for n, projects in needs.items() if n != "structlog"
    }


def test_every_decision_is_linked_from_the_architecture():
    """A page that nothing leads to is not read."""
    text = page("docs/architecture.md")
    pages = [name for name in PAGES if name.startswith("docs/decisions/")]

    assert len(pages) >= 9
    assert [name for name in pages if f"({name.removeprefix('docs/')})" not in text] == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_lead_somewhere(name):
    """A relative link should name a file that exists."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page(name))
    broken = [t for t in links if "://" not in t and not (PAGES[name].parent / t).exists()]

    assert broken == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_make_targets_that_are_named_exist(name):
    """`make something` in the text should be a target with a description."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", page(name), re.MULTILINE))

    assert "test" in targets
    assert named <= targets


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_options_that_are_named_exist(name):
    """A `logrelay serve` option or a LOGRELAY_ variable in the text should be one."""
    variables = {s.variable for s in SETTINGS} | set(OTHER_VARIABLES)
    named = set(re.findall(r"\bLOGRELAY_[A-Z_]*[A-Z]\b", page(name)))
    assert named <= variables

    flags = {s.flag for s in SETTINGS if s.by_flag} | {option for one in serve.params for option in one.opts}
    for line in re.findall(r"logrelay serve ([^`\n]*)", page(name)):
        assert set(re.findall(r"(--[a-z-]+)", line)) <= flags, line


@pytest.mark.parametrize("name", [n for n in sorted(PAGES) if "```python" in page(n)])
def test_the_python_in_the_text_runs(name, tmp_path):
    """Whoever pastes an example should not get an exception."""
    (tmp_path / "logrelay_client").symlink_to(CLIENT)  # as the distribution logrelay-client installs it
    environ = os.environ | {"LOGRELAY_DISABLED": "1", "PYTHONPATH": str(tmp_path)}
    for code in re.findall(r"```python\n(.*?)```", page(name), re.DOTALL):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert done.returncode == 0, done.stderr


EXCLUDED_REALLY = """
import os
import structlog
relay = next(p for p in structlog.get_config()["processors"] if isinstance(p, LogRelayProcessor))
before = relay.stats()
for name in ("audit", "bot.security", "robo_trader.engine"):
    structlog.get_logger(name).warning("a line")
after = relay.stats()
print([after[key] - before[key] for key in ("excluded", "produced")], flush=True)
os._exit(0)  # no relay is there to wait for
"""


@pytest.mark.parametrize("name", ["docs/bots.md", "docs/migrate.md"])
def test_the_examples_with_loggers_of_the_logging_module_exclude(name, tmp_path):
    """`exclude` goes by the logger's name, so the chain of an example should put it into the event."""
    (tmp_path / "logrelay_client").symlink_to(CLIENT)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LOGRELAY_")}
    environ |= {"LOGRELAY_SOCKET": str(tmp_path / "none.sock"), "PYTHONPATH": str(tmp_path)}
    examples = [c for c in re.findall(r"```python\n(.*?)```", page(name), re.DOTALL) if "stdlib.LoggerFactory" in c]
    assert len(examples) == 1
    done = subprocess.run(
        [sys.executable, "-c", examples[0] + EXCLUDED_REALLY],
        env=environ, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip

    excluded = 2
    assert done.stdout.splitlines()[-1:] == [str([excluded, 1])], done.stderr


SAYS_IT_IN_JSON = """
import structlog
structlog.configure(processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info,
                                structlog.processors.JSONRenderer()])
"""
DIES = """
def die():
    raise RuntimeError("of " + threading.current_thread().name)
for end in (die, sys.exit):
    thread = threading.Thread(target=end, name="the thread")
    thread.start()
    thread.join()
raise RuntimeError("of the bot")
"""


def test_the_hooks_of_bots_md_log_last_words():
    """What ends a thread and what ends the bot should be logged, and printed as before; SystemExit is no fault."""
    (example,) = [c for c in re.findall(r"```python\n(.*?)```", page("docs/bots.md"), re.DOTALL) if "excepthook" in c]
    done = subprocess.run(
        [sys.executable, "-c", SAYS_IT_IN_JSON + example + DIES], capture_output=True, text=True, timeout=DEADLINE_S
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [("critical", "exception.unhandled")] * 2
    assert [line["exception"].splitlines()[-1] for line in lines] == [
        "RuntimeError: of the thread", "RuntimeError: of the bot",
    ]  # fmt: skip
    assert (done.returncode, done.stderr.count("Traceback (most recent")) == (1, 2)


def test_the_first_examples_of_the_redaction_are_true():
    """Each line `log.info(...) -> ...` at the top of docs/redaction.md should be what the redactor makes of it."""
    rows = re.findall(r"^    log\.info\((.+)\) +-> +(.+)$", page("docs/redaction.md"), re.MULTILINE)
    assert len(rows) == 3

    for call, result in rows:
        event = eval(f"(lambda event, **fields: {{'event': event, **fields}})({call})")
        clean = Redactor(environ={}).redact(dict(event))
        shown = " ".join([clean["event"], *(f"{name}={value}" for name, value in clean.items() if name != "event")])
        assert (clean == event) if result == "unchanged" else (shown == result)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("password is hunter2", True),
        ("password is gull7", False),
        ("password: gull", True),
        ("password: missing", False),
        ("--password gull7", False),
        ("bot --password gull7", True),
        ("api_key=q7Hx0...", False),
    ],
)
def test_the_sentences_of_the_redaction_are_judged_as_the_page_says(text, hidden):
    """What docs/redaction.md says of sentences and options should be so."""
    assert (Redactor(environ={}).text(text) != text) == hidden
    assert text.split("_")[-1].split("=")[-1].split(": ")[-1] in page("docs/redaction.md")


@pytest.mark.parametrize("name", [n for n in sorted(PAGES) if "```toml" in page(n)])
def test_the_toml_in_the_text_is_a_valid_config(name, tmp_path):
    """Whoever pastes an example should get a relay that starts."""
    for text in re.findall(r"```toml\n(.*?)```", page(name), re.DOTALL):
        (tmp_path / "relay.toml").write_text(text)
        command = [sys.executable, "-m", "logrelay", "check", "--config", str(tmp_path / "relay.toml")]
        environ = os.environ | {"LOGRELAY_PORT": "0", "LOGRELAY_JOURNAL": str(tmp_path / "j.db")}
        (tmp_path / "relay.toml").chmod(0o600)
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr


def test_every_argument_and_number_of_the_trader_s_side_is_documented():
    """docs/bots.md should list what a bot may give, and what it may ask."""
    text = page("docs/bots.md")
    arguments = {
        name
        for kind in (LogRelayProcessor, LogRelayHandler)
        for name in inspect.signature(kind.__init__).parameters
        if name != "self"
    }
    table = text.partition("## Arguments")[2].partition("\n## ")[0]
    numbers = text.partition("## stats()")[2].partition("\n## ")[0]

    assert {name for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE)} == arguments
    named = {name for row in numbers.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)`", row)}
    assert LogRelayProcessor(disabled=True).stats().keys() - named == set()


def test_every_signal_is_documented():
    """What the relay does on a signal should have a row in docs/operations.md, and no other."""
    source = "".join((ROOT / "logrelay" / name).read_text("utf-8") for name in ("app.py", "hangup.py"))
    # `signal.` alone counts: the words of messages are no handlers
    handled = set(re.findall(r"signal\.(SIG[A-Z0-9]+)", source))
    section = page("docs/operations.md").partition("## Signals")[2].partition("\n## ")[0]

    assert {"SIGTERM", "SIGINT", "SIGHUP"} <= handled
    assert set(re.findall(r"^\| (SIG[A-Z0-9]+) \|", section, re.MULTILINE)) == handled


def test_every_state_of_a_notice_is_documented():
    """Whoever acts on a notice goes by its state, and should find it in docs/protocol.md."""
    folders = ("ingest", "journal", "viewers", "access")
    paths = [*(ROOT / "logrelay").glob("*.py"), *(p for f in folders for p in (ROOT / "logrelay" / f).glob("*.py"))]
    sources = [path.read_text("utf-8") for path in paths]
    states = {state for text in sources for state in re.findall(r'"state": "(\w+)"', text)}
    text = page("docs/protocol.md")

    assert len(states) > 12
    assert [state for state in sorted(states) if f"`{state}`" not in text] == []


def test_every_option_of_a_unit_exists():
    """A unit that names an option or a variable that is none would never start, or be set in vain."""
    flags = {s.flag for s in SETTINGS if s.by_flag} | {option for one in serve.params for option in one.opts}
    variables = {s.variable for s in SETTINGS} | set(OTHER_VARIABLES)
    units = sorted((ROOT / "logrelay" / "units").glob("*.service"))
    assert len(units) >= 2
    for unit in units:
        text = unit.read_text("utf-8")
        for command in re.findall(r"^Exec\w+=\S*/logrelay serve(.*)$", text, re.MULTILINE):
            assert set(re.findall(r"(--[a-z-]+)", command)) <= flags, unit.name
        assert set(re.findall(r"^Environment=.*?(LOGRELAY_[A-Z_]+)=", text, re.MULTILINE)) <= variables, unit.name


def test_the_dashboard_and_the_rules_use_metrics_that_exist():
    """A name that is not there shows an empty panel, and a rule that never fires; each rule has a test of its own."""
    folder = ROOT / "docs" / "monitoring"
    known = {metrics.PREFIX + metric.name for metric in metrics.METRICS}
    labels = {metrics.PREFIX + metric.name: {*metric.labels, "instance"} for metric in metrics.METRICS}
    for name in ("rules.yml", "rules.test.yml", "dashboard.json"):
        text = (folder / name).read_text("utf-8").replace('\\"', '"')
        used = set(re.findall(r"\blogrelay_\w+", text))
        assert len(used) > 8
        assert used - known == set(), name
        for metric, inside in re.findall(r"\b(logrelay_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)=", inside)) <= labels[metric], (name, metric)
    rules = (folder / "rules.yml").read_text("utf-8")
    named = set(re.findall(r"- alert: (\w+)", rules))
    tested = set(re.findall(r'alertname="(\w+)"', (folder / "rules.test.yml").read_text("utf-8")))
    assert len(named) > 10
    assert tested == named


def test_the_limits_in_the_text_are_those_of_the_code():
    """docs/upkeep.md, "Limits of every request"."""
    section = page("docs/upkeep.md").partition("## Limits of every request")[2].partition("\n## ")[0]
    rows = [row.split("|")[2] for row in section.splitlines() if row.startswith("| ")][1:]
    numbers = [
        (request_head.MAX_LINE_BYTES >> 10, request_head.MAX_HEAD_BYTES >> 10, request_head.MAX_FIELDS),
        (request_head.MAX_WEBSOCKET_BYTES >> 10,), (int(connection.HANDSHAKE_TIMEOUT_S),),
        (connection.MAX_DROPPED_BYTES >> 20,), (log_query.MAX_FIELDS,), (log_query.DEFAULT_LIMIT, log_query.MAX_LIMIT),
        (log_query.DEFAULT_AROUND,), (budgets.SEARCHES,),
        (int(plain_answer.STREAM_TIMEOUT_S), int(budgets.STALLED_ANSWER_S), budgets.SEARCHES), (),
        (websocket.MAX_REQUEST_BYTES >> 10,), (int(budgets.MESSAGES_PER_S), int(budgets.MESSAGES_AT_ONCE)),
        (int(server.PING_INTERVAL_S),),
    ]  # fmt: skip
    assert len(rows) == len(numbers) + 1
    for row, wanted in zip(rows, numbers, strict=False):
        found = set(map(int, re.findall(r"\d+", row)))
        assert set(wanted) <= found, row


def test_the_changelog_begins_with_what_is_unreleased():
    """The next release should be written as it grows."""
    assert re.search(r"^## \[?Unreleased", page("CHANGELOG.md"), re.MULTILINE)


if __name__ == "__main__":
    operations = PAGES["docs/operations.md"]
    for name, table in TABLES.items():
        begin, end = markers(name)
        before, _, rest = operations.read_text("utf-8").partition(begin)
        operations.write_text(before + begin + table() + end + rest.partition(end)[2], "utf-8")
