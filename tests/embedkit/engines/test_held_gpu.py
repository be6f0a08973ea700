"""Who holds a GPU, with stand-ins for nvidia-smi and torch: a test cannot have a GPU that another process uses."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest

from embedkit.check.node import Probe, held_memory
from embedkit.documents.schema import EngineSettings
from embedkit.engines import base
from embedkit.engines.held_gpu import find_gpu, gpus, held_gpu
from embedkit.errors import GpuHeld
from embedkit.job import JobContext

GIB = 1 << 30
GPUS = """\
0, GPU-aaaa1111, NVIDIA H200, 143771, 143000
2, GPU-bbbb2222, NVIDIA H200, 143771, 14100
"""
LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa1111)
GPU 2: NVIDIA H200 (UUID: GPU-bbbb2222)
  MIG 1g.18gb     Device  0: (UUID: MIG-cccc3333)
"""
VLLM = ValueError(
    "Free memory on device cuda:0 (13.77/139.8 GiB) on startup is less than desired GPU memory utilization (0.1, "
    "13.98 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
OTHER_PID = 2**22 + 1


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files `gpus`, `apps` and `list` a stand-in for nvidia-smi prints."""
    (tmp_path / "gpus").write_text(GPUS)
    (tmp_path / "apps").write_text(f"GPU-bbbb2222, {OTHER_PID}, /usr/bin/python, 128000\n")
    (tmp_path / "list").write_text(LISTED)
    script = tmp_path / "nvidia-smi"
    script.write_text(
        f"#!/bin/sh\ncase $1 in --query-gpu*) cat {tmp_path}/gpus;; --query-c*) cat {tmp_path}/apps;;"
        f" -L) cat {tmp_path}/list;; esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    monkeypatch.setattr("embedkit.job._current", JobContext(name="7_1", id="7", node="g7"))
    monkeypatch.setitem(sys.modules, "torch", None)
    return tmp_path


def stand_in_torch(free: float, total: float, own: float) -> SimpleNamespace:
    """A torch whose GPU has this much memory, in GiB."""
    sizes = (int(free * GIB), int(total * GIB))
    return SimpleNamespace(cuda=SimpleNamespace(mem_get_info=lambda _: sizes, memory_reserved=lambda _: int(own * GIB)))


def test_stand_in_gpu_is_named_with_node_and_process(nvidia_smi: Path) -> None:
    held = held_gpu(RuntimeError("Engine core initialization failed"))
    assert held is None
    held = held_gpu(VLLM)
    assert str(held) == (
        "GPU 2 (GPU-bbbb2222, NVIDIA H200) of node g7 has 13.8 of 140.4 GiB free: "
        f"process {OTHER_PID} (python) holds 125.0 GiB; report the node, jobs there share GPUs. "
        "A rerun stays away from g7"
    )


def test_own_leftover_process_on_a_stand_in_gpu_is_named(nvidia_smi: Path) -> None:
    """The parent of this process plays the process that is left: it has the same user, and holds no GPU."""
    left = psutil.Process().parent()
    assert left is not None
    (nvidia_smi / "apps").write_text(f"GPU-bbbb2222, {left.pid}, {left.cmdline()[0]}, [N/A]\n")
    text = str(held_gpu(VLLM))
    assert f"process {left.pid} ({Path(left.cmdline()[0]).name}, user {left.username()}) holds 12" in text
    assert f"yours: end it there with `kill {left.pid}`" in text


def test_own_memory_on_a_stand_in_gpu_is_no_fault(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
    (nvidia_smi / "apps").write_text(f"GPU-bbbb2222, {os.getpid()}, python, 128000\n")
    assert held_gpu(error) is None
    monkeypatch.setitem(sys.modules, "torch", stand_in_torch(free=2, total=80, own=77))
    assert held_gpu(error) is None
    monkeypatch.setitem(sys.modules, "torch", stand_in_torch(free=2, total=80, own=20))
    (nvidia_smi / "apps").write_text("")  # as in a container
    assert "another process, which nvidia-smi does not show here, holds 57.0 GiB" in str(held_gpu(error))


@pytest.mark.parametrize(("held", "is_held"), [(0, False), (4, False), (7.9, False), (8.1, True), (16, True)])
def test_others_may_hold_8_percent_of_a_stand_in_gpu(
    held: float, is_held: bool, nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 GiB this process has 20, and CUDA 1 GiB more. The preflight's probe has none but CUDA's."""
    monkeypatch.setitem(sys.modules, "torch", stand_in_torch(free=79 - held, total=100, own=20))
    assert (held_gpu(RuntimeError("CUDA out of memory")) is not None) is is_held
    probe = Probe(gpus=(("FAKE", 99 * GIB, 100 * GIB), ("FAKE", int((99 - held) * GIB), 100 * GIB)))
    found = held_memory(probe)
    assert (found is not None) is is_held
    assert found is None or found == (1, pytest.approx(held * GIB))


@pytest.mark.parametrize(
    ("visible", "uuid"),
    [
        ("0", "GPU-aaaa1111"),
        ("GPU-bbbb2222", "GPU-bbbb2222"),
        ("GPU-bbbb", "GPU-bbbb2222"),
        ("MIG-cccc3333", "GPU-bbbb2222"),
        ("MIG-GPU-aaaa1111/3/0", "GPU-aaaa1111"),
        ("MIG-unknown", None),
        ("7", None),
    ],
)
def test_gpus_of_stand_in_nvidia_smi_by_cuda_name(visible: str, uuid: str | None, nvidia_smi: Path) -> None:
    found = find_gpu(gpus(), visible, LISTED)
    assert (found.uuid if found else None) == uuid


def test_without_nvidia_smi_the_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setitem(sys.modules, "torch", stand_in_torch(free=13.8, total=139.8, own=0))
    assert str(held_gpu(VLLM)).startswith("GPU of node ")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert held_gpu(VLLM) is None  # nothing is known


@pytest.mark.parametrize("error", [VLLM, MemoryError("out of memory")])
def test_failed_start_on_a_stand_in_gpu_is_a_gpu_held(
    error: Exception, nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(base, "_start", fail)
    settings = EngineSettings(
        device="cpu",
        dtype="float32",
        max_length=8,
        chunk_tokens=8,
        token_budget=8,
        max_sequences=8,
        eager=True,
    )
    with pytest.raises(GpuHeld if error is VLLM else MemoryError):
        base.start_engine("vllm", tmp_path, settings)
    with pytest.raises(GpuHeld) as caught:
        base.start_engine("vllm", tmp_path, msgspec.structs.replace(settings, device="cuda"))
    assert caught.value.__cause__ is error
