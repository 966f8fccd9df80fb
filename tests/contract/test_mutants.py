"""The files of `make mutants` can be read and speak of code that exists; running it is a developer's business."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "mutation"
MODULES = tomllib.loads((FOLDER / "modules.toml").read_text())["modules"]
HARMLESS = tomllib.loads((FOLDER / "harmless.toml").read_text())["harmless"]


def squeezed(text):
    return " ".join(text.split())


def source_of(module, function):
    """Return the text of a function or class given by its qualified name; of the whole module for an empty one."""
    source = (ROOT / module).read_text()
    node = ast.parse(source)
    for name in function.split(".") if function else ():
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        inside = [part for part in ast.walk(node) if isinstance(part, kinds) and part.name == name]
        assert inside, f"{module} has no {function}"
        node = inside[0]
    if not function:
        return source
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


@pytest.mark.parametrize("module", MODULES)
def test_the_modules_and_their_tests_exist(module):
    """Every module that is mutated is there and has a test by the mirror rule or a named one; named tests exist."""
    path = Path(module)
    assert (ROOT / path).is_file()
    folder = ROOT / "tests" / "unit" / Path(*path.parts[1:-1])
    mirrored = [*folder.glob(f"test_{path.stem}.py"), *folder.glob(f"test_{path.stem}_*.py")]
    assert mirrored or MODULES[module], f"no test belongs to {module}"
    for test in MODULES[module]:
        file, _, name = test.partition("::")
        assert (ROOT / file).is_file(), test
        assert not name or source_of(file, name.replace("::", ".")), test


@pytest.mark.parametrize("entry", HARMLESS, ids=lambda entry: f"{entry['module']}:{entry['function']}")
def test_a_harmless_mutant_is_named_with_code_that_exists_and_a_reason(entry):
    """A list that names what is no longer there would hide that nobody looked."""
    assert set(entry) == {"module", "function", "line", "mutated", "reason"}
    assert entry["module"] in MODULES
    assert entry["line"] == squeezed(entry["line"])
    assert entry["line"] in squeezed(source_of(entry["module"], entry["function"])), entry["line"]
    assert entry["mutated"]
    assert len(entry["mutated"]) == len(set(entry["mutated"]))
    assert entry["line"] not in entry["mutated"]
    assert len(entry["reason"].split()) >= 4, "a reason says why nobody could see the difference"


def test_no_mutant_is_named_twice():
    """Two reasons for one mutant would be one too many."""
    keys = [(e["module"], e["function"], e["line"], mutated) for e in HARMLESS for mutated in e["mutated"]]
    assert len(keys) == len(set(keys))
