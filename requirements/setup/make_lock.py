"""Make the locks again: `make lock`. It needs uv, and reads only metadata of packages. They name no index and no host.

requirements/gpu.txt is resolved from pyproject.toml. hash_pins.py writes the others.
"""

import re
import tempfile
from pathlib import Path

from requirements.setup.builds import GLIBC, PYTHONS, pins
from requirements.setup.environment import ROOT
from requirements.setup.hash_pins import hash_pins
from requirements.setup.messages import say
from requirements.setup.uv import WHEELS, check_wheels, uv_pip

LOCK = ROOT / "requirements" / "gpu.txt"
NEXT_PYTHON = f"3.{int(PYTHONS[-1].partition('.')[2]) + 1}"
EXTRAS = ("gpu", "analysis", "export")
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


def make_lock() -> None:
    """Resolve, let uv check that each package has a wheel for each Python and machine, and write the locks."""
    with tempfile.TemporaryDirectory() as folder:
        lock = _resolve(Path(folder))
        pending = Path(folder) / "gpu.txt"
        pending.write_text(HEAD.format(pythons=" and ".join(PYTHONS), machines=MACHINES) + lock)
        for machine, (major, minor) in GLIBC.items():
            for python in PYTHONS:
                check_wheels(pending, python, f"{machine}-manylinux_{major}_{minor}")
        # Elsewhere, since uv would obey the pyproject.toml in `folder`.
        with tempfile.TemporaryDirectory() as by_hand:
            hash_pins(Path(by_hand))
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
    preferred = [*_pins_in(ROOT / "requirements" / "dev.in"), *_pins_in(ROOT / "requirements" / "cpu.in")]
    out.write_text("\n".join(dict([*preferred, *_pins_in(LOCK)]).values()) + "\n")
    extras = [option for extra in EXTRAS for option in ("--extra", extra)]
    options = ["--universal", "--python-version", PYTHONS[0], "--generate-hashes", "--no-header", "--no-annotate"]
    uv_pip(["compile", *options, *WHEELS, *extras, str(project), str(tools), "-o", str(out)], folder)
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
