"""Tests run the code of this checkout, in their own process and in every process that they start.

A `.venv` may have another copy of embedkit, or be shared by several checkouts. A child finds the checkout by its
working folder, but only after its sitecustomize.py has run. So PYTHONPATH always ends with the checkout.
"""

import os
from pathlib import Path

import embedkit
import jobs

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"


def python_path(*folders: Path) -> dict[str, str]:
    """The variable with which a child imports from these folders first, and then from the checkout."""
    return {"PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}


def imported_elsewhere() -> list[str]:
    """Packages that this process imported from another folder than the checkout, with their files."""
    files = [Path(str(package.__file__)) for package in (embedkit, jobs)]
    return [str(file) for file in files if file.parent.parent != ROOT]
