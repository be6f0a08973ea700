"""Every test expects one outcome: an exit code, the message of a refusal, the signal that ended a process."""

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.support.sources import function_of, parents, place, sources, tree_of

CODES = ("returncode", "exit_code", "exitcode")
GENERAL = (
    "BaseException",
    "Exception",
    "OSError",
    "RuntimeError",
    "ValueError",
    "EmbedkitError",
    "UsageError",
    "SystemExit",
)
"""Errors that have many causes, so a test that expects one looks at its message."""
SHOWN = ("stdout", "stderr", "output", "exception")
PROOFS = ("-signal.SIGKILL", "0:9", "(killed?)", "Killed")
"""What shows that SIGKILL ended a process: exit codes, and the words of Slurm, the queue and a shell."""
Rule = Callable[[ast.Module], Iterator[ast.AST]]


def loose_codes(tree: ast.Module) -> Iterator[ast.AST]:
    """Exit codes in an assertion that accepts several: `!=`, `<`, `in`, `or`, `not`, or the truth of a code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in CODES:
            yield from _not_compared(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "wait":
            if isinstance(getattr(node, "parent", None), ast.Compare):
                yield from _not_compared(node)
        elif isinstance(node, ast.Name) and node.id in ("code", "returncode"):
            over = getattr(node, "parent", None)
            if isinstance(over, ast.Compare) and not isinstance(over.ops[0], ast.Eq | ast.Is) and _is_asserted(over):
                yield node


def _not_compared(node: ast.AST) -> Iterator[ast.AST]:
    is_compared = False
    below = node
    for over in parents(node):
        if isinstance(over, ast.JoinedStr) or (isinstance(over, ast.Assert) and below is over.msg):
            return
        if isinstance(over, ast.Assert):
            if not is_compared:
                yield node
            return
        if isinstance(over, ast.stmt | ast.Lambda):
            return
        if isinstance(over, ast.Compare) and not is_compared and all(isinstance(op, ast.Eq) for op in over.ops):
            is_compared = True
        elif isinstance(over, ast.Compare) or _is_loose(over):
            if _is_asserted(over):
                yield node
            return
        below = over


def _is_loose(node: ast.AST) -> bool:
    is_or = isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or)
    return is_or or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))


def _is_asserted(node: ast.AST) -> bool:
    return any(isinstance(over, ast.Assert) for over in parents(node))


def unread_codes(tree: ast.Module) -> Iterator[ast.AST]:
    """Calls of programs that may fail, and nobody looks whether they did."""
    runners = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and _is_runner(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _may_fail(node, runners) and not _is_read(node):
            yield node


def _may_fail(call: ast.Call, runners: set[str]) -> bool:
    """Whether a call returns a process whose exit code was not compared."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "code" in keywords or _text(call.func).endswith("cluster.run"):  # the latter returns text
        return False
    if "check" in keywords:
        check = keywords["check"]
        return isinstance(check, ast.Constant) and check.value is False
    return ast.unparse(call.func) in ("subprocess.run", *runners)


def _is_runner(function: ast.FunctionDef) -> bool:
    """Whether a helper returns a process that may have failed, so that its callers have to look."""
    if any(isinstance(node, ast.Attribute) and node.attr == "returncode" for node in ast.walk(function)):
        return False
    returned = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and _may_fail(node, set())]
    return any(call in returned or _name_of(call) in map(_text, returned) for call in calls)


def _is_read(call: ast.Call) -> bool:
    over = getattr(call, "parent", None)
    if isinstance(over, ast.NamedExpr):
        over = over.parent  # type: ignore[attr-defined]
    if isinstance(over, ast.Return) or (isinstance(over, ast.Attribute) and over.attr == "returncode"):
        return True
    codes = (node for node in ast.walk(function_of(call)) if isinstance(node, ast.Attribute))
    read = {_text(node) for node in codes if node.attr == "returncode"}
    if any(isinstance(node, ast.ListComp) for node in parents(call)):  # several at once
        return bool(read)
    return f"{_name_of(call)}.returncode" in read


def _name_of(call: ast.Call) -> str:
    """The name that a call's result gets; "" for none."""
    over = getattr(call, "parent", None)
    if isinstance(over, ast.Assign):
        return _text(over.targets[0])
    return _text(over.target) if isinstance(over, ast.NamedExpr) else ""


def _text(node: ast.AST | None) -> str:
    return ast.unparse(node) if isinstance(node, ast.expr) else ""


def unread_refusals(tree: ast.Module) -> Iterator[ast.AST]:
    """Expected failures whose message nobody reads: they may have failed for any reason."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not _is_asserted(node) or not _is_failure(node.comparators[0]):
            continue
        code = node.left
        if isinstance(code, ast.Attribute) and code.attr == "returncode":
            over = (one for one in ast.walk(function_of(node)) if isinstance(one, ast.Attribute) and one.attr in SHOWN)
            if not any(_text(one.value) == _text(code.value) for one in over):
                yield node


def _is_failure(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in (1, 2)


def general_errors(tree: ast.Module) -> Iterator[ast.AST]:
    """`pytest.raises` of an error with many causes, without `match=` and without a look at the error."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.withitem) or not isinstance(call := node.context_expr, ast.Call):
            continue
        if _text(call.func) != "pytest.raises" or any(keyword.arg == "match" for keyword in call.keywords):
            continue
        name = _text(node.optional_vars)
        is_read = bool(name) and any(_text(one) == f"{name}.value" for one in ast.walk(function_of(node)))
        if {one.id for one in ast.walk(call.args[0]) if isinstance(one, ast.Name)} & set(GENERAL) and not is_read:
            yield call


def unproved_kills(tree: ast.Module) -> Iterator[ast.AST]:
    """Kills in a test after which nobody looks whether the process died of them. Clean-up is free."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not _is_kill(node) or _is_clean_up(node) or _is_own(node):
            continue
        texts = [_text(one) for one in ast.walk(function_of(node)) if isinstance(one, ast.UnaryOp | ast.Constant)]
        if not any(text == "-9" or any(proof in text for proof in PROOFS) for text in texts):
            yield node


def _is_kill(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    arguments = {_text(one) for one in call.args}
    is_sent = name in ("kill", "killpg", "send_signal") and bool(arguments & {"signal.SIGKILL", "9"})
    return is_sent or (name == "kill" and not call.args)


def _is_own(call: ast.Call) -> bool:
    """Whether a process kills itself. The test that started it has to look."""
    return bool(call.args) and _text(call.args[0]) == "os.getpid()"


def _is_clean_up(node: ast.AST) -> bool:
    """In a `finally`, or after the `yield` of a fixture or a context."""
    below = node
    for over in parents(node):
        if isinstance(over, ast.Try) and below in over.finalbody:
            return True
        if isinstance(over, ast.FunctionDef):
            yields = [one.lineno for one in ast.walk(over) if isinstance(one, ast.Yield)]
            return bool(yields) and max(yields) < node.lineno  # type: ignore[attr-defined]
        below = over
    return False


RULES: dict[str, tuple[Rule, str, str]] = {
    "an exit code is compared with one number": (
        loose_codes,
        "def test():\n    assert done.returncode in (0, 1)",
        "def test():\n    assert done.returncode == 1\n    assert [p.returncode for p in both] == [0, 1], done",
    ),
    "no exit code is ignored": (
        unread_codes,
        "def test():\n    done = embedkit('merge', check=False)\n    assert 'x' in done.stderr",
        "def test():\n    done = embedkit('merge', check=False)\n    assert done.returncode == 1\n    embedkit(code=1)",
    ),
    "the message of a refusal is read": (
        unread_refusals,
        "def test():\n    assert embedkit('merge', check=False).returncode == 1",
        "def test():\n    assert done.returncode == 1\n    assert 'why' in done.stderr",
    ),
    "the message of an expected error is read": (
        general_errors,
        "def test():\n    with pytest.raises(EmbedkitError):\n        merge(run)",
        "def test():\n    with pytest.raises(EmbedkitError, match='why'), pytest.raises(Stop):\n        merge(run)",
    ),
    "a killed process died of the kill": (
        unproved_kills,
        "def test():\n    process.kill()\n    process.wait()",
        "def test():\n    process.kill()\n    assert process.wait() == -signal.SIGKILL",
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_outcomes_holds_for_every_test(name: str) -> None:
    rule, _, _ = RULES[name]
    tests = {path: tree for path, tree in sources().items() if not path.startswith("support/")}
    assert [place(path, node) for path, tree in tests.items() for node in rule(tree)] == []


@pytest.mark.parametrize("name", RULES)
def test_a_rule_of_outcomes_finds_what_it_forbids(name: str) -> None:
    rule, bad, good = RULES[name]
    assert len(list(rule(tree_of(bad)))) == 1
    assert list(rule(tree_of(good))) == []


@pytest.mark.parametrize(
    "loose",
    [
        *("done.returncode != 0", "done.returncode", "not done.returncode", "(done.returncode == 0) is ok"),
        *("done.returncode == 0 or 'x' in done.stderr", "code in (0, 1)", "process.wait(timeout=20) < 0"),
        *("sorted(p.returncode for p in done) in ([0, 1], [0, 0])", "(done.returncode == -9) == (action == 2)"),
        "all(p.returncode == 0 or 'x' in p.stderr for p in done)",
    ],
)
def test_every_form_of_a_loose_exit_code_is_found(loose: str) -> None:
    assert len(list(loose_codes(tree_of(f"def test():\n    assert {loose}")))) == 1
