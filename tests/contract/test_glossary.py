"""One word, one meaning: the glossary's terms are used, and words that were given up do not come back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
SUFFIXES = {".py", ".md", ".js", ".ts", ".css", ".html", ".service", ".socket", ".sysusers", ".toml"}
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for folder in ("logrelay", "robo_trader", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix in SUFFIXES and path != GLOSSARY and path.name != "seed_words.py"
}
"""Without the glossary itself, and without the list of words that a standard gives."""
TERMS = re.findall(r"^\*\*(.+)\*\*: ", GLOSSARY.read_text("utf-8"), re.MULTILINE)

RETIRED_WORDS = {
    "desk": r"desks?",  # the viewer service
    "door": r"doors?",  # the access policy, a server, a socket
    "admission": r"admissions?",  # an HTTP response
    "bell": r"bells?|bell_\w+",  # the descriptor that wakes the sender
    "hush": r"hush\w*",
    "manned": r"(?:un)?manned",
    "untold": r"untold",  # unreported
    "errand": r"errands?",  # delegated work
    "hopeless": r"hopeless\w*",  # fatal
    "lose patience": r"los(?:e|es|ing|t)[ _]patience",  # a deadline
    "mind room": r"mind(?:s|ing|ed)?[ _](?:the[ _])?room",
}
"""What to search for, in code, comments and docs, in either case and also behind an underscore."""

RETIRED_NAMES = {"_of", "_ring", "hold", "held", "settle", "settled", "say"}
"""Words that are good English but stood for several things as names of code."""

RETIRED_ALIASES = set(
    "access calls daemon desk kinds lending link messages pace pages place plain plan record relay rows runner search "
    "traders trouble wire writer".split()
)
"""What modules were called before; `import x as y` must not bring it back."""


def test_every_term_is_defined_once():
    """A reader should find one definition, of one or two sentences."""
    assert len(TERMS) > 40
    assert sorted(TERMS) == sorted(set(TERMS))
    for line in GLOSSARY.read_text("utf-8").splitlines():
        assert len(re.findall(r"\.(?= [A-Z]|$)", line)) <= 3, line


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_used(term):
    """A term that neither code nor docs use should not be learnt."""
    words = r"[\s_-]*".join(map(re.escape, re.split(r"[ -]", term)))
    pattern = re.compile(rf"(?<![a-z]){words}(?:e?s)?(?![a-z])", re.IGNORECASE)

    assert [name for name, text in TEXTS.items() if pattern.search(text)]


@pytest.mark.parametrize("word", RETIRED_WORDS)
def test_a_retired_word_is_gone(word):
    """A word that was given up should be neither in code nor in docs."""
    pattern = re.compile(rf"(?<![a-z])(?:{RETIRED_WORDS[word]})(?![a-z])", re.IGNORECASE)
    found = [
        f"{name}:{number}"
        for name, text in TEXTS.items()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]

    assert found == []


def names(tree):
    """Every name that a module gives to something: variables, attributes, arguments, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def test_retired_names_are_gone():
    """A name that stood for several things should not be given again, nor a module be called by its old name."""
    found = []
    retired = RETIRED_NAMES | {f"_{name}" for name in RETIRED_NAMES}
    for path, text in TEXTS.items():
        if not path.endswith(".py"):
            continue
        tree = ast.parse(text)
        if not path.startswith(
            ("robo_trader/trading/", "robo_trader/logging/")
        ):  # a position is held there, a value too
            found += [f"{path}:{line} {name}" for name, line in names(tree) if name in retired]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                found += [f"{path}:{node.lineno} as {a.asname}" for a in node.names if a.asname in RETIRED_ALIASES]

    assert found == []
