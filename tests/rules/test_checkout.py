"""Tests run the checkout: a different copy of embedkit that is installed is imported by no process of a test."""

import ast
import os
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.support.checkout import ROOT, SUPPORT, python_path
from tests.support.sources import docstrings, place, sources

NAMES_IT = {
    "support/checkout.py": "makes the variable for all tests",
    "support/forked/children.py": "compares the variable of two processes",
    "support/forked/client.py": "runs the files that the variable leads to",
    "support/mutants/worker.py": "tests a copy that has a mutant",
    "support/mutants/workshop.py": "tests a copy that has a mutant",
    "jobs/profiles/test_load.py": "tests a wheel that it installs",
    "embedkit/check/test_preflight.py": "tests that a different copy is refused",
    "on_slurm/test_preflight.py": "tests that a different copy is refused, and hides torch",
    "on_slurm/test_faults.py": "sets the variable in a job",
    "jobs/submit/test_launcher.py": "tests the line of shell that sets it",
}
"""Files of tests that may name PYTHONPATH, with the reason."""
ACTIVE = {
    "crash": {"EMBEDKIT_TEST_KILL_AT": "1000"},
    "faults/small": {},
    "faulty": {"EMBEDKIT_TEST_FAULTS": '{"folder": "/nowhere"}', "SLURM_ARRAY_TASK_ID": "1"},
    "links": {"EMBEDKIT_TEST_LINKS": '{"folder": "/nowhere", "error": "EPERM", "made": false, "rename": true}'},
    "misbehave": {"EMBEDKIT_TEST_ENGINE": "noise"},
    "nfs/site": {"EMBEDKIT_TEST_DELAY": "1"},
    "quota": {"EMBEDKIT_TEST_QUOTA": "plan.json"},
}
"""The folders of tests/support with a sitecustomize.py, and the variables with which it does something."""
WHERE = "import embedkit.engines.hash, jobs; print(embedkit.__file__, jobs.__file__)"


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python in whose environment a different embedkit is installed, which raises when it is imported."""

    def make(folder: Path) -> None:
        venv.EnvBuilder(symlinks=True).create(folder / "venv")
        (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
        for name in ("embedkit", "jobs"):
            (packages / name).mkdir()
            (packages / name / "__init__.py").write_text("raise ImportError('an installed copy is imported')\n")
        (packages / "ours.pth").write_text("".join(f"{path}\n" for path in sys.path if "site-packages" in path))

    return made_once(tmp_path_factory, "other-python", make) / "venv" / "bin" / "python"


def imported(python: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Import embedkit and jobs in a folder without them."""
    return subprocess.run(
        [python, "-c", WHERE], cwd=python.parent, env=os.environ | environment, capture_output=True, text=True
    )


def test_every_sitecustomize_is_tried_here() -> None:
    found = {path.parent.relative_to(SUPPORT).as_posix() for path in SUPPORT.rglob("sitecustomize.py")}
    assert found == set(ACTIVE)


@pytest.mark.parametrize("folder", ["", *ACTIVE])
def test_a_child_imports_the_checkout(folder: str, other_python: Path) -> None:
    """Whatever its working folder is, and before and after a sitecustomize.py of these tests."""
    environment = python_path(SUPPORT / folder) | ACTIVE[folder] if folder else {}
    done = imported(other_python, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("embedkit", "jobs")]


def test_a_replaced_path_would_import_the_installed_copy(other_python: Path) -> None:
    """So the test above can fail."""
    done = imported(other_python, {"PYTHONPATH": str(SUPPORT / "crash")})
    assert done.returncode == 1
    assert done.stderr.endswith("ImportError: an installed copy is imported\n")


def test_only_these_tests_name_the_variable() -> None:
    """All others use `python_path`, which never forgets the checkout."""
    found = {
        path: place(path, node)
        for path, tree in sources().items()
        if not path.startswith("rules/")
        for node in ast.walk(tree)
        if is_named(node, "PYTHONPATH") and node not in docstrings(tree)
    }
    assert found.keys() == NAMES_IT.keys(), found


def is_named(node: ast.AST, name: str) -> bool:
    """Whether a constant has the name, or a keyword of a call is it."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and name in node.value
    return isinstance(node, ast.keyword) and node.arg == name
