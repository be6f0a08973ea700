"""Who holds a GPU: answers of nvidia-smi line by line, and the shares of memory that count, with stand-ins."""

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from embedkit.engines import held_gpu as held_module
from embedkit.engines.held_gpu import (
    GIB,
    MIB,
    Gpu,
    GpuProcess,
    describe_holders,
    find_gpu,
    gpus,
    held_gpu,
    own_gpu,
    processes,
)
from embedkit.job import JobContext

GPU = Gpu("0", "GPU-aaaa", "NVIDIA H100", 80 * GIB, 70 * GIB)
OTHER = Gpu("1", "GPU-bbbb", "NVIDIA H100", 80 * GIB, 80 * GIB)
Answer = Callable[..., None]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Set what nvidia-smi prints for GPUs, processes and -L."""

    def say(gpu_lines: str = "", process_lines: str = "", listed: str = "") -> None:
        def run(*arguments: str) -> str:
            if arguments == ("-L",):
                return listed
            return gpu_lines if arguments == held_module.GPU_QUERY else process_lines

        monkeypatch.setattr(held_module, "_nvidia_smi", run)

    say()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("embedkit.job._current", JobContext(node="n1"))
    return say


def test_gpus_and_processes_are_read_line_by_line(answer: Answer) -> None:
    """Lines of another form are left out."""
    answer(
        "0, GPU-aaaa, NVIDIA H100, 81920, 71680\n1, GPU-bbbb, NVIDIA H100, [N/A], 5\n2, GPU-c, X, 5, [N/A]\n0, 1\n",
        "GPU-aaaa, 12, /usr/bin/python, 2048\n GPU-bbbb, 13, a, b, [N/A]\nnothing\nGPU-aaaa, x, y, 1\n",
    )
    assert gpus() == [GPU]
    assert processes() == [
        GpuProcess("GPU-aaaa", 12, "/usr/bin/python", 2048 * MIB),
        GpuProcess("GPU-bbbb", 13, "a, b", None),
    ]


LISTED = """GPU 0: NVIDIA H100 (UUID: GPU-aaaa)
  MIG 1g.10gb Device 0: (UUID: MIG-1111)
GPU 1: NVIDIA H100 (UUID: GPU-bbbb)
  MIG 1g.10gb Device 0: (UUID: MIG-2222)
"""


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("0", GPU),
        ("1", OTHER),
        ("2", None),
        ("GPU-b", OTHER),
        ("GPU-bbbb", OTHER),
        ("GPU-", None),
        ("GPU-c", None),
        ("MIG-1111", GPU),
        ("MIG-2222", OTHER),
        ("MIG-3333", None),
        ("MIG-GPU-bbbb/1/0", OTHER),
    ],
)
def test_a_gpu_is_found_by_its_cuda_name(visible: str, found: Gpu | None) -> None:
    assert find_gpu([GPU, OTHER], visible, LISTED) == found


@pytest.mark.parametrize(
    ("visible", "position", "number"),
    [
        (None, 0, "0"),
        (None, 1, "1"),
        ("1", 0, "1"),
        ("1, 0", 1, "0"),
        (",1", 0, "1"),
        ("1", 1, "1"),
        ("MIG-2222", 0, "1"),
    ],
)
def test_own_gpu_is_the_first_visible_one(
    visible: str | None, position: int, number: str, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "0, GPU-aaaa, NVIDIA H100, 81920, 71680\n1, GPU-bbbb, NVIDIA H100, 81920, 81920\n"
    answer(lines, listed=LISTED)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = own_gpu(position)
    assert found is not None
    assert found.number == number


NO_MEMORY = RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(("held", "is_held"), [(0.04, False), (0.079, False), (0.081, True), (0.16, True)])
def test_a_small_share_is_no_holder(
    held: float, is_held: bool, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At half and at twice the share, and close to it. What this process has does not count."""
    total, own = 1000 * GIB, 100 * GIB
    free = total - own - int(held * total)
    monkeypatch.setattr(held_module, "_memory", lambda torch, gpu: (total, free, own))
    error = held_gpu(NO_MEMORY)
    assert (error is not None) == is_held
    if error is not None:
        text = f"GPU of node n1 has {free / GIB:.1f} of 1000.0 GiB free: another process, which nvidia-smi does not"
        assert str(error).startswith(text)
    busy = held_gpu(RuntimeError("all CUDA-capable devices are busy or unavailable"))
    assert busy is not None


def test_only_a_lack_of_memory_has_a_holder(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause of an error counts as well."""
    monkeypatch.setattr(held_module, "_memory", lambda torch, gpu: (100, 0, 0))
    assert held_gpu(RuntimeError("boom")) is None
    outer = RuntimeError("outer")
    outer.__cause__ = NO_MEMORY
    assert held_gpu(outer) is not None
    later = RuntimeError("later")
    later.__context__ = RuntimeError("Free memory on device cuda:0 is less than desired")
    assert held_gpu(later) is not None


def test_a_job_stays_away_from_the_node(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer("0, GPU-aaaa, NVIDIA H100, 81920, 71680\n")
    monkeypatch.setattr(held_module, "_memory", lambda torch, gpu: (gpu.total, gpu.free, 0))
    text = "GPU 0 (GPU-aaaa, NVIDIA H100) of node n1 has 70.0 of 80.0 GiB free: another process, which nvidia-smi does "
    text += "not show here, holds 10.0 GiB; report the node"
    assert str(held_gpu(NO_MEMORY)) == text
    monkeypatch.setattr("embedkit.job._current", JobContext(node="n1", id="5"))
    assert str(held_gpu(NO_MEMORY)) == f"{text}. A rerun stays away from n1"


def test_the_memory_is_that_of_torch_or_of_nvidia_smi(answer: Answer) -> None:
    me = os.getpid()
    lines = [f"GPU-aaaa, {me}, p, 3", f"GPU-bbbb, {me}, p, 5", "GPU-aaaa, 1, p, 7", f"GPU-aaaa, {me}, p, [N/A]"]
    answer(process_lines="\n".join(lines))

    class Cuda:
        @staticmethod
        def mem_get_info(device: int) -> tuple[int, int]:
            return 20 + device, 90

        @staticmethod
        def memory_reserved(device: int) -> int:
            return 30 + device

    class Torch:
        cuda = Cuda

    assert held_module._memory(Torch, GPU) == (90, 20, 30 + GIB)
    assert held_module._memory(None, GPU) == (80 * GIB, 70 * GIB, 3 * MIB)
    assert held_module._memory(None, None) == (0, 0, 0)


def test_the_three_largest_holders_are_named(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those with less than CUDA itself needs, not this process, and not those of another GPU."""
    monkeypatch.setattr(held_module, "_user", lambda one: {11: "bob", 12: "me"}.get(one.pid, ""))
    monkeypatch.setattr(held_module, "_user_name", lambda uid: "me")
    lines = ["GPU-aaaa, 11, /x/python, 2048", "GPU-aaaa, 12, /x/vllm, 8192", "GPU-aaaa, 13, c, 4096"]
    lines += [
        "GPU-aaaa, 14, d, 1024",
        "GPU-aaaa, 15, e, 1023",
        f"GPU-aaaa, {os.getpid()}, p, 9999",
        "GPU-bbbb, 16, f, 9999",
    ]
    answer(process_lines="\n".join(lines))
    assert describe_holders(GPU, 7 * GIB) == (
        "process 12 (vllm, user me) holds 8.0 GiB, process 13 (c) holds 4.0 GiB, process 11 (python, user bob) holds "
        "2.0 GiB; yours: end it there with `kill 12`"
    )
    answer(process_lines="GPU-aaaa, 15, e, 1023\nGPU-aaaa, 14, d, 5\n")
    fix = "report the node, jobs there share GPUs"
    assert describe_holders(GPU, GIB) == f"process 15 (e) holds 1.0 GiB, process 14 (d) holds 0.0 GiB; {fix}"
    answer(process_lines="GPU-aaaa, 14, d, 1024\nGPU-aaaa, 15, e, 1023\n")
    assert describe_holders(GPU, GIB) == f"process 14 (d) holds 1.0 GiB; {fix}"
    answer(process_lines="GPU-aaaa, 15, e, [N/A]\n")
    assert describe_holders(GPU, 3 * GIB) == f"process 15 (e) holds 3.0 GiB; {fix}"
    nobody = "another process, which nvidia-smi does not show here, holds 3.0 GiB; report the node"
    assert describe_holders(None, 3 * GIB) == nobody


def test_the_user_is_that_of_the_process_with_this_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process here has another name, as in a container, nothing is known of its user."""
    me = psutil.Process()
    name = Path(me.exe()).name
    assert held_module._user(GpuProcess("g", os.getpid(), f"/somewhere/{name}", 1)) == me.username()
    assert held_module._user(GpuProcess("g", os.getpid(), "/somewhere/else", 1)) == ""
    assert held_module._user(GpuProcess("g", 2**22 + 1, name, 1)) == ""
    assert held_module._user_name(os.getuid()) == me.username()
    assert held_module._user_name(os.getuid() + 1) == f"uid {os.getuid() + 1}"

    def hidden(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "name", hidden)
    assert held_module._user(GpuProcess("g", os.getpid(), name, 1)) == me.username()


def test_without_nvidia_smi_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert (gpus(), processes(), own_gpu()) == ([], [], None)
