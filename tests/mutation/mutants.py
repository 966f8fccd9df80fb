"""Makes the mutants of a module, and leaves out by rule what would be noise.

Owns: the operators (those of mutmut, and some of our own) and the rules of noise with their reasons. It must not
know tests or processes. Read `runner` next.

A mutant is identified by module, qualified name of the function, the text of the original line and the text of the
mutated one, never by a number: a name holds however far the line moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import libcst as cst
from libcst.metadata import MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation import mutators as library

# --- what is noise ---------------------------------------------------------------------------------------------------
# Each rule names what it leaves out and why. Texts for people (errors, notices) are NOT left out: a user relies on
# them, and a test can check them.

SKIPPED_NODES: dict[type[cst.CSTNode], str] = {
    cst.Annotation: "mypy checks annotations, nothing runs them",
    cst.Import: "an import that is wrong fails at once",
    cst.ImportFrom: "the same",
    cst.Assert: "states what cannot happen, so nothing can make it fail",
}
SKIPPED_CALLS = {
    "cast": "does nothing when it runs",
    "TypeVar": "only mypy reads it",
    "NewType": "the same",
}
SKIPPED_TARGETS = {
    "__slots__": "saves memory; a missing slot fails at the first assignment",
    "__all__": "only `import *` reads it",
}
SKIPPED_DECORATORS = {
    "dataclass": "frozen, slots and eq are for readers and speed; what is wrong about them mypy reports",
    "lru_cache": "a cache that is a little larger changes nothing; that it is bounded has tests of its own",
}
WHOLE_CALLS = {
    "len": "no argument can be left out of these, and None fails at once",
    "isinstance": "the same",
    "type": "the same",
    "super": "the same",
}
# Further rules, in `_Visitor._noise`:
#   docstrings            nobody runs them
#   TYPE_CHECKING         only mypy runs it
#   Protocol classes      describe, do nothing
#   type aliases          only mypy reads them; TypeVar and NewType as well
#   strict=True           of zip: states what cannot happen, as assert does
#   named numbers         `MAX_X = 4096` at module level: a measure with its reason beside it. That a limit is kept
#                         is tested at the limit, by its name, so plus one changes nothing a test should see; the
#                         numbers that other programs rely on are held by the tests of protocol and docs.
# And of the library's operators:
#   strings               one mutation each ("XX" for the whole text): upper and lower case find nothing that this does
#                         not find, and change nothing in SQL
#   None -> ""            both are false, and mypy refuses it
#   False -> None         the same


# --- operators -------------------------------------------------------------------------------------------------------


def _string(node: cst.SimpleString) -> Iterator[cst.CSTNode]:
    """Replace a whole text, so that a test that looks for a part of it sees the change, too."""
    quote = node.quote
    yield node.with_changes(value=f"{node.prefix}{quote}XX{quote}")


def _assignment(node: cst.Assign | cst.AnnAssign) -> Iterator[cst.CSTNode]:
    if node.value is not None and not _is_false(node.value):
        yield from library.operator_assignment(node)


def _statement(node: cst.Expr) -> Iterator[cst.CSTNode]:
    """Leave out a call that is made for its effect."""
    value = node.value.expression if isinstance(node.value, cst.Await) else node.value
    if isinstance(value, cst.Call):
        yield cst.Pass()


def _delete(_node: cst.Del) -> Iterator[cst.CSTNode]:
    yield cst.Pass()


def _condition(node: cst.BaseExpression) -> Iterator[cst.CSTNode]:
    """Turn a condition round that no other operator turns round."""
    if isinstance(node, cst.Name | cst.Attribute | cst.Call | cst.Subscript | cst.NamedExpr):
        bare = isinstance(node, cst.NamedExpr) and not node.lpar
        inner = node.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()]) if bare else node
        yield cst.UnaryOperation(cst.Not(), inner)


def _arguments(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Replace each argument by None, or leave it out where a default may take its place: at the end, or by name."""
    if _called(node) in WHOLE_CALLS:
        return
    args = node.args
    for at, arg in enumerate(args):
        if _is_strict(arg):
            continue
        if not arg.star and not _is_name(arg.value, "None"):
            yield node.with_changes(args=[*args[:at], arg.with_changes(value=cst.Name("None")), *args[at + 1 :]])
        if len(args) > 1 and (arg.keyword is not None or at == len(args) - 1):
            yield node.with_changes(args=[*args[:at], *args[at + 1 :]])


def _return(node: cst.Return) -> Iterator[cst.CSTNode]:
    """Give back nothing."""
    if node.value is not None and not _is_false(node.value):
        yield cst.Return(cst.Name("None"))


REPLACED = (
    library.operator_string,
    library.operator_assignment,
    library.operator_arg_removal,
    library.operator_match,
)
"""Operators of the library that ours take the place of; a `match` is a statement that no module has."""

OPERATORS = [
    *((kind, operator) for kind, operator in library.mutation_operators if operator not in REPLACED),
    (cst.Call, _arguments),
    (cst.SimpleString, _string),
    (cst.Assign, _assignment),
    (cst.AnnAssign, _assignment),
    (cst.Expr, _statement),
    (cst.Del, _delete),
    (cst.Return, _return),
]


# --- mutants ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one place."""

    module: str
    """Path of the file from the root of the repository."""
    function: str
    """Qualified name of the function or class around it; empty at module level."""
    line: str
    """The changed lines, stripped and joined with blanks."""
    mutated: str
    """What they became; empty when they went."""
    start: int
    end: int
    text: str
    """The change: characters `start` to `end` of the file become `text`."""
    lineno: int
    """Where the change begins."""
    outer: tuple[int, str] | None
    """First line (decorators count) and name of the outermost function around it, whose code can be exchanged alone;
    None: the change takes effect when the module is imported."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies it."""
        return self.module, self.function, self.line, self.mutated

    def apply(self, source: str) -> str:
        """Return the mutated file."""
        return source[: self.start] + self.text + source[self.end :]


def make(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a file's text, in the order of the text."""
    visitor = _Visitor(module, source)
    MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True).visit(visitor)
    made = {(m.start, m.end, m.text): m for m in visitor.mutants if m.line != m.mutated}
    return sorted(made.values(), key=lambda m: (m.lineno, m.mutated, m.start))


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (WhitespaceInclusivePositionProvider,)

    def __init__(self, module: str, source: str) -> None:
        super().__init__()
        self.module, self.source = module, source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.names: list[str] = []
        self.outer: list[tuple[int, str]] = []
        self.defaults = 0
        """How deep in parameters or decorators, which are evaluated at the definition."""
        self.mutants: list[Mutant] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if self._noise(node):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.names.append(node.name.value)
        if isinstance(node, cst.FunctionDef):
            first = (node.decorators or (node,))[0]
            self.outer.append((self._first_line(first), node.name.value))
        if isinstance(node, cst.Parameters | cst.Decorator):
            self.defaults += 1
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                for new in operator(node):
                    self._add(node, new)
        if isinstance(node, cst.If):
            for new in _condition(node.test):
                self._add(node.test, new)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self._noise(original_node):
            return
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self.names.pop()
        if isinstance(original_node, cst.FunctionDef):
            self.outer.pop()
        if isinstance(original_node, cst.Parameters | cst.Decorator):
            self.defaults -= 1

    def _noise(self, node: cst.CSTNode) -> bool:
        if type(node) in SKIPPED_NODES or (isinstance(node, cst.Call) and _called(node) in SKIPPED_CALLS):
            return True
        if _is_strict(node):
            return True
        if isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1:
            only = node.body[0]
            if isinstance(only, cst.Expr) and isinstance(only.value, cst.BaseString):
                return True  # a docstring
        if isinstance(node, cst.Assign | cst.AnnAssign):
            target = node.targets[0].target if isinstance(node, cst.Assign) else node.target
            name = target.value if isinstance(target, cst.Name) else ""
            at_top = not self.names
            typed = isinstance(node.value, cst.Subscript) or _is_union(node.value)
            alias = typed or _called(node.value) in SKIPPED_CALLS
            alias = alias and name.lstrip("_")[:1].isupper() and not name.isupper()
            return name in SKIPPED_TARGETS or (
                at_top and (alias or (name.lstrip("_").isupper() and _numeric(node.value)))
            )
        if isinstance(node, cst.If):
            return _is_name(node.test, "TYPE_CHECKING")
        if isinstance(node, cst.ClassDef):
            return any(_is_name(base.value, "Protocol") for base in node.bases)
        return isinstance(node, cst.Decorator) and _called(node.decorator) in SKIPPED_DECORATORS

    def _offset(self, line: int, column: int) -> int:
        return self.starts[line - 1] + column

    def _first_line(self, node: cst.CSTNode) -> int:
        span = self.get_metadata(WhitespaceInclusivePositionProvider, node)
        text = self.source[self._offset(span.start.line, span.start.column) :]
        return span.start.line + _blank_lines(text)

    def _add(self, old: cst.CSTNode, new: cst.CSTNode) -> None:
        span = self.get_metadata(WhitespaceInclusivePositionProvider, old)
        start = self._offset(span.start.line, span.start.column)
        end = self._offset(span.end.line, span.end.column)
        text = cst.Module([]).code_for_node(new)
        # The shortest change: what the old and the new text begin and end with stays.
        was = self.source[start:end]
        while start < end and text and was[0] == text[0]:
            start, was, text = start + 1, was[1:], text[1:]
        while start < end and text and was[-1] == text[-1]:
            end, was, text = end - 1, was[:-1], text[:-1]
        low = self.source.rfind("\n", 0, start) + 1
        high = self.source.find("\n", end)
        high = len(self.source) if high < 0 else high
        outer = self.outer[0] if self.outer and not (len(self.outer) == 1 and self.defaults) else None
        self.mutants.append(
            Mutant(
                self.module,
                ".".join(self.names),
                " ".join(self.source[low:high].split()),
                " ".join((self.source[low:start] + text + self.source[end:high]).split()),
                start,
                end,
                text,
                self.source.count("\n", 0, start) + 1,
                outer,
            )
        )


def _blank_lines(text: str) -> int:
    """Count the blank and comment lines a text begins with."""
    count = 0
    for line in text.splitlines():
        if line.strip() and not line.strip().startswith("#"):
            break
        count += 1
    return count


def _is_name(node: cst.CSTNode | None, name: str) -> bool:
    return isinstance(node, cst.Name) and node.value == name


def _is_false(node: cst.CSTNode) -> bool:
    return _is_name(node, "None") or _is_name(node, "False")


def _is_union(node: cst.CSTNode | None) -> bool:
    return isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.BitOr)


def _is_strict(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Arg) and _is_name(node.keyword, "strict")


def _called(node: cst.CSTNode | None) -> str:
    func = node.func if isinstance(node, cst.Call) else node
    return func.value if isinstance(func, cst.Name) else ""


def _numeric(node: cst.CSTNode | None) -> bool:
    """Tell whether an expression is made of numbers and names of numbers; also several, in a tuple or a record."""
    if isinstance(node, cst.Tuple):
        return all(_numeric(element.value) for element in node.elements)
    if isinstance(node, cst.Call) and (_called(node) == "range" or _called(node)[:1].isupper()):
        return all(_numeric(arg.value) for arg in node.args)
    if isinstance(node, cst.BinaryOperation):
        return _numeric(node.left) and _numeric(node.right)
    if isinstance(node, cst.UnaryOperation):
        return _numeric(node.expression)
    return isinstance(node, cst.Integer | cst.Float) or (isinstance(node, cst.Name) and node.value.isupper())
