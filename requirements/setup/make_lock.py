"""Make requirements/gpu.txt again, from pyproject.toml: `make lock`. It needs uv, and reads only metadata of packages.

uv uses the index that its own settings name (UV_DEFAULT_INDEX, UV_INDEX). The lock names no index and no host.
"""

import re
import subprocess
import tempfile
from pathlib import Path

from requirements.setup.builds import GLIBC, PYTHONS, pins
from requirements.setup.environment import ROOT
from requirements.setup.messages import FAILURE, SetUpError, say

LOCK = ROOT / "requirements" / "gpu.txt"
NEXT_PYTHON = f"3.{int(PYTHONS[-1].partition('.')[2]) + 1}"
EXTRAS = ("gpu", "analysis")
BUILD_TOOLS = ("hatchling", "editables")
"""What installing a clone without build isolation needs."""
HEAD = """\
# The GPU build: everything that embedkit needs on nodes with GPUs, with hashes. `make lock` makes this file again from
# pyproject.toml. vLLM and torch are the versions whose speed and limits were measured on H200s (docs/gpu.md).
# For Python {pythons}, on Linux with {machines}.
#   pip install --require-hashes --only-binary=:all: -r requirements/gpu.txt
#   pip install --no-deps --no-build-isolation -e .
"""
MACHINES = " or ".join(f"{machine} and glibc {major}.{minor}" for machine, (major, minor) in GLIBC.items())
WHEELS = ("--only-binary", ":all:")


def make_lock() -> None:
    """Resolve, write the lock, and let uv check that each package has a wheel for each Python and machine."""
    with tempfile.TemporaryDirectory() as folder:
        lock = _resolve(Path(folder))
        pending = Path(folder) / "gpu.txt"
        pending.write_text(HEAD.format(pythons=" and ".join(PYTHONS), machines=MACHINES) + lock)
        for machine, (major, minor) in GLIBC.items():
            for python in PYTHONS:
                _check(pending, python, f"{machine}-manylinux_{major}_{minor}")
        LOCK.write_text(pending.read_text())
    say(f"wrote {LOCK.relative_to(ROOT)}: {', '.join(f'{name} {version}' for name, version in pins('gpu').items())}")


def _resolve(folder: Path) -> str:
    """The packages with hashes, for all Pythons and machines at once.

    Versions of the present lock are kept where they fit, and those of the CPU build are preferred to newer ones.
    """
    machines = [f"platform_machine == '{machine}'" for machine in GLIBC]
    linux = [f"sys_platform == 'linux' and {machine} and python_version < '{NEXT_PYTHON}'" for machine in machines]
    project = folder / "pyproject.toml"
    # uv reads the environments to resolve for only from here. In our own file they would bind everybody who uses uv.
    project.write_text(f"{(ROOT / 'pyproject.toml').read_text()}\n[tool.uv]\nenvironments = {linux}\n")
    tools, out = folder / "tools.in", folder / "lock.txt"
    tools.write_text("\n".join(BUILD_TOOLS))
    preferred = [*_pins_in(ROOT / "requirements" / "dev.txt"), *_pins_in(ROOT / "requirements" / "cpu.txt")]
    out.write_text("\n".join(dict([*preferred, *_pins_in(LOCK)]).values()) + "\n")
    extras = [option for extra in EXTRAS for option in ("--extra", extra)]
    options = ["--universal", "--python-version", PYTHONS[0], "--generate-hashes", "--no-header", "--no-annotate"]
    _uv(["compile", *options, *WHEELS, *extras, str(project), str(tools), "-o", str(out)], folder)
    return _short_markers(out.read_text())


def _pins_in(path: Path) -> list[tuple[str, str]]:
    """Names, in one spelling, and lines `name==version` of a requirements file."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [(re.sub("[-_.]+", "-", name).lower(), f"{name}=={version}") for name, version in found]


def _short_markers(lock: str) -> str:
    """Without the marker that uv gives every line: Python and machine for which the whole lock is made."""
    lines = []
    for line in lock.splitlines():
        name, semicolon, marker = line.partition(" ; ")
        one_python = re.search(r"python_full_version (?:< '3\.12'|== '3\.12\.\*'|>= '3\.12')", marker)
        end = " \\" if line.endswith("\\") else ""
        kept = f" ; {one_python[0]}" if one_python else ""
        lines.append(f"{name}{kept}{end}" if semicolon else line)
    return "\n".join(lines) + "\n"


def _check(lock: Path, python: str, machine: str) -> None:
    target = ["--target", str(lock.parent / "nothing"), "--python-version", python, "--python-platform", machine]
    _uv(["install", "--dry-run", "--require-hashes", *WHEELS, *target, "-r", str(lock)], lock.parent)
    say(f"every package has a wheel for Python {python} on {machine}")


def _uv(arguments: list[str], folder: Path) -> None:
    try:
        result = subprocess.run(["uv", "pip", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SetUpError("make lock needs uv; type: pip install uv") from None
    if result.returncode:
        raise SetUpError(f"uv pip {arguments[0]} failed; {LOCK.name} is as it was\n{result.stderr}", FAILURE)
