"""`make mutants`: put small faults into the code, one by one, and see whether the tests notice.

    make mutants                        every module in modules.toml
    make mutants ARGS=batch             the modules whose path holds "batch"
    make mutants ARGS='batch --list'    and name every survivor
    make mutants ARGS=--survivors       try again only what survived the last time, after tests were added
    make mutants ARGS=--fresh           forget what is known
    make mutants ARGS=--jobs=2          so many modules at a time

What is known is kept in `.mutants`, as long as module and tests stay as they are, so that an interrupted run goes on
where it was, and a run after a change does only what changed. Exit status 1: a module is under the least score, the
list of harmless ones names a mutant that does not exist, or the tests fail without a mutant.

All of it takes hours on two busy cores and less than one on an idle machine; one module takes seconds to minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mutation import mutants as making
from tests.mutation.mutants import Mutant
from tests.mutation.runner import INVALID, ROOT, SURVIVED, BrokenBaseline, run_module

HERE = Path(__file__).parent
STORE = ROOT / ".mutants"
LEAST_SCORE = 90.0
"""Per cent of a module's mutants, harmless ones aside, that the tests must notice."""

Key = tuple[str, str, str, str]


@dataclass(slots=True)
class Result:
    """What is known of one module."""

    module: str
    total: int = 0
    killed: int = 0
    survived: int = 0
    harmless: int = 0
    stale: int = 0
    broken: str = ""
    unfinished: bool = False

    @property
    def score(self) -> float:
        """Per cent killed of those that count."""
        counted = self.killed + self.survived
        return 100.0 * self.killed / counted if counted else 100.0


def tests_of(module: str, further: list[str]) -> list[str]:
    """Return the test files of a module: those of the mirror rule, then those named."""
    path = Path(module)
    folder = ROOT / "tests" / "unit" / Path(*path.parts[1:-1])
    mirrored = sorted(str(found.relative_to(ROOT)) for found in folder.glob(f"test_{path.stem}*.py"))
    # test_frames.py is not a test of `frame`, nor test_sqlite_errors.py one of `sqlite`.
    others = {other.stem for other in path.parent.glob("*.py") if other.stem.startswith(f"{path.stem}_")}
    own = [t for t in mirrored if not any(Path(t).stem.startswith(f"test_{other}") for other in others)]
    own = [t for t in own if Path(t).stem == f"test_{path.stem}" or Path(t).stem.startswith(f"test_{path.stem}_")]
    return own + [test for test in further if test not in own]


def harmless_keys() -> dict[Key, str]:
    """Read the list of harmless mutants; returns the reason of each."""
    read = tomllib.loads((HERE / "harmless.toml").read_text())
    return {
        (entry["module"], entry["function"], entry["line"], mutated): entry["reason"]
        for entry in read["harmless"]
        for mutated in entry["mutated"]
    }


def fingerprint(module: str, tests: list[str]) -> str:
    """Hash what the outcome of a mutant depends on most: module, its tests, what tests share."""
    named = [ROOT / test.partition("::")[0] for test in tests]
    files = [ROOT / module, *named]
    files += sorted((ROOT / "tests" / "support").glob("*.py"))
    files += [c for t in named for c in [t.parent / "conftest.py"] if c.exists()]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Store:
    """What is known of a module's mutants, one line of JSON each."""

    def __init__(self, module: str, mark: str, *, fresh: bool, survivors: bool) -> None:
        self.path = STORE / (module.replace("/", ".") + ".jsonl")
        self.known: dict[str, tuple[str, str]] = {}
        lines = self.path.read_text().splitlines() if self.path.exists() and not fresh else []
        same = bool(lines) and lines[0] == mark
        for line in lines[1:] if same or survivors else []:
            name, outcome, test = json.loads(line)
            if (same and not survivors) or outcome != SURVIVED:
                self.known[name] = (outcome, test)
        STORE.mkdir(exist_ok=True)
        temporary = self.path.with_suffix(".new")
        temporary.write_text("".join([mark + "\n", *(self._line(n, o, t) for n, (o, t) in self.known.items())]))
        temporary.replace(self.path)

    @staticmethod
    def _line(name: str, outcome: str, test: str) -> str:
        return json.dumps([name, outcome, test]) + "\n"

    def add(self, name: str, outcome: str, test: str) -> None:
        """Remember, also if we are interrupted."""
        self.known[name] = (outcome, test)
        with self.path.open("a") as file:
            file.write(self._line(name, outcome, test))


def named(mutants: list[Mutant]) -> Iterator[tuple[str, Mutant]]:
    """Name mutants by their keys; the same change of the same text in one function gets a count behind it."""
    seen: Counter[Key] = Counter()
    for mutant in mutants:
        seen[mutant.key] += 1
        yield " | ".join((*mutant.key, str(seen[mutant.key]))), mutant


def run(
    module: str, tests: list[str], options: argparse.Namespace, harmless: dict[Key, str]
) -> tuple[Result, list[str]]:
    """Run what is not known of one module; returns the sums, and lines about survivors."""
    mutants = dict(named(making.make(module, (ROOT / module).read_text())))
    names = {id(mutant): name for name, mutant in mutants.items()}
    store = Store(module, fingerprint(module, tests), fresh=options.fresh, survivors=options.survivors)
    todo = [mutant for name, mutant in mutants.items() if name not in store.known]
    result, began, done = Result(module, len(mutants)), time.monotonic(), Counter()

    def report(mutant: Mutant, outcome: str, test: str) -> None:
        store.add(names[id(mutant)], outcome, test)
        done[outcome] += 1
        count = sum(done.values())
        if sys.stderr.isatty() or count % 50 == 0 or count == len(todo):
            pace = (time.monotonic() - began) / count
            print(
                f"{module}: {count}/{len(todo)}, {done[SURVIVED]} survived, {pace * (len(todo) - count):.0f} s to go",
                end="\r" if sys.stderr.isatty() else "\n",
                file=sys.stderr,
                flush=True,
            )

    if todo:
        log = STORE / (module.replace("/", ".") + ".log")
        log.write_text("")
        try:
            run_module(module, tests, todo, log, report)
        except BrokenBaseline as error:
            result.broken = str(error)
    lines = []
    for name, mutant in mutants.items():
        outcome, why = store.known.get(name, (SURVIVED, "not run"))
        if outcome == INVALID:
            result.total -= 1
        elif outcome != SURVIVED:
            result.killed += 1
        elif mutant.key in harmless:
            result.harmless += 1
        else:
            result.survived += 1
            lines.append(
                f"{module}:{mutant.lineno} {mutant.function or 'module'} {f'({why})' if why else ''}\n"
                f"  - {mutant.line}\n  + {mutant.mutated}"
            )
    exist = {mutant.key for mutant in mutants.values()}
    for key in harmless:
        if key[0] == module and key not in exist:
            result.stale += 1
            lines.append(f"harmless.toml names a mutant that does not exist:\n  {' | '.join(key)}")
    return result, lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Put faults into the code and see who notices.")
    parser.add_argument("modules", nargs="*", help="parts of the paths of modules; none: all")
    parser.add_argument("--list", action="store_true", help="name every survivor")
    parser.add_argument("--fresh", action="store_true", help="forget what is known")
    parser.add_argument("--survivors", action="store_true", help="try only survivors of the last run again")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="modules at a time (1)")
    options = parser.parse_args()
    os.chdir(ROOT)
    table = tomllib.loads((HERE / "modules.toml").read_text())["modules"]
    chosen = {m: t for m, t in table.items() if not options.modules or any(part in m for part in options.modules)}
    if not chosen:
        parser.error(f"no module of {HERE / 'modules.toml'} fits")
    harmless = harmless_keys()
    results: list[Result] = []
    waiting = list(chosen.items())
    running: dict[int, int] = {}
    while waiting or running:
        while waiting and len(running) < max(1, options.jobs):
            module, further = waiting.pop(0)
            read, write = os.pipe()
            pid = os.fork()
            if not pid:
                os.close(read)
                answer = run(module, tests_of(module, further), options, harmless)
                with os.fdopen(write, "w") as out:
                    result, lines = answer
                    json.dump([[getattr(result, name) for name in Result.__slots__], lines], out)
                os._exit(0)
            os.close(write)
            running[pid] = read
        pid, _ = os.wait()
        if pid in running:
            with os.fdopen(running.pop(pid)) as answer:
                text = answer.read()
            if not text:
                return 1
            values, lines = json.loads(text)
            results.append(Result(*values))
            if options.list or options.modules:
                print("\n".join(lines))
    return show(results, {key for key in harmless if key[0] not in table})


def show(results: list[Result], strange: set[Key]) -> int:
    """Print the table; returns the exit status."""
    print(f"\n{'module':45} {'mutants':>8} {'killed':>7} {'survived':>9} {'harmless':>9} {'score':>7}")
    failed = bool(strange)
    for result in sorted(results, key=lambda r: r.module):
        note = ""
        if result.broken:
            note = f"  {result.broken}"
        elif result.stale:
            note = f"  {result.stale} in harmless.toml do not exist"
        elif result.score < LEAST_SCORE:
            note = "  too few"
        failed = failed or bool(note)
        print(
            f"{result.module:45} {result.total:8} {result.killed:7} {result.survived:9} {result.harmless:9} "
            f"{result.score:6.1f}%{note}"
        )
    sums = Result("all", *(sum(getattr(r, n) for r in results) for n in ("total", "killed", "survived", "harmless")))
    print(f"{'all':45} {sums.total:8} {sums.killed:7} {sums.survived:9} {sums.harmless:9} {sums.score:6.1f}%")
    for key in sorted(strange):
        print(f"harmless.toml names {key[0]}, which modules.toml does not")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
