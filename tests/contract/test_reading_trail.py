"""The reading trail: each module says which to read next, and whoever follows a line visits every step of its way.

A sentence that begins with "Read" and says "next" names one or several files in backticks: of the same folder
(`batch`), of the same package (`journal/sqlite`, `static/main.js`), or from the top (`logrelay/ingest/server`). A
folder stands for its `__init__`. A module without such a sentence says "The reading trail ends here."
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
START = "robo_trader/logger"

STEPS = [
    "robo_trader/logger",
    "robo_trader/logging/chain",
    "robo_trader/logging/bound_logger",
    "robo_trader/logging/redaction",
    "robo_trader/log_relay/processor",
    "robo_trader/log_relay/records",
    "robo_trader/log_relay/serializer",
    "robo_trader/log_relay/frames",
    "robo_trader/log_relay/outbox",
    "robo_trader/log_relay/sender",
    "logrelay/ingest/server",
    "logrelay/ingest/connection",
    "logrelay/ingest/frames",
    "logrelay/ingest/trader_registry",
    "logrelay/ingest/sequencer",
    "logrelay/fanout/line_json",
    "logrelay/pipeline",
    "logrelay/journal/interface",
    "logrelay/journal/writer_thread",
    "logrelay/journal/sqlite",
    "logrelay/journal/row_writer",
    "logrelay/fanout/hub",
    "logrelay/fanout/batch",
    "logrelay/viewers/server",
    "logrelay/viewers/connection",
    "logrelay/viewers/service",
    "logrelay/viewers/session",
    "logrelay/viewers/requests",
    "logrelay/viewers/messages",
    "logrelay/static/client.js",
    "logrelay/static/main.js",
    "logrelay/static/list.js",
]
"""The way of a line, from the log call to the phone."""

END = "The reading trail ends here."


def files() -> dict[str, Path]:
    """Return every module by its path without `.py` (`logrelay/journal` for a package), and the page's scripts."""
    found = {}
    for package in ("logrelay", "robo_trader"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).with_suffix("").as_posix()
            found[name.removesuffix("/__init__")] = path
    for path in sorted((ROOT / "logrelay" / "static").glob("*.js")):
        found[path.relative_to(ROOT).as_posix()] = path
    return found


FILES = files()


def charter(name: str) -> str:
    """Return a module's docstring, or the comment a script begins with, as one line of text."""
    text = FILES[name].read_text("utf-8")
    if name.endswith(".js"):
        block = re.match(r"\s*(?:/\*(.*?)\*/|((?:\s*//[^\n]*\n)+))", text, re.DOTALL)
        text = (block[1] or block[2]) if block else ""
        text = re.sub(r"^\s*(//|\*)", "", text, flags=re.MULTILINE)
    else:
        text = ast.get_docstring(ast.parse(text)) or ""
    return " ".join(text.split())


def said(name: str) -> list[str]:
    """Return the names in a module's "Read ... next" sentences, as they are written."""
    # A dot inside backticks (`static/main.js`) ends no sentence.
    sentences = re.findall(r"(?:^|(?<=[.:?] ))Read\b((?:`[^`]*`|[^.`])*)", charter(name))
    return [
        target
        for sentence in sentences
        if re.search(r"\bnext\b", sentence)
        for target in re.findall(r"`([^`]+)`", sentence)
    ]


def resolve(name: str, target: str) -> str | None:
    """Return the file that a name in `name`'s charter stands for, or None."""
    package = name.partition("/")[0]
    folder = name if FILES[name].name == "__init__.py" else name.rpartition("/")[0]
    for found in (f"{folder}/{target}", f"{package}/{target}", target):
        if found in FILES:
            return found
    return None


@pytest.mark.parametrize("name", FILES)
def test_a_module_says_what_to_read_next(name):
    """Whoever has read it should know where to go, or that the trail ends there."""
    assert said(name) or END in charter(name), charter(name)[:300] or "there is no docstring"


@pytest.mark.parametrize("name", FILES)
def test_what_is_to_be_read_next_exists(name):
    """A module that was renamed should be renamed in the trail, too."""
    assert [target for target in said(name) if resolve(name, target) is None] == []


def test_the_trail_visits_every_step_of_a_line_s_way():
    """Starting from what a bot imports, one sentence after the other should lead to the page on the phone."""
    reached, todo = set(), [START]
    while todo:
        name = todo.pop()
        if name in reached or name not in FILES:
            continue
        reached.add(name)
        todo += [found for target in said(name) if (found := resolve(name, target)) is not None]

    assert [step for step in STEPS if step not in FILES] == [], "steps that are no files"
    assert [step for step in STEPS if step not in reached] == [], "steps that the trail does not visit"
