"""The source of all tests as syntax trees, for the rules that hold for every test."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.support.checkout import ROOT


def sources() -> dict[str, ast.Module]:
    """The syntax trees of all Python files below tests/, by path below it."""
    folder = ROOT / "tests"
    paths = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.py")))
    return {path: source(path) for path in paths}


@cache
def source(path: str) -> ast.Module:
    """The syntax tree of one of them."""
    return tree_of((ROOT / "tests" / path).read_text())


def tree_of(text: str) -> ast.Module:
    """The syntax tree of a module whose nodes know their parent, as `.parent`."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined]
    return tree


def parents(node: ast.AST) -> Iterator[ast.AST]:
    """What a node is in, from the inside to the module."""
    while (node := getattr(node, "parent", None)) is not None:
        yield node


def function_of(node: ast.AST) -> ast.AST:
    """The outermost function that a node is in; the module if there is none."""
    inside = [one for one in parents(node) if isinstance(one, ast.FunctionDef | ast.Module)]
    return inside[-2] if len(inside) > 1 else inside[-1]


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """The constants of a module that are only read by people: docstrings, and texts below a name."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def place(path: str, node: ast.AST) -> str:
    """Path and line of a node, to be typed into an editor."""
    return f"tests/{path}:{node.lineno}"  # type: ignore[attr-defined]


def files_of(*folders: str) -> list[Path]:
    """The Python files of these folders of the checkout."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def texts_of(path: str, name: str) -> str:
    """All texts in a test and in what it uses of its module: helpers, fixtures, constants, parameters.

    Raises KeyError if the module has no such function. In texts of f-strings each value is a space, and backslashes of
    regular expressions are gone.
    """
    tree = source(path)
    named: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            named[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named |= {one.id: node for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    found, left = {name: named[name]}, [name]
    while left:
        for one in ast.walk(named[left.pop()]):
            used = one.id if isinstance(one, ast.Name) else one.arg if isinstance(one, ast.arg) else ""
            if used in named and used not in found:
                found[used] = named[used]
                left.append(used)
    texts = (text for node in found.values() for text in _texts(node))
    return "\n".join(text.replace("\\", "") for text in texts)


def _texts(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(one.value) if isinstance(one, ast.Constant) else " " for one in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from _texts(child)
