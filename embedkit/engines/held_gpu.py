"""Names the processes that use the memory of this process's GPU, after an engine could not start for lack of memory.

nvidia-smi knows the processes. torch knows how much of the memory is this process's own, and the size of a MIG device.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from embedkit.errors import GpuHeld
from embedkit.job import current_job

NO_MEMORY = ("out of memory", "No available memory for the cache blocks", "Free memory on device")
"""Parts of the messages of CUDA, torch and vLLM when a GPU has too little free memory."""
BUSY = "busy or unavailable"
"""Part of CUDA's message when another process has a GPU that takes one process at a time."""
CONTEXT_BYTES = 1 << 30
"""Memory that CUDA itself needs in a process."""
HELD_SHARE = 0.08
"""Largest acceptable share of a GPU's memory that other processes use; vLLM needs nine tenths."""
SECONDS = 60
MIB = 1 << 20
GIB = 1 << 30
GPU_QUERY = ("--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits")
PROCESS_QUERY = ("--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it. Memory in bytes; `number` is what CUDA_VISIBLE_DEVICES calls it."""

    number: str
    uuid: str
    name: str
    total: int
    free: int


@dataclass(frozen=True)
class GpuProcess:
    """A process with memory on a GPU; bytes is None where nvidia-smi does not say."""

    gpu: str
    pid: int
    name: str
    bytes: int | None


def held_gpu(error: BaseException) -> GpuHeld | None:
    """The error that names who holds this process's GPU; None if `error` is no lack of memory, or nobody holds it."""
    texts = [str(one) for one in _chain(error)]
    is_busy = any(BUSY in text for text in texts)
    if not is_busy and not any(part in text for text in texts for part in NO_MEMORY):
        return None
    gpu = own_gpu()
    total, free, own = _memory(sys.modules.get("torch"), gpu)
    held = total - free - own
    if held <= HELD_SHARE * total and not is_busy:
        return None
    number = "" if gpu is None else f" {gpu.number} ({gpu.uuid}, {gpu.name})"
    node = current_job().node
    rerun = f". A rerun stays away from {node}" if current_job().id else ""
    return GpuHeld(
        f"GPU{number} of node {node} has {free / GIB:.1f} of {total / GIB:.1f} GiB free: "
        f"{describe_holders(gpu, max(held, 0))}{rerun}"
    )


def describe_holders(gpu: Gpu | None, held: int) -> str:
    """Which processes hold `held` bytes of a GPU: `process 4711 (python, user bob) holds 125.0 GiB`, and what to do."""
    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    found = [] if gpu is None else [one for one in processes() if one.gpu == gpu.uuid and one.pid not in own]
    found = [one for one in found if one.bytes is None or one.bytes >= CONTEXT_BYTES] or found
    if not found:
        return f"another process, which nvidia-smi does not show here, holds {held / GIB:.1f} GiB; report the node"
    users = {one.pid: _user(one) for one in found}
    lines = []
    for one in sorted(found, key=lambda one: -(one.bytes or 0))[:3]:
        of = f", user {users[one.pid]}" if users[one.pid] else ""
        size = f"{(held if one.bytes is None else one.bytes) / GIB:.1f} GiB"
        lines.append(f"process {one.pid} ({Path(one.name).name}{of}) holds {size}")
    mine = [str(pid) for pid, user in users.items() if user and user == _user_name(os.getuid())]
    fix = f"yours: end it there with `kill {' '.join(mine)}`" if mine else "report the node, jobs there share GPUs"
    return f"{', '.join(lines)}; {fix}"


def own_gpu(position: int = 0) -> Gpu | None:
    """A GPU that this process may use, or that its MIG device is part of; None if nvidia-smi has no answer.

    position: which of CUDA_VISIBLE_DEVICES.
    """
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[position] if position < len(visible) else str(position)
    return find_gpu(gpus(), name, _nvidia_smi("-L") if name.startswith("MIG-") else "")


def find_gpu(found: Sequence[Gpu], visible: str, listed: str = "") -> Gpu | None:
    """The GPU with a CUDA name: a number, `GPU-...` or `MIG-...`, whole or the beginning.

    Args:
        found: the GPUs.
        visible: the CUDA name.
        listed: the output of `nvidia-smi -L`, which has a GPU's MIG devices below it.
    """
    if visible.startswith("MIG-"):
        older = re.match(r"MIG-(GPU-[0-9a-f-]+)/", visible)
        above = re.findall(r"UUID: (GPU-[^)]+)\)", listed.partition(visible)[0]) if visible in listed else []
        visible = older[1] if older else above[-1] if above else visible
    names = [gpu for gpu in found if gpu.number == visible or (len(visible) > 4 and gpu.uuid.startswith(visible))]
    return names[0] if names else None


def gpus() -> list[Gpu]:
    """The GPUs that nvidia-smi lists here; none without it."""
    found = []
    for line in _nvidia_smi(*GPU_QUERY).splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 5 and fields[3].isdecimal() and fields[4].isdecimal():
            number, uuid, name, total, free = fields
            found.append(Gpu(number, uuid, name, int(total) * MIB, int(free) * MIB))
    return found


def processes() -> list[GpuProcess]:
    """The processes on all GPUs here, as nvidia-smi lists them; in a container often none."""
    found = []
    for line in _nvidia_smi(*PROCESS_QUERY).splitlines():
        match = re.fullmatch(r"\s*(\S+), (\d+), (.*), ([^,]*)", line)
        if match:
            used = match[4].strip()
            size = int(used) * MIB if used.isdecimal() else None  # [N/A] on a GPU with MIG devices
            found.append(GpuProcess(match[1], int(match[2]), match[3].strip(), size))
    return found


def _memory(torch: Any, gpu: Gpu | None) -> tuple[int, int, int]:
    """Total and free memory of this process's GPU, and how much of it this process uses, in bytes."""
    with suppress(Exception):  # CUDA itself may not have started
        free, total = torch.cuda.mem_get_info(0)
        return total, free, torch.cuda.memory_reserved(0) + CONTEXT_BYTES
    if gpu is None:
        return 0, 0, 0
    own = sum(one.bytes or 0 for one in processes() if one.gpu == gpu.uuid and one.pid == os.getpid())
    return gpu.total, gpu.free, own


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _user(process: GpuProcess) -> str:
    """The user of a process; "" if it is not the process with this id here, as in a container."""
    try:
        here = psutil.Process(process.pid)
        names = (here.name(), Path(here.exe() or "").name, *(Path(word).name for word in here.cmdline()[:1]))
        return here.username() if Path(process.name).name in names else ""
    except psutil.AccessDenied:  # its program is hidden from other users, its owner is not
        return _user_name(Path(f"/proc/{process.pid}").stat().st_uid)
    except (psutil.Error, OSError):
        return ""


def _user_name(uid: int) -> str:
    return psutil.Process().username() if uid == os.getuid() else f"uid {uid}"


def _nvidia_smi(*arguments: str) -> str:
    try:
        return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
