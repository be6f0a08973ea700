"""Is this node fit for the run's engine? What a probe (probe.py) found out, and what of it is wrong and how to mend it.

The probe is a process of its own: CUDA stays out of this one. Judging its answer is pure.
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
from embedkit.documents.schema import EngineName

PACKAGES: Mapping[EngineName, tuple[str, ...]] = {
    "vllm": ("torch", "vllm"),
    "transformers": ("torch", "transformers"),
    "hash": (),
}
SECONDS = 600.0
"""For the probe, which reads thousands of small files, over a slow network maybe."""
CONTEXT_BYTES = 1 << 30
"""What the probe itself may hold of a GPU's memory."""
HELD_SHARE = 0.08
"""Of a GPU's memory, held by others; vLLM wants nine tenths of it."""
PROFILE = "`modules`, `before` or `environment` in the profile's [embed]"
DECIDING = ("embedkit", "tokenizers")
"""Packages of which another version gives other files."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What the probe said last. `doing` is the step that it did not come back from, "" if it came to its end.

    `torch_cuda` is None if torch was not reached, "" for a build without CUDA; `driver_cuda` is 12020 for CUDA 12.2, 0
    without a driver; `gpus` are name, free and total bytes; `error` is a failed import's package, class and text.
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


def look(packages: Sequence[str], device: Literal["cuda", "cpu"], environment: Mapping[str, str]) -> Probe:
    """Import packages, and look at the GPUs if the device is cuda, in another process; raises nothing of what fails."""
    command = [sys.executable, "-P", probe.__file__, ",".join(packages), device]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=SECONDS, env=os.environ | environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        return read_answer(error.stdout or b"", 124, f"no answer in {SECONDS:.0f} s".encode())
    return read_answer(done.stdout, done.returncode, done.stderr)


def read_answer(stdout: bytes, code: int, stderr: bytes) -> Probe:
    """The probe's last whole line among whatever libraries print, and how the process ended."""
    found = Probe()
    for line in stdout.decode(errors="replace").splitlines():
        if line.startswith(probe.MARK):
            try:
                found = msgspec.json.decode(line.removeprefix(probe.MARK), type=Probe)
            except msgspec.DecodeError:
                continue
    said = stderr.decode(errors="replace").strip()[-500:]
    return msgspec.structs.replace(found, exit=code, stderr=said)


def gpu_problem(found: Probe, asked: int | None) -> str | None:
    """What keeps torch from the GPUs of this node, and what mends it; None if nothing does.

    `asked` is how many GPUs the task asked for, None if nobody knows.
    """
    if found.torch_cuda is None or found.doing:
        return None  # torch failed, or the probe died, which import_problem says
    torch = f"torch {found.versions.get('torch', '')}"
    if not found.torch_cuda:
        return (
            f"{torch} is a build for CPUs, and the run is asked for on GPUs (--device cuda): install embedkit[gpu] "
            f"for {sys.executable}, or ask for a run with --device cpu"
        )
    for_task = "" if asked is None else f"; the profile asks for {asked} GPUs a task"
    if not found.driver_cuda:
        return (
            f"no NVIDIA driver here (no libcuda.so.1){for_task}: a partition with GPUs and gpus = 1 in the profile's "
            "[embed]; in a container, let it see the driver (--nv)"
        )
    if _major(found.torch_cuda) > found.driver_cuda // 1000 and (found.cuda_error or not found.gpus):
        return (
            f"the driver {found.driver} speaks CUDA {_dotted(found.driver_cuda)} at most, and {torch} is built for "
            f"CUDA {found.torch_cuda}: nodes with a newer driver (constraint or exclude in the profile's [embed]), or "
            f"a torch that is built for CUDA {found.driver_cuda // 1000}"
        )
    visible = "not set" if found.visible is None else repr(found.visible)
    if not found.gpus:
        said = f" ({found.cuda_error})" if found.cuda_error else ""
        return (
            f"no GPU can be used{said}: CUDA_VISIBLE_DEVICES is {visible}{for_task}. gpus = 1 in the profile's [embed] "
            "asks for one; if it does, the node is at fault: exclude it"
        )
    return _held(found)


def import_problem(found: Probe) -> str | None:
    """Which package cannot be imported, why, and where that is mended; None if all can."""
    if found.error is not None:
        package, kind, text = found.error
        first = text.strip().partition("\n")[0]
        library = re.search(r"(\S+\.so[\w.]*): cannot open shared object file", text)
        if library:
            return f"{package} cannot be imported: it finds no {Path(library[1]).name}; load it by {PROFILE}"
        if kind == "ModuleNotFoundError":
            return (
                f"{package} cannot be imported: {first}. Install it for {sys.executable}, or mend what hides it: "
                f"{PROFILE}; PYTHONPATH is {os.environ.get('PYTHONPATH', 'not set')}"
            )
        return f"{package} cannot be imported: {kind}: {first}. Mend {PROFILE}, or install it again"
    if found.exit == 124:
        return f"{found.doing} took longer than {SECONDS:.0f} s: is the file system of {sys.executable} at fault?"
    if found.exit:
        how = f"signal {signal.strsignal(-found.exit)}" if found.exit < 0 else f"exit code {found.exit}"
        last = found.stderr.splitlines()[-1] if found.stderr else "nothing"
        return f"{found.doing or 'the probe'} ended by {how}, saying: {last}. Are libraries mixed? Look at {PROFILE}"
    return None


def version_problems(recorded: Mapping[str, str], here: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Differences of versions where the run was submitted and here: those that fail, and the others."""
    fatal: list[str] = []
    others: list[str] = []
    for name in sorted(recorded.keys() & here.keys()):
        if recorded[name] == here[name]:
            continue
        text = f"{name} {here[name] or '(missing)'} here, {recorded[name] or '(missing)'} where it was submitted"
        minor = [version.rpartition(".")[0] for version in (recorded[name], here[name])]
        deciding = name in DECIDING or (name == "python" and minor[0] != minor[1])
        (fatal if deciding else others).append(text)
    return fatal, others


def describe_gpus(found: Probe) -> str:
    """The GPUs and the driver, in a line."""
    gpus = ", ".join(f"{name} ({free / 2**30:.0f} of {total / 2**30:.0f} GiB free)" for name, free, total in found.gpus)
    return f"{gpus}; driver {found.driver} (CUDA {_dotted(found.driver_cuda)}), torch for CUDA {found.torch_cuda}"


def _held(found: Probe) -> str | None:
    for number, (name, free, total) in enumerate(found.gpus):
        held = total - free - CONTEXT_BYTES
        if held > HELD_SHARE * total:
            return (
                f"another process holds {held / 2**30:.1f} GiB of GPU {number} ({name}; {free / 2**30:.1f} of "
                f"{total / 2**30:.1f} GiB are free): `nvidia-smi` there says which; exclude this node in the profile's "
                "[embed] until it is gone, and tell the site: GPUs are not shared by jobs"
            )
    return None


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _dotted(cuda: int) -> str:
    return f"{cuda // 1000}.{cuda % 1000 // 10}"
