"""The two builds: which one a profile needs, what each consists of, and which machines can have it."""

import hashlib
import platform
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jobs.gpu_request import requested_gpus, stage_settings
from requirements.setup.environment import ROOT
from requirements.setup.messages import SetUpError

Build = Literal["gpu", "cpu"]
NAMES = {"gpu": "GPU build", "cpu": "CPU build"}
PYTHONS = ("3.11", "3.12")
"""Pythons for which the lock of the GPU build was made."""
GLIBC = {"x86_64": (2, 31), "aarch64": (2, 34)}
"""The oldest C library for which every package of that lock has a wheel, by machine. `make lock` proves it."""
LOCKS = {"gpu": "requirements/gpu.txt", "cpu": "requirements/cpu.txt"}


def build_for(profile: str) -> Build:
    """The build that a profile needs: the one for GPUs if its embed stage gets GPUs and names no Python of its own.

    Raises SetUpError if there is no such profile or it cannot be read. embedkit checks its keys later.
    """
    path = _find(profile)
    try:
        settings = stage_settings(_read(path), "embed")
        gpus = requested_gpus(settings) and not settings.get("python")
    except (AttributeError, TypeError, ValueError) as error:
        raise SetUpError(f"{path}: cannot see whether [embed] gets GPUs: {error}") from None
    return "gpu" if gpus else "cpu"


def as_build(text: str) -> Build | None:
    """The build that a mark names; None if it names none."""
    return "gpu" if text == "gpu" else "cpu" if text == "cpu" else None


def _find(profile: str) -> Path:
    """A profile's file: a shipped one by its name, any other by its path, as in `embedkit submit --profile`."""
    if "/" in profile or profile.endswith(".toml"):
        return Path(profile)
    templates = ROOT / "slurm_templates"
    shipped = sorted(path.stem for path in templates.glob("*.toml"))
    if profile not in shipped:
        raise SetUpError(
            f"no profile {profile!r}; there are {', '.join(shipped)}; a path works too: PROFILE=./mysite.toml"
        )
    return templates / f"{profile}.toml"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise SetUpError(
            f"{path}: cannot be read: {error.strerror}; type PROFILE= with the path of your profile "
            "(slurm_templates/README.md says how to write one)"
        ) from None
    except (ValueError, RecursionError) as error:
        raise SetUpError(f"{path}: is no TOML: {error}") from None


def pins(extra: str) -> dict[str, str]:
    """The exact versions that an extra of pyproject.toml names: {"torch": "2.13.0"}."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return dict(entry.split("==") for entry in project["optional-dependencies"][extra] if "==" in entry)


def lock_hash(build: Build) -> str:
    """The hash of everything that decides which packages are in a build."""
    decides = [(ROOT / LOCKS[build]).read_text(), *(f"{name}=={version}" for name, version in pins(build).items())]
    return hashlib.sha256("\n".join(decides).encode()).hexdigest()


def packages_in(lock: Path) -> int:
    """How many packages a lock names, for all Pythons together."""
    return len(set(re.findall(r"^([\w.-]+)==", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)))


def check_machine(
    build: Build,
    *,
    python: tuple[int, int] = sys.version_info[:2],
    machine: str = platform.machine(),
    library: tuple[str, str] = platform.libc_ver(),
) -> None:
    """Refuse, before anything is installed, a machine for which the lock of the GPU build has no packages.

    `library` is the C library and its version.
    """
    if build == "cpu":
        return
    version = f"{python[0]}.{python[1]}"
    if version not in PYTHONS:
        raise SetUpError(
            f"the GPU build needs Python {' or '.join(PYTHONS)}; {sys.executable} is {version}; nothing was installed\n"
            "type the same command with PYTHON=/path/to/python3.12 (often after: module load python)"
        )
    if sys.platform != "linux" or machine not in GLIBC:
        raise SetUpError(
            f"the GPU build is for Linux on {' and '.join(GLIBC)}; this is {sys.platform} on {machine}; "
            "nothing was installed\nmake an environment with vLLM and embedkit yourself and activate it"
        )
    _check_glibc(GLIBC[machine], library)


def _check_glibc(oldest: tuple[int, int], library: tuple[str, str]) -> None:
    name, version = library
    if name != "glibc" or not re.fullmatch(r"\d+\.\d+.*", version):
        return  # An unknown C library: pip says it if no wheel fits.
    major, minor = re.findall(r"\d+", version)[:2]
    if (int(major), int(minor)) < oldest:
        raise SetUpError(
            f"the GPU build needs glibc {oldest[0]}.{oldest[1]}; this machine has {version}; nothing was installed\n"
            "use a container with vLLM and embedkit (docs/operating.md), or a newer login node"
        )
