"""Is this node fit for the run's engine? Run the probe (probe.py), and derive problems and fixes from its result.

The probe is a separate process, so that this one never loads CUDA. Deriving problems is pure.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from embedkit.check import probe
from embedkit.documents import EngineName
from embedkit.engines import CONTEXT_BYTES, HELD_SHARE

PACKAGES: Mapping[EngineName, tuple[str, ...]] = {
    "vllm": ("torch", "vllm"),
    "transformers": ("torch", "transformers"),
    "hash": (),
}
SECONDS = 600.0
"""Limit for the probe, which reads thousands of small files, possibly over a slow network."""
PROFILE = "`modules`, `before` or `environment` in the profile's [embed]"
DECIDING = ("embedkit", "tokenizers")
"""Packages whose version decides the bytes of a run's files."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """The probe's last message.

    doing: the step in which it ended, "" if it finished. error: a failed import's package, class and message.
    torch_cuda: None if torch was not reached, "" for a build without CUDA. driver_cuda: 12020 for CUDA 12.2, 0 without
    a driver. visible: CUDA_VISIBLE_DEVICES, None if unset. gpus: name, free and total bytes of each.
    """

    doing: str = "starting"
    exit: int = 0
    stderr: str = ""
    versions: dict[str, str] = {}
    error: tuple[str, str, str] | None = None
    torch_cuda: str | None = None
    driver: str = ""
    driver_cuda: int = 0
    visible: str | None = None
    cuda_error: str = ""
    gpus: tuple[tuple[str, int, int], ...] = ()


def run_probe(packages: Sequence[str], device: Literal["cuda", "cpu"], environment: Mapping[str, str]) -> Probe:
    """Import packages and query the GPUs (device cuda) in a separate process. Failures are in the result."""
    command = [sys.executable, "-P", probe.__file__, ",".join(packages), device]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, env=os.environ | environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        return read_answer(error.stdout or b"", 124, f"no answer in {SECONDS:.0f} s".encode())
    return read_answer(done.stdout, done.returncode, done.stderr)


def read_answer(stdout: bytes, code: int, stderr: bytes) -> Probe:
    """Parse the probe's last complete message, among whatever libraries print, and how the process ended."""
    found = Probe()
    for line in stdout.decode(errors="replace").splitlines():
        if line.startswith(probe.MARK):
            try:
                found = msgspec.json.decode(line.removeprefix(probe.MARK), type=Probe)
            except msgspec.DecodeError:
                continue
    tail = stderr.decode(errors="replace").strip()[-500:]
    return msgspec.structs.replace(found, exit=code, stderr=tail)


def gpu_problem(found: Probe, requested: int | None) -> str | None:
    """Why torch cannot use this node's GPUs, and the fix; None if it can.

    `requested` is how many GPUs the task requested, None if unknown.
    """
    if found.torch_cuda is None or found.doing:
        return None  # torch failed or the probe died: import_problem reports that
    torch = f"torch {found.versions.get('torch', '')}"
    if not found.torch_cuda:
        return (
            f"{torch} is a build for CPUs, but the run needs GPUs (--device cuda): install requirements/gpu.txt "
            f"for {sys.executable}, or make a run with --device cpu"
        )
    for_task = "" if requested is None else f"; the profile requests {requested} GPUs per task"
    if not found.driver_cuda:
        return (
            f"no NVIDIA driver here (no libcuda.so.1){for_task}: set a partition with GPUs and gpus = 1 in the "
            "profile's [embed]; in a container, make the driver visible (--nv)"
        )
    if _major(found.torch_cuda) > found.driver_cuda // 1000 and (found.cuda_error or not found.gpus):
        return (
            f"the driver {found.driver} supports CUDA up to {_dotted(found.driver_cuda)}, but {torch} is built for "
            f"CUDA {found.torch_cuda}: use nodes with a newer driver (constraint or exclude in the profile's [embed]), "
            f"or a torch built for CUDA {found.driver_cuda // 1000}"
        )
    visible = "not set" if found.visible is None else repr(found.visible)
    if not found.gpus:
        error = f" ({found.cuda_error})" if found.cuda_error else ""
        return (
            f"no GPU can be used{error}: CUDA_VISIBLE_DEVICES is {visible}{for_task}. Set gpus = 1 in the profile's "
            "[embed]; if it is set, the node is at fault: exclude it"
        )
    return _held_problem(found)


def import_problem(found: Probe) -> str | None:
    """Which package cannot be imported, why, and the fix; None if all can."""
    if found.error is not None:
        package, kind, text = found.error
        first = text.strip().partition("\n")[0]
        library = re.search(r"(\S+\.so[\w.]*): cannot open shared object file", text)
        if library:
            return f"{package} cannot be imported: {Path(library[1]).name} is missing; load it with {PROFILE}"
        if kind == "ModuleNotFoundError":
            return (
                f"{package} cannot be imported: {first}. Install it for {sys.executable}, or fix what hides it: "
                f"{PROFILE}; PYTHONPATH is {os.environ.get('PYTHONPATH', 'not set')}"
            )
        return f"{package} cannot be imported: {kind}: {first}. Fix {PROFILE}, or install the package again"
    if found.exit == 124:
        return f"{found.doing} took longer than {SECONDS:.0f} s: check the file system of {sys.executable}"
    if found.exit:
        how = f"signal {signal.strsignal(-found.exit)}" if found.exit < 0 else f"exit code {found.exit}"
        last = found.stderr.splitlines()[-1] if found.stderr else "nothing"
        step = found.doing or "the probe"
        return f"{step} ended with {how}; its last line: {last}. Libraries may be mixed: check {PROFILE}"
    return None


def version_problems(
    recorded: Mapping[str, str], here: Mapping[str, str], own_python: bool = False
) -> tuple[list[str], list[str]]:
    """Versions that differ between where the run was submitted and here: those that fail, and the others.

    `own_python`: the profile names a Python for its tasks, so a different version of Python is no failure.
    """
    fatal: list[str] = []
    others: list[str] = []
    for name in sorted(recorded.keys() & here.keys()):
        if recorded[name] == here[name]:
            continue
        text = f"{name} {here[name] or '(missing)'} here, {recorded[name] or '(missing)'} where it was submitted"
        minor = [version.rpartition(".")[0] for version in (recorded[name], here[name])]
        deciding = name in DECIDING or (name == "python" and minor[0] != minor[1] and not own_python)
        (fatal if deciding else others).append(text)
    return fatal, others


def describe_gpus(found: Probe) -> str:
    """The GPUs and the driver, in one line."""
    gpus = ", ".join(f"{name} ({free / 2**30:.0f} of {total / 2**30:.0f} GiB free)" for name, free, total in found.gpus)
    return f"{gpus}; driver {found.driver} (CUDA {_dotted(found.driver_cuda)}), torch for CUDA {found.torch_cuda}"


def held_memory(found: Probe) -> tuple[int, int] | None:
    """The first GPU whose memory other processes use, by its position, and how many bytes; None if there is none."""
    for number, (_, free, total) in enumerate(found.gpus):
        if total - free - CONTEXT_BYTES > HELD_SHARE * total:
            return number, total - free - CONTEXT_BYTES
    return None


def _held_problem(found: Probe) -> str | None:
    """The problem of the first GPU whose memory other processes use; None if there is none."""
    held = held_memory(found)
    if held is None:
        return None
    name, free, total = found.gpus[held[0]]
    return (
        f"another process uses {held[1] / 2**30:.1f} GiB of GPU {held[0]} ({name}; {free / 2**30:.1f} of "
        f"{total / 2**30:.1f} GiB are free): `nvidia-smi` there shows which; a rerun stays away from this node for a "
        "day; tell the site that jobs here share GPUs"
    )


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _dotted(cuda: int) -> str:
    return f"{cuda // 1000}.{cuda % 1000 // 10}"
