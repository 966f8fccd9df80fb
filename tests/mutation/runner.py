"""Runs the mutants of one module, each in a forked process, with the tests that reach the mutated line.

Owns: the processes. It must not know what a good score is. Read `__main__` next.

Starting pytest and importing the project costs more than the tests of one mutant, so it is done once: pytest collects
the tests of the module, every test is run once under a tracer that notes which lines of the module it reaches, and
then one child is forked per mutant. It gives the mutated function of the loaded module its new code and runs the tests
that reach its line, first those that noticed a neighbour, then the fastest, until one fails. A mutant that takes effect
at import (module level, a default, a decorator) gets a child that imports the mutated file before it collects.
"""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.util
import json
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FunctionType

import hypothesis
import pytest

from tests.mutation.mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]

LEAST_CPU_S, CPU_FACTOR = 1.0, 4
"""A mutant that computes four times as long as its tests do without it, and a second more, is caught in a loop, which
counts as killed. It is processor time because a busy machine does not change that."""
LEAST_WAIT_S, WAIT_FACTOR = 30.0, 20
"""The same in wall time, for one that waits for ever; very wide, because the machine may be busy."""
MEMORY_BYTES = 1 << 30
"""What a mutant may allocate beyond what collecting took: some loops append."""

KILLED, SURVIVED, TIMEOUT, INVALID = "killed", "survived", "timeout", "invalid"
"""`invalid`: not Python; left out of the count."""

ARGS = [
    "-q",
    "-x",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "-p",
    "no:randomly",
    "-p",
    "no:cacheprovider",
    "-o",
    "addopts=--import-mode=importlib",
]

PROFILE = "mutation"
"""Name of the hypothesis profile."""


def use_fast_hypothesis() -> None:
    """Find a failing example without shrinking or explaining it, the same one in every process."""
    hypothesis.settings.register_profile(
        PROFILE,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile(PROFILE)


class BrokenBaseline(Exception):
    """The tests of a module fail without any mutant."""


def run_module(
    module: str, tests: list[str], mutants: list[Mutant], log: Path, report: Callable[[Mutant, str, str], None]
) -> None:
    """Run `mutants` of the file `module`; `report(mutant, outcome, first failing test)` is called for each.

    Forks: call it in a process without threads that has not imported the project. Raises BrokenBaseline.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        os.setsid()
        _collect_and_fork(module, tests, mutants, log, write)
        os._exit(0)
    os.close(write)
    late: list[Mutant] = []
    try:
        with os.fdopen(read) as lines:
            for line in lines:
                number, outcome, test = json.loads(line)
                if outcome == "broken":
                    raise BrokenBaseline(test)
                if outcome == "late":
                    late.append(mutants[number])
                else:
                    report(mutants[number], outcome, test)
    finally:
        _end_group(pid)
    source = (ROOT / module).read_text()
    cpu, began = _children_cpu(), time.monotonic()
    outcome, test = _in_child(lambda out: _import_and_run(module, source, tests, out), 600, 3600, log)
    if outcome != SURVIVED:
        raise BrokenBaseline(test)
    usual = _children_cpu() - cpu, time.monotonic() - began
    for mutant in late:
        text = mutant.apply(source)
        if _compiled(text, module) is None:
            report(mutant, INVALID, "")
            continue
        outcome, test = _in_child(lambda out, text=text: _import_and_run(module, text, tests, out), *usual, log)
        report(mutant, outcome, test)


# --- mutants inside functions ----------------------------------------------------------------------------------------


def _collect_and_fork(module: str, tests: list[str], mutants: list[Mutant], log: Path, write: int) -> None:
    """Collect once, then fork a child for each mutant."""
    _quiet(log)
    tracer = _Tracer(str(ROOT / module))
    try:
        use_fast_hypothesis()
        with tracer:
            plugin = _Plugin(module, mutants, write, tracer, log)
            code = pytest.main([*ARGS, f"--basetemp={log.with_suffix('.tmp')}", *tests], plugins=[plugin])
        if not plugin.ran:
            _tell(write, -1, "broken", f"pytest ended with {code}, see {log}")
    except BaseException:
        _tell(write, -1, "broken", traceback.format_exc())


class _Plugin:
    """Takes the place of pytest's loop over the tests."""

    def __init__(self, module: str, mutants: list[Mutant], write: int, tracer: _Tracer, log: Path) -> None:
        self.module, self.mutants, self.write, self.tracer, self.log = module, mutants, write, tracer, log
        self.ran = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.ran = True
        if session.testsfailed:
            _tell(self.write, -1, "broken", f"the tests cannot be collected, see {self.log}")
            return True
        imported = set(self.tracer.lines)
        self.tracer.stop()
        reached, seconds = self._measure(session)
        if reached is None:
            return True
        source = (ROOT / self.module).read_text()
        functions = _functions(str(ROOT / self.module))
        statements = _statement_lines(source)
        items = {item.nodeid: item for item in session.items}
        # What was collected stays for all children: without this their garbage collectors copy every page of it.
        gc.collect()
        gc.freeze()
        # Tests that noticed a mutant of a function come first for the next one.
        noticed: dict[str, set[str]] = defaultdict(set)
        for number, mutant in enumerate(self.mutants):
            if mutant.outer is None or mutant.lineno in imported or mutant.outer not in functions:
                _tell(self.write, number, "late", "")
                continue
            # Compiled here and not in the child: this is half of what a mutant costs.
            made = _compiled(mutant.apply(source), str(ROOT / self.module))
            if made is None:
                _tell(self.write, number, INVALID, "")
                continue
            # A statement over several lines is traced at some of them only.
            lines = statements.get(mutant.lineno, set())
            chosen = [test for test in reached if mutant.lineno in reached[test] or reached[test] & lines]
            chosen.sort(key=lambda test: (test not in noticed[mutant.function], seconds[test]))
            if not chosen:
                _tell(self.write, number, SURVIVED, "no test reaches it")
                continue
            usual = [sum(seconds[test][n] for test in chosen) for n in (0, 1)]

            def child(out: int, mutant: Mutant = mutant, made: CodeType = made, chosen: list[str] = chosen) -> None:
                if not _exchange(functions, mutant, made):
                    _tell(out, 0, "late", "")
                    return
                failed = _run_items([items[test] for test in chosen])
                _tell(out, 0, KILLED if failed else SURVIVED, failed or "")

            outcome, test = _in_child(child, *usual, self.log)
            if outcome == KILLED:
                noticed[mutant.function].add(test)
            _tell(self.write, number, outcome, test)
        return True

    def _measure(self, session: pytest.Session) -> tuple[dict[str, set[int]] | None, dict[str, list[float]]]:
        """Run every test once without a mutant; return the lines of the module each reaches, and how long it took."""
        reached: dict[str, set[int]] = {}
        seconds: dict[str, list[float]] = {}
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(read)
            for item in session.items:
                with self.tracer:
                    cpu, began = time.process_time(), time.monotonic()
                    failed = _run_items([item])
                    took = time.process_time() - cpu, time.monotonic() - began
                os.write(write, json.dumps([item.nodeid, sorted(self.tracer.lines), took, failed]).encode() + b"\n")
                if failed:
                    break
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as lines:
            for line in lines:
                test, numbers, took, failed = json.loads(line)
                reached[test], seconds[test] = set(numbers), took
                if failed:
                    _tell(self.write, -1, "broken", f"{failed} fails without a mutant, see {self.log}")
                    os.waitpid(pid, 0)
                    return None, seconds
        os.waitpid(pid, 0)
        if len(reached) < len(session.items):
            _tell(self.write, -1, "broken", f"the tests end in the middle, see {self.log}")
            return None, seconds
        return reached, seconds


def _run_items(items: list[pytest.Item]) -> str | None:
    """Run tests until one fails; return its name."""
    watch = _Watch()
    manager = items[0].config.pluginmanager
    manager.register(watch)
    try:
        for at, item in enumerate(items):
            following = items[at + 1] if at + 1 < len(items) else None
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if watch.failed:
                return watch.failed
    finally:
        manager.unregister(watch)
    return None


class _Watch:
    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


class _Tracer:
    """Notes which lines of one file are run, in every thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: set[int] = set()

    def __enter__(self) -> None:
        self.lines.clear()
        threading.settrace(self._call)
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _call(self, frame, event, arg):
        if frame.f_code.co_filename != self.path:
            return None
        self.lines.add(frame.f_lineno)
        return self._line

    def _line(self, frame, event, arg):
        self.lines.add(frame.f_lineno)
        return self._line


def _functions(path: str) -> dict[tuple[int, str], list[FunctionType]]:
    """Find every loaded function that was defined in a file, by first line and name."""
    found: dict[tuple[int, str], list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename == path:
            found[thing.__code__.co_firstlineno, thing.__code__.co_name].append(thing)
    return found


def _exchange(functions: dict[tuple[int, str], list[FunctionType]], mutant: Mutant, made: CodeType) -> bool:
    """Give the loaded function its mutated code. False: that is not possible in a loaded module."""
    assert mutant.outer is not None
    for code in _codes(made):
        if (code.co_firstlineno, code.co_name) == mutant.outer:
            try:
                for function in functions[mutant.outer]:
                    function.__code__ = code
            except ValueError:  # another number of free variables
                return False
            return True
    return False


def _codes(code: CodeType) -> Iterable[CodeType]:
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield const
            yield from _codes(const)


def _statement_lines(source: str) -> dict[int, set[int]]:
    """Return for each line the lines of the smallest statement it is in."""
    found: dict[int, set[int]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            lines = set(range(node.lineno, (node.end_lineno or 0) + 1))
            for line in lines:
                if line not in found or len(lines) < len(found[line]):
                    found[line] = lines
    return found


# --- mutants that take effect at import ------------------------------------------------------------------------------


def _import_and_run(module: str, text: str, tests: list[str], out: int) -> None:
    use_fast_hypothesis()
    name = module.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    sys.meta_path.insert(0, _Mutated(name, str(ROOT / module), text))
    watch = _Watch()
    code = pytest.main([*ARGS, f"--basetemp={ROOT / '.mutants' / f'{os.getpid()}.tmp'}", *tests], plugins=[watch])
    _tell(out, 0, SURVIVED if code == 0 else KILLED, watch.failed or str(code))


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports one module from a text."""

    def __init__(self, name: str, path: str, text: str) -> None:
        self.name, self.path, self.text = name, path, text

    def find_spec(self, fullname, path, target=None):
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        return self.text.encode()

    def path_stats(self, path):
        raise OSError  # no cached bytecode


# --- processes -------------------------------------------------------------------------------------------------------


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _in_child(work: Callable[[int], None], cpu_s: float, wait_s: float, log: Path) -> tuple[str, str]:
    """Fork, do `work`, which tells an outcome; a child that ends without one was killed by the mutant.

    `cpu_s` and `wait_s` are what the tests take without a mutant.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.close(read)
            os.setsid()
            _quiet(log)
            cpu = int(LEAST_CPU_S + CPU_FACTOR * cpu_s)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, size + MEMORY_BYTES))
            work(write)
        finally:
            os._exit(0)
    os.close(write)
    deadline = time.monotonic() + LEAST_WAIT_S + WAIT_FACTOR * wait_s
    data = b""
    try:
        while not data.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([read], [], [], left)[0]:
                return TIMEOUT, ""
            chunk = os.read(read, 65536)
            if not chunk:
                return KILLED, "the process ended"
            data += chunk
    finally:
        os.close(read)
        _end_group(pid)
    _, outcome, test = json.loads(data)
    return outcome, test


def _end_group(pid: int) -> None:
    """End a child and whatever it started; it leads a session of its own and is not yet waited for."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        try:
            os.kill(pid, signal.SIGKILL)  # has not made its group yet
        except ProcessLookupError:
            pass
    os.waitpid(pid, 0)


def _tell(out: int, number: int, outcome: str, test: str) -> None:
    os.write(out, json.dumps([number, outcome, test]).encode() + b"\n")


def _quiet(log: Path) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(null)
    os.close(out)


def _compiled(text: str, path: str) -> CodeType | None:
    """Compile a mutated file; None: it is not Python."""
    try:
        return compile(text, path, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return None
