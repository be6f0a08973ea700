"""The mutants: what is changed and what is left alone, and that the list of equivalent ones is up to date."""

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.mutants.equivalent import Equivalent, equivalents, reason_of
from tests.support.mutants.operators import mutants_of
from tests.support.mutants.targets import TARGETS

CHANGES = [
    ("a < b", ["a <= b"]),
    ("a == b or c in d", ["a == b and c in d", "(a != b) or c in d", "a == b or (c not in d)"]),
    ("not a", ["(a)"]),
    ("a + 1", ["a - 1", "a + 0"]),
    ("2.0", ["8.0", "0.5"]),
    ("True", ["False"]),
    ("min(a)", ["max(a)"]),
    ("x(a, b=c)", ["x(a)"]),
    ("X(a, b=c)", []),
    ("'text' + a", []),
    ("folder / a", []),
    ("f'{a < 1}'", []),
    ("b if a else c", ["b if True else c", "b if False else c"]),
    ("[a for a in b if a]", ["[a for a in b if True]"]),
]


@pytest.mark.parametrize(("expression", "changed"), CHANGES)
def test_an_expression_is_changed_in_these_ways(expression: str, changed: list[str], tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(f"x = {expression}\n")
    found = [mutant.now.removeprefix("x = ") for mutant in mutants_of(tmp_path, "m.py")]
    assert sorted(text.strip("()") for text in found) == sorted(text.strip("()") for text in changed)


STATEMENTS = [
    ("if a:\n    raise X(1 + 2)", ["if True:", "if False:", "pass"]),
    ("log.info(1)\nprint_note(2)", []),
    ("f()", ["pass"]),
    ("a.b = c", ["pass"]),
    ("a = b", []),
    ("a += b", ["pass", "a -= b"]),
    ("for a in b:\n    continue", ["break"]),
    ("while a:\n    break", ["while False:", "continue"]),
    ("with a:\n    b", ["with __import__('contextlib').nullcontext():"]),
    ("try:\n    a\nexcept (B, C):\n    d", ["except ZeroDivisionError:", "except (C,):", "except (B,):"]),
    ("def f() -> int | None:\n    return a", ["return None"]),
    ("def f(a: int = 3) -> int:\n    return a", ["def f(a: int = 4) -> int:"]),
    ("__all__ = [1]\nA = Literal[1]", []),
]


@pytest.mark.parametrize(("statement", "changed"), STATEMENTS)
def test_a_statement_is_changed_in_these_ways(statement: str, changed: list[str], tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(f"{statement}\n", encoding="utf-8")
    assert sorted(mutant.now for mutant in mutants_of(tmp_path, "m.py")) == sorted(changed)


def test_a_mutant_changes_its_place_alone(tmp_path: Path) -> None:
    """Positions count characters, and the syntax tree counts bytes."""
    source = "class A:\n    def f(self):\n        return 'é', a < b, 'é'\n"
    (tmp_path / "m.py").write_text(source, encoding="utf-8")
    (mutant,) = mutants_of(tmp_path, "m.py")
    assert mutant.applied(source) == source.replace("a < b", "(a <= b)")
    assert (mutant.place, mutant.function, mutant.operator) == ("m.py:3", "A.f", "comparison")


def test_every_area_has_files_and_tests() -> None:
    for target in TARGETS:
        assert target.found(ROOT), target.name
        assert target.found_tests(ROOT), target.name


def test_every_equivalent_mutant_exists_and_has_a_reason() -> None:
    entries = equivalents()
    mutants = {file: mutants_of(ROOT, file) for file in {entry.file for entry in entries}}
    for entry in entries:
        assert len(entry.reason.split()) > 3, entry
        assert any(entry.matches(mutant) for mutant in mutants[entry.file]), f"no such mutant any more: {entry}"


def test_patterns_of_equivalent_mutants_know_brackets(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("x = a[0] < b\n", encoding="utf-8")
    mutants = mutants_of(tmp_path, "m.py")
    entry = Equivalent("m.py", "because of that", now="x = (a[0] <=*")
    assert [reason_of(mutant, [entry]) for mutant in mutants].count("because of that") == 1
