"""What `make run` sets up before it starts: with uv and with pip, each with empty caches, in a clone of its own.

The network and the package index decide most of it. uv is installed for the benchmark alone, where it is not there.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpus import FOLDER
from benchmarks.measure import Figure, Took, timed
from benchmarks.rounds import in_turns, of_rounds, quotients

ROOT = Path(__file__).parents[1]
CLONE, UV = FOLDER.absolute() / "setup", FOLDER.absolute() / "uv"


def bench() -> Iterator[Figure]:
    """Measure the set-up of `make run` in both ways, and what it leaves on disk."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with_uv = f"{_uv_folder()}{os.pathsep}{_plain_path()}"
    theirs, ours = in_turns(partial(_set_up, _plain_path(), "pip"), partial(_set_up, with_uv, "uv"))
    size = sum(file.stat().st_size for file in (CLONE / ".venv").rglob("*") if file.is_file() and not file.is_symlink())
    yield of_rounds(
        quotients(theirs.walls, ours.walls),
        work="set-up of `make run`, with uv",
        measured=f"{ours.cell}",
        rival=f"with pip: {theirs.cell}; both with empty caches",
    )
    yield Figure(
        work="set-up of `make run`, on disk",
        value=size / 1e9,
        unit="GB",
        target=2.5,
        at_most=True,
        measured="of which torch, vLLM, LLVM, Polars and Arrow have three quarters",
        rival="none",
    )
    for folder in (CLONE, UV):
        shutil.rmtree(folder, ignore_errors=True)


def _set_up(path: str, installer: str) -> Took:
    """Set up a fresh clone, with an empty home so that no cache is used.

    path: the search path of commands. installer: what must have installed. Raises RuntimeError if it did not.
    """
    home = CLONE.with_name("setup-home")
    for folder in (CLONE, home):
        shutil.rmtree(folder, ignore_errors=True)
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", ROOT, CLONE], check=True)
    kept = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(("PIP_", "UV_", "SSL_"))]
    took = timed(["env", "-i", f"HOME={home}", f"PATH={path}", *kept, "make", "-C", CLONE, ".venv/run.stamp"])
    shutil.rmtree(home)
    if f"with {installer}\n" not in took.output or "uv failed" in took.output:
        raise RuntimeError(f"{installer} has not installed all; does UV_DEFAULT_INDEX name the index?\n{took.output}")
    return took


def _uv_folder() -> Path:
    """The folder of uv: the one at hand, or one that is installed now."""
    found = shutil.which("uv")
    if found:
        return Path(found).parent
    subprocess.run([sys.executable, "-m", "venv", "--clear", UV], check=True)
    subprocess.run([UV / "bin" / "python", "-m", "pip", "install", "--quiet", "uv"], check=True)
    folder = UV / "only"
    folder.mkdir()
    (folder / "uv").symlink_to(UV / "bin" / "uv")
    return folder


def _plain_path() -> str:
    """The search path without uv."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / "uv").exists())
