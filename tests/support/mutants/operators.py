"""Makes the mutants of a file from its syntax tree. They are always the same and in the same order.

Left alone: texts and f-strings (messages), logging, annotations, decorators, imports, `__all__`, and the division sign
where it may join paths.
"""

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.mutants.mutant import Mutant, one_line

Change = tuple[str, ast.AST, str]
"""Kind of the change, the node that is replaced, and the text that replaces it."""

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.Pow: ast.Mult,
}
CALLED = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
LOGGED = re.compile(r"(log|progress|self\._progress)\.\w+|print\w*|warnings\.warn")
MAYBE_PATHS = re.compile(r"path|folder|file|run\b|root|name|tmp", re.IGNORECASE)
NEVER_RAISED = "ZeroDivisionError"


def mutants_of(root: Path, file: str) -> list[Mutant]:
    """All mutants of a file."""
    source = (root / file).read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))

    def offset(line: int, column: int) -> int:
        """Position in characters; the tree counts bytes."""
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    found = []
    for function, (operator, node, new) in _changes(ast.parse(source), ""):
        assert isinstance(node, ast.expr | ast.stmt | ast.keyword | ast.ExceptHandler)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, stop = offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)
        if operator == "keyword":
            start, stop = _with_comma(source, start, stop)
        first, last = starts[node.lineno - 1], starts[node.end_lineno]
        was, now = source[first:last], source[first:start] + new + source[stop:last]
        found.append(
            Mutant(file, node.lineno, function, operator, start, stop, new, one_line(was), one_line(now)),
        )
    return found


def _with_comma(source: str, start: int, stop: int) -> tuple[int, int]:
    """A keyword argument with one comma beside it."""
    before = re.search(r",\s*\Z", source[:start])
    if before:
        return before.start(), stop
    after = re.match(r"\s*,\s*", source[stop:])
    return start, stop + (after.end() if after else 0)


def compiles(root: Path, mutant: Mutant) -> bool:
    """Whether Python accepts the changed file."""
    source = (root / mutant.file).read_text(encoding="utf-8")
    try:
        compile(mutant.applied(source), mutant.file, "exec")
    except SyntaxError:
        return False
    return True


def _changes(node: ast.AST, function: str) -> Iterator[tuple[str, Change]]:
    """The changes of a node and of all below it, with the function that they are in."""
    if _is_left_alone(node):
        return
    yield from ((function, change) for change in _of_node(node))
    inside = function
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        inside = f"{function}.{node.name}".lstrip(".")
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "bases") or (field == "exc"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child, inside)


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
        case ast.Expr(value=ast.Call(func=called)) if LOGGED.fullmatch(ast.unparse(called)):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) if name == "__all__" or _is_type(node.value):
            return True
        case ast.Subscript(value=ast.Name(id=("Literal" | "Annotated" | "Callable"))):
            return True
        case ast.Call(func=ast.Name(id=("TypeVar" | "cast" | "isinstance"))):
            return True
    return False


def _is_type(node: ast.AST) -> bool:
    """Whether a value at the level of a module is an alias of a type."""
    return isinstance(node, ast.Subscript) and bool(re.match(r"[A-Z]|dict|list|tuple|npt\.", ast.unparse(node)))


def _of_node(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.stmt):
        yield from _of_statement(node)
    if isinstance(node, ast.expr):
        yield from _of_expression(node)
    if isinstance(node, ast.If | ast.IfExp):
        yield from (("condition", node.test, value) for value in ("True", "False"))
    if isinstance(node, ast.While) and not isinstance(node.test, ast.Constant):
        yield "condition", node.test, "False"
    if isinstance(node, ast.comprehension):
        yield from (("condition", test, "True") for test in node.ifs)
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        yield "except", node.type, NEVER_RAISED
        if isinstance(node.type, ast.Tuple):
            for gone in node.type.elts:
                left = [kind for kind in node.type.elts if kind is not gone]
                yield "except", node.type, ast.unparse(ast.Tuple(left, ast.Load()))


def _of_statement(node: ast.stmt) -> Iterator[Change]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()):
            if not (isinstance(node.value, ast.Yield) and node.value.value is None):
                yield "statement", node, "pass"
        case ast.Raise() | ast.Delete():
            yield "statement", node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement", node, "pass"
        case ast.AugAssign():
            yield "statement", node, "pass"
            other = copy.copy(node)
            if type(node.op) in COMPUTED and not _is_text(node.value):
                other.op = COMPUTED[type(node.op)]()
                yield "arithmetic", node, ast.unparse(other)
        case ast.Continue():
            yield "loop", node, "break"
        case ast.Break():
            yield "loop", node, "continue"
        case ast.With(items=[ast.withitem(optional_vars=None) as item]):
            yield "with", item.context_expr, "__import__('contextlib').nullcontext()"
        case ast.FunctionDef(returns=ast.BinOp() as returns) if "None" in ast.unparse(returns):
            for inner in _own_statements(node):
                if isinstance(inner, ast.Return) and inner.value is not None and ast.unparse(inner.value) != "None":
                    yield "return", inner.value, "None"


def _own_statements(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """All nodes of a function that are in no function inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _of_expression(node: ast.expr) -> Iterator[Change]:
    other = copy.copy(node)
    match node, other:
        case ast.Compare(ops=ops), ast.Compare():
            for at, op in enumerate(ops):
                other.ops = [*ops[:at], COMPARED[type(op)](), *ops[at + 1 :]]
                yield "comparison", node, f"({ast.unparse(other)})"
        case ast.BoolOp(op=op), ast.BoolOp():
            other.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "boolean", node, f"({ast.unparse(other)})"
        case ast.UnaryOp(op=ast.Not(), operand=operand), _:
            yield "boolean", node, f"({ast.unparse(operand)})"
        case ast.UnaryOp(op=ast.USub(), operand=operand), _ if not isinstance(operand, ast.Constant):
            yield "arithmetic", node, f"({ast.unparse(operand)})"
        case ast.BinOp(op=op), ast.BinOp() if _is_computed(node):
            other.op = COMPUTED[type(op)]()
            yield "arithmetic", node, f"({ast.unparse(other)})"
        case ast.Constant(value=bool(value)), _:
            yield "constant", node, str(not value)
        case ast.Constant(value=int(value)), _:
            yield "constant", node, str(value + 1 if value != 1 else 0)
        case ast.Constant(value=float(value)), _:
            yield from (("constant", node, repr(other)) for other in ((value * 4, value / 4) if value else (1.0,)))
        case ast.Call(func=ast.Name(id=name)), _ if name in CALLED:
            yield "call", node.func, CALLED[name]
    if isinstance(node, ast.Call) and not ast.unparse(node.func).rpartition(".")[2][:1].isupper():
        yield from (("keyword", keyword, "") for keyword in node.keywords if keyword.arg is not None)


def _is_computed(node: ast.BinOp) -> bool:
    """Whether an operation is on numbers or sets, as far as its text shows it."""
    if type(node.op) not in COMPUTED or any(_is_text(side) for side in (node.left, node.right)):
        return False
    return not (isinstance(node.op, ast.Div) and MAYBE_PATHS.search(ast.unparse(node)))


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
