"""Calls of uv that make the locks. uv uses the index that its own settings name (UV_DEFAULT_INDEX, UV_INDEX)."""

import subprocess
from pathlib import Path

from requirements.setup.messages import FAILURE, SetUpError, say

WHEELS = ("--only-binary", ":all:")


def check_wheels(lock: Path, python: str, machine: str) -> None:
    """Let uv check that each package of a lock has a wheel with a listed hash, for a Python and a machine."""
    target = ["--target", str(lock.parent / "nothing"), "--python-version", python, "--python-platform", machine]
    complete = ["--no-deps", "--dry-run", "--require-hashes"]
    uv_pip(["install", *complete, *WHEELS, *target, "-r", str(lock)], lock.parent)
    say(f"{lock.name}: every package has a wheel for Python {python} on {machine}")


def uv_pip(arguments: list[str], folder: Path) -> None:
    """Run `uv pip` in a folder. Raises SetUpError if there is no uv, or if it fails."""
    try:
        result = subprocess.run(["uv", "pip", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetUpError("make lock needs uv; type: pip install uv") from None
    if result.returncode:
        raise SetUpError(f"uv pip {arguments[0]} failed; the locks are as they were\n{result.stderr}", FAILURE)
