"""Who changes whose state: an object is complete when its constructor returns, and only its own methods change it.

The test walks the syntax trees of both packages and lists every assignment to an attribute of anything but `self` and
`cls`, every `nonlocal`, and every `type: ignore`. What is allowed is written down here: state records, each with
its one owner, exceptions of our own, and attributes of other people's objects that are meant to be set.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Record(NamedTuple):
    """A kind of state record, and the one module that writes it."""

    owner: str
    """The module that changes it."""
    kind: str
    """Its class, by its dotted name; what may be written are the fields of this class."""
    names: set[str]
    """What it is called where it is written."""
    why: str


STATE_RECORDS = [
    Record(
        "logrelay.fanout.hub",
        "logrelay.fanout.hub_types.Viewer",
        {"viewer", "fetch.viewer"},
        "a viewer is a cursor in the journal, and the hub alone moves cursors",
    ),
    Record(
        "logrelay.fanout.hub",
        "logrelay.fanout.hub_types.Skip",
        {"skip", "viewer.skip"},
        "what a viewer that fell behind has left out so far: a part of its cursor",
    ),
    Record(
        "logrelay.ingest.trader_registry",
        "logrelay.ingest.trader.Trader",
        {"trader"},
        "a seq is taken once and in order, so that the registry alone says how far a run is",
    ),
    Record(
        "logrelay.ingest.app_activity",
        "logrelay.ingest.app_activity.AppRow",
        {"row"},
        "what is measured of a bot; the table alone gives rows away and counts runs",
    ),
    Record(
        "logrelay.ingest.trader_registry",
        "logrelay.model.Run",
        {"run", "trader.run"},
        "the row of a run as the journal keeps it; the registry alone decides what it says",
    ),
    Record(
        "logrelay.ingest.trader_registry",
        "logrelay.ingest.trader_registry.Counters",
        {"self.counters"},
        "the registry's own counters, in a record so that the metrics can be read at once",
    ),
    Record(
        "logrelay.journal.filter_sql",
        "logrelay.journal.filter_sql.Plan",
        {"plan"},
        "a filter in SQL while it is put together, in the module that owns it",
    ),
    Record(
        "logrelay.journal.memory",
        "logrelay.journal.memory._Block",
        {"block"},
        "lines that are dropped together, in the module that owns them",
    ),
    Record(
        "logrelay.journal.query",
        "logrelay.journal.interface.Page",
        {"page"},
        "a page while it is filled: rows come one by one, and where it ends is known last",
    ),
    Record(
        "logrelay.journal.replacement",
        "logrelay.journal.replacement.Saved",
        {"saved"},
        "what was saved of a lost file, until a new one holds it",
    ),
    Record(
        "logrelay.machines.collection",
        "logrelay.machines.collection.Counters",
        {"self.counters"},
        "the collection's own counters, in a record so that the metrics can be read at once",
    ),
    Record(
        "logrelay.machines.collection",
        "logrelay.machines.collection._Edge",
        {"found"},
        "what has been taken of a machine, in the module that owns it",
    ),
    Record(
        "logrelay.machines.collection",
        "logrelay.fanout.collected_line.Collected",
        {"part"},
        "a part of a batch while it is filled: only at its end is it known to be the last",
    ),
    Record(
        "logrelay.machines.collector",
        "logrelay.machines.overview.LinkCounters",
        {"self._link"},
        "how the connection is doing, written by the only one that has it",
    ),
    Record(
        "logrelay.machines.edges",
        "logrelay.machines.edges._Edge",
        {"edge"},
        "one machine as it is known here, in the module that owns it",
    ),
    Record(
        "robo_trader.log_relay.outbox",
        "robo_trader.log_relay.outbox.Gap",
        {"gap", "before", "after", "unreported[-1]"},
        "a range of lost lines that grows and shrinks in the outbox's books",
    ),
    Record(
        "robo_trader.log_relay.outbox",
        "robo_trader.log_relay.outbox.Delegated",
        {"published"},
        "work for whoever holds the baton, taken back by the thread that gave up waiting",
    ),
    Record(
        "robo_trader.trading.market",
        "robo_trader.trading.market._Quote",
        {"quote"},
        "the state of a symbol's price, in the module that owns it",
    ),
]


class Foreign(NamedTuple):
    """Attributes of another object that a module sets, under the one name that the object has there."""

    owner: str
    name: str
    attributes: set[str]
    why: str


EXCEPTIONS = [
    Foreign(
        "robo_trader.log_relay.processor",
        "out",
        {
            "charged_bytes",
            "direct_send",
            "dirty",
            "has_sender",
            "inbox_bytes",
            "overrun",
            "seq",
            "unencoded",
        },
        "the hot path: a method call for each of these costs more than the work; only the holder of the baton writes",
    ),
]
"""Where one object of ours does write into another, attribute by attribute; see docs/decisions/flat-combining.md."""

FOREIGN = [
    Foreign("logrelay.alerts.delivery", "base", {"socket_read_timeout"}, "how long Apprise waits for an answer"),
    Foreign("logrelay.alerts.delivery", "session", {"send"}, "the answer's head, which Apprise keeps for itself"),
    Foreign("logrelay.alerts.delivery", "mail", {"data"}, "whether a mail was taken, which Apprise keeps for itself"),
    Foreign("logrelay.viewers.websocket", "_log", {"propagate"}, "a logger of the logging module is set up this way"),
    Foreign("logrelay.viewers.websocket", "protocol", {"available_extensions"}, "websockets' way to offer extensions"),
    Foreign("logrelay.tls", "self.context", {"sni_callback"}, "the ssl module's way to choose a certificate"),
    Foreign("logrelay.tls", "connection", {"context"}, "the same: the callback sets what the handshake goes on with"),
    Foreign(
        "logrelay.terminal.relay",
        "context",
        {"check_hostname", "verify_flags", "verify_mode"},
        "the ssl module's way to set a context up",
    ),
    Foreign("logrelay.terminal.tls_socket", "context", {"sslsocket_class"}, "the ssl module's way to choose a class"),
    Foreign("logrelay.tls", "context", {"minimum_version", "options"}, "the ssl module's way to set a context up"),
    Foreign("logrelay.interrupts", "sys", {"unraisablehook"}, "the interpreter's hook"),
    Foreign("robo_trader.logging.excepthooks", "sys", {"excepthook"}, "the interpreter's hook"),
    Foreign("robo_trader.logging.excepthooks", "threading", {"excepthook"}, "the interpreter's hook"),
    Foreign("robo_trader.log_relay.processor", "child", {"run"}, "a process is told what to do this way too"),
    Foreign("robo_trader.log_relay.processor", "base", {"_bootstrap"}, "multiprocessing offers no hook in a child"),
    Foreign("robo_trader.log_relay.handler", "_busy", {"depth"}, "a threading.local of the module: set per thread"),
    Foreign("robo_trader.log_relay.redaction", "_asking", {"depth"}, "a threading.local of the module: set per thread"),
    Foreign(
        "robo_trader.log_relay.serializer", "_nesting", {"depth"}, "a threading.local of the module: set per thread"
    ),
]


IGNORED_TYPES = {
    # The base class is made by structlog while the program runs; its type is Any.
    "robo_trader.logging.bound_logger": ["# type: ignore[misc]"],
}
"""Module -> the comments that are there for a reason that is not wiring."""


class Finding(NamedTuple):
    """One place where something is changed from outside, or would have to be explained."""

    module: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.what}"


def modules() -> dict[str, Path]:
    """Return every module of both packages by its dotted name."""
    paths = [path for package in ("logrelay", "robo_trader") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(paths)}


def targets_of(node: ast.AST) -> list[ast.expr]:
    """Return what a statement or expression assigns to or deletes."""
    match node:
        case ast.Assign(targets=found) | ast.Delete(targets=found):
            return list(found)
        case ast.AugAssign(target=one) | ast.AnnAssign(target=one) | ast.NamedExpr(target=one):
            return [one]
        case ast.For(target=one) | ast.AsyncFor(target=one) | ast.comprehension(target=one):
            return [one]
        case ast.withitem(optional_vars=one) if one is not None:
            return [one]
    return []


def attributes_in(target: ast.expr) -> list[ast.Attribute]:
    """Return the attributes that a target sets: of a tuple each, of a starred one its own."""
    match target:
        case ast.Attribute():
            return [target]
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [found for part in parts for found in attributes_in(part)]
        case ast.Starred(value=part):
            return attributes_in(part)
    return []


def first_parameter(function: ast.AST) -> str | None:
    """Return the name of a method's first parameter, under which it finds its own object."""
    parameters = [*function.args.posonlyargs, *function.args.args]
    return parameters[0].arg if parameters else None


def own_names(stack: list[ast.AST]) -> set[str]:
    """Return the names that stand for the object whose method the code is in: `self` or `cls`, if it is the parameter.

    Inside a function in a method the method's own `self` still stands for it.
    """
    names = set()
    for outer, inner in itertools.pairwise(stack):
        if isinstance(outer, ast.ClassDef) and isinstance(inner, FUNCTIONS):
            first = first_parameter(inner)
            names |= {first} & {"self", "cls"}
    return names


def examine(module: str, tree: ast.AST) -> tuple[list[tuple[int, str, str]], list[Finding]]:
    """Return the assignments to foreign attributes as (line, object, attribute), and everything else that is found."""
    assigned: list[tuple[int, str, str]] = []
    other: list[Finding] = []

    def visit(node: ast.AST, stack: list[ast.AST]) -> None:
        own = own_names(stack)
        for target in targets_of(node):
            for attribute in attributes_in(target):
                owner = ast.unparse(attribute.value)
                if owner not in own:
                    assigned.append((attribute.lineno, owner, attribute.attr))
        if isinstance(node, ast.Nonlocal):
            other.append(Finding(module, node.lineno, f"nonlocal {', '.join(node.names)}"))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            sets = called in ("setattr", "delattr") or called.endswith(("__setattr__", "__delattr__"))
            # A frozen dataclass sets its own fields this way in __post_init__.
            whom = ast.unparse(node.args[0]) if node.args else ""
            if sets and whom not in own:
                other.append(Finding(module, node.lineno, ast.unparse(node)))
        for child in ast.iter_child_nodes(node):
            visit(child, [*stack, node])

    visit(tree, [])
    return assigned, other


MODULES = modules()
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}
FOUND = {name: examine(name, tree) for name, tree in TREES.items()}


def fields_of(kind: str) -> set[str]:
    """Return the fields of a class: what its body declares, and what its own methods set."""
    module, _, name = kind.rpartition(".")
    found = [
        n for n in ast.walk(TREES.get(module, ast.Module([], []))) if isinstance(n, ast.ClassDef) and n.name == name
    ]
    fields = set()
    for node in (inner for one in found for inner in ast.walk(one)):
        for target in targets_of(node):
            fields |= {a.attr for a in attributes_in(target) if ast.unparse(a.value) == "self"}
            fields |= {target.id} if isinstance(target, ast.Name) else set()
    return fields


FIELDS = {record.kind: fields_of(record.kind) for record in STATE_RECORDS}


def allowing(module: str, name: str, attribute: str) -> list[Record | Foreign]:
    """Return the entries that allow this assignment."""
    records = [r for r in STATE_RECORDS if r.owner == module and name in r.names and attribute in FIELDS[r.kind]]
    others = [f for f in [*EXCEPTIONS, *FOREIGN] if (f.owner, f.name) == (module, name) and attribute in f.attributes]
    return [*records, *others]


@pytest.mark.parametrize("name", MODULES)
def test_no_attribute_is_set_from_outside(name):
    """What an object needs should be in its constructor, and its state be changed by its own methods."""
    assigned, other = FOUND[name]
    wrong = [
        Finding(name, line, f"{owner}.{attribute} is set")
        for line, owner, attribute in assigned
        if not allowing(name, owner, attribute)
    ]

    assert not [*wrong, *other], "\n".join(map(str, [*wrong, *other]))


def test_every_entry_of_the_tables_is_used():
    """A record that nobody writes any more, under any of its names, should not stay allowed."""
    written = [(module, name, attribute) for module, found in FOUND.items() for _, name, attribute in found[0]]
    used = {(entry.owner, name) for module, name, attr in written for entry in allowing(module, name, attr)}
    names = {(record.owner, name) for record in STATE_RECORDS for name in record.names}
    attributes = {(f.owner, f.name, attribute) for f in [*EXCEPTIONS, *FOREIGN] for attribute in f.attributes}

    assert sorted(names | {(owner, name) for owner, name, _ in attributes}) == sorted(used)
    assert sorted(attributes - set(written)) == []


def test_a_record_has_one_owner():
    """Two modules that write the same kind of record would have to agree about it."""
    kinds = [record.kind for record in STATE_RECORDS]

    assert sorted(kinds) == sorted(set(kinds))


@pytest.mark.parametrize("name", MODULES)
def test_no_type_is_ignored(name):
    """What mypy does not understand about the wiring, a reader does not understand either."""
    tokens = tokenize.generate_tokens(io.StringIO(MODULES[name].read_text("utf-8")).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    ignored = [comment for comment in comments if re.search(r"#\s*type:\s*ignore", comment)]

    assert ignored == IGNORED_TYPES.get(name, [])


@pytest.mark.parametrize(
    "code",
    [
        "def f(a): a.x = 1",
        "def f(a): a.x += 1",
        "def f(a): a.x: int = 1",
        "def f(a): del a.x",
        "def f(a): b, (a.x, *a.y) = 1, (2, 3)",
        "def f(a):\n for a.x in (): pass",
        "def f(a):\n with g() as a.x: pass",
        "def f(a): setattr(a, 'x', 1)",
        "def f(a): object.__setattr__(a, 'x', 1)",
        "def f(self): self.x = 1",
        "class C:\n def f(self): self.other.x = 1",
        "class C:\n @staticmethod\n def f(a): a.x = 1",
        "def f():\n x = 1\n def g():\n  nonlocal x",
    ],
)
def test_the_walk_sees_every_kind_of_assignment(code):
    """Each of these should be found."""
    assigned, other = examine("m", ast.parse(code))

    assert assigned or other


@pytest.mark.parametrize(
    "code",
    [
        "class C:\n def f(self): self.x = 1",
        "class C:\n def f(self):\n  def g(): self.x = 1",
        "class C:\n @classmethod\n def f(cls): cls.x = 1",
        "class C:\n def __post_init__(self): object.__setattr__(self, 'x', 1)",
        "def f(a): a['x'] = 1",
        "x: int = 1",
    ],
)
def test_the_walk_leaves_the_rest_alone(code):
    """None of these should be found."""
    assert examine("m", ast.parse(code)) == ([], [])
