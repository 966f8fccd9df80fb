"""One word, one meaning: the glossary's terms are used, and words that were given up do not come back."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
SKIPPED = {
    "docs/glossary.md",
    "tests/contract/test_glossary.py",
    "robo_trader/log_relay/seed_words.py",
    "tests/unit/log_relay/secret_lines.py",
}
"""They have to name the words that were given up; the last two hold the words of a standard and of bots."""
NO_SOURCES = {"__pycache__", "dist", "build", "node_modules"}
"""Folders that hold nothing written by hand, for where git cannot say so; those with a dot are left out too."""
DOTTED = {".ci", ".importlinter", ".pre-commit-config.yaml", ".gitignore"}
"""What begins with a dot and is written by hand all the same."""


def sources():
    """Yield the path from the root of every file of the repository: what git tracks, or without git what is there."""
    git = shutil.which("git")
    if git and (ROOT / ".git").exists():
        listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            yield from filter(None, listed.stdout.split("\0"))
            return
    for folder, folders, files in os.walk(ROOT):
        below = Path(folder).relative_to(ROOT)
        folders[:] = [f for f in folders if f in DOTTED or not (f in NO_SOURCES or f.startswith(".") or "." in f)]
        yield from ((below / f).as_posix() for f in files if f in DOTTED or not f.startswith("."))


def texts():
    """Return every text of the repository by its path; pictures and the like are no texts."""
    found = {}
    for name in sorted(sources()):
        if name not in SKIPPED and (ROOT / name).is_file():
            with contextlib.suppress(UnicodeDecodeError):
                found[name] = (ROOT / name).read_text("utf-8")
    return found


TEXTS = texts()
PACKAGES = {name: text for name, text in TEXTS.items() if name.startswith(("logrelay/", "robo_trader/", "docs/"))}
"""What the product consists of: names of code and the use of terms are looked at there, words everywhere."""
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

RETIRED_JS_NAMES = {"patience", "hold", "heldBy", "held", "say", "settle"}
"""The same for the web viewer's scripts; there a name may have `#` in front of it."""

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


def test_the_whole_repository_is_read():
    """A text that is not read would keep its retired words."""
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", ".ci/run", "tests/conftest.py"} <= TEXTS.keys()


@pytest.mark.parametrize("term", TERMS)
def test_every_term_is_used(term):
    """A term that neither code nor docs use should not be learnt."""
    words = r"[\s_-]*".join(map(re.escape, re.split(r"[ -]", term)))
    pattern = re.compile(rf"(?<![a-z]){words}(?:e?s)?(?![a-z])", re.IGNORECASE)

    assert [name for name, text in PACKAGES.items() if pattern.search(text)]


@pytest.mark.parametrize("word", RETIRED_WORDS)
def test_a_retired_word_is_gone(word):
    """A word that was given up should be nowhere in the repository: code, docs, tests, build files."""
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
    for path, text in PACKAGES.items():
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


def names_in_script(text):
    """Yield name and line of every identifier of a script; comments and the words of strings are no names."""
    code = re.sub(
        r"""/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""",
        lambda found: "\n" * found.group().count("\n"),
        text,
        flags=re.DOTALL,
    )
    for number, line in enumerate(code.splitlines(), 1):
        for name in re.findall(r"[A-Za-z_$][\w$]*", line):
            yield name, number


def test_retired_names_are_gone_from_the_scripts():
    """The web viewer should use the same words as the relay."""
    scripts = {path: text for path, text in PACKAGES.items() if path.endswith((".js", ".ts"))}
    found = [
        f"{path}:{line} {name}"
        for path, text in scripts.items()
        for name, line in names_in_script(text)
        if name in RETIRED_JS_NAMES
    ]

    assert scripts
    assert found == []


def test_names_of_a_script_are_found():
    """A private field and a method are names; a comment and a string are not."""
    script = "/* hold */ class C {\n  #hold = 'say'; // patience\n  say() { return \"held\"; }\n}"

    assert [named for named in names_in_script(script) if named[0] in RETIRED_JS_NAMES] == [("hold", 2), ("say", 3)]
