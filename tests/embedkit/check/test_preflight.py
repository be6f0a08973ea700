"""What a preflight finds on a node, and its messages. There is no GPU here: results of nodes with GPUs are made up."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedkit.check.node import Probe, gpu_problem, import_problem, read_answer, run_probe, version_problems
from embedkit.documents.codec import read, write
from embedkit.documents.schema import Preflight, RunConfig
from embedkit.run import RunFolder
from embedkit.versions import environment
from tests.conftest import ROOT, embedkit
from tests.support.checkout import SUPPORT, python_path
from tests.support.forked.client import run_module
from tests.support.stub_engines import stub_engines

GIB = 1 << 30
H100 = ("NVIDIA H100 80GB HBM3", 78 * GIB, 80 * GIB)


def preflight(run: RunFolder, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the job's command in a separate process."""
    known = os.environ | {"SLURMD_NODENAME": "n7"} | environment
    return run_module("jobs.node.job", ["preflight", run.path], known, timeout=200)


def failed(run: RunFolder, **environment: str) -> str:
    """The messages of a preflight that fails and leaves no file."""
    done = preflight(run, **environment)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not run.preflight.exists()
    assert done.stderr.rstrip().splitlines()[-1].startswith("then type: ")
    return done.stderr


def change(run: RunFolder, **changes: Any) -> None:
    write(run.config, msgspec.structs.replace(read(run.config, RunConfig), **changes))


def shadow(folder: Path, package: str, text: str) -> dict[str, str]:
    """An environment in which a different package has this name, as an environment module of the site may do."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(text)
    return python_path(folder)


@pytest.fixture(scope="module")
def fetched_run(small_chats: Path, tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    output = tmp_path_factory.mktemp("fetched")
    options = ("--engine", "transformers", "--device", "cpu", "--max-length", 512, "--shards", 1, "--run-name", "real")
    embedkit("fetch", "--dataset", small_chats, "--model", tiny_qwen, *options, "--output-dir", output)
    return RunFolder(output / "real")


@pytest.fixture
def real_run(fetched_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A requested run of the transformers engine; no stage has run."""
    return RunFolder(shutil.copytree(fetched_run.path, tmp_path / "real"))


def test_each_check_is_logged_and_recorded(real_run: RunFolder) -> None:
    done = preflight(real_run)
    assert done.returncode == 0, done.stderr
    checks = dict(read(real_run.preflight, Preflight).checks)
    assert list(checks) == ["files", "versions", "imports", "model", "canary"]
    for name, found in checks.items():
        assert f"ok: {name}: {found}" in done.stderr
    assert "transformers" in checks["imports"]
    assert checks["canary"].startswith("3 texts embedded twice")
    assert not list(real_run.path.glob(".preflight*"))


def test_the_hash_engine_needs_neither_gpu_nor_packages(prepared_run: RunFolder) -> None:
    assert preflight(prepared_run).returncode == 0
    checks = dict(read(prepared_run.preflight, Preflight).checks)
    assert list(checks) == ["files", "versions", "model", "canary"]
    assert "; hard links work; in " in checks["files"]


def test_a_node_whose_mount_refuses_links_in_a_stand_in_is_named(prepared_run: RunFolder) -> None:
    """NFS has no other way to make a file exactly once."""
    faults = {"folder": str(prepared_run.path), "error": "EPERM", "made": False, "rename": True}
    said = failed(prepared_run, EMBEDKIT_TEST_LINKS=json.dumps(faults), **python_path(SUPPORT / "links"))
    assert f"preflight on n7: files: {prepared_run.path}: its file system" in said
    assert "refuses hard links (Operation not permitted) and renaming without replacing" in said


def test_a_full_quota_is_named_with_a_stand_in_for_fsync(prepared_run: RunFolder) -> None:
    quota = python_path(SUPPORT / "quota") | {"EMBEDKIT_TEST_QUOTA": r".*\.try-\w+"}
    assert "preflight on n7: files: Disk quota exceeded" in failed(prepared_run, **quota)


def test_embedkit_from_another_folder_fails_and_names_both(prepared_run: RunFolder, tmp_path: Path) -> None:
    for package in ("embedkit", "jobs"):
        shutil.copytree(ROOT / package, tmp_path / "other" / package, ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jobs.node.job", "preflight", str(prepared_run.path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "other")},
        timeout=200,
    )
    assert done.returncode == 1
    assert (
        f"embedkit is imported from {tmp_path / 'other' / 'embedkit'} here, and from {ROOT / 'embedkit'}" in done.stderr
    )
    link = tmp_path / "link"
    link.symlink_to(ROOT / "embedkit")
    config = read(prepared_run.config, RunConfig)
    change(prepared_run, asked=config.asked | {"package": str(link)})  # as an automounter names it
    assert preflight(prepared_run).returncode == 0


def test_a_version_that_decides_fails_and_others_only_warn(prepared_run: RunFolder) -> None:
    config = read(prepared_run.config, RunConfig)
    change(prepared_run, versions=config.versions | {"tokenizers": "0.1.0"})
    said = failed(prepared_run)
    assert f"tokenizers {environment()['tokenizers']} here, 0.1.0 where it was submitted" in said
    change(prepared_run, versions=config.versions | {"polars": "0.1.0"})
    done = preflight(prepared_run)
    assert done.returncode == 0
    assert "WARNING versions: polars" in done.stderr
    assert "0.1.0 where it was submitted" in dict(read(prepared_run.preflight, Preflight).checks)["versions"]


def test_pythons_that_differ_in_the_last_number_pass() -> None:
    assert version_problems({"python": "3.11.2"}, {"python": "3.11.9"})[0] == []
    fatal, _ = version_problems({"python": "3.11.2"}, {"python": "3.12.2"})
    assert fatal == ["python 3.12.2 here, 3.11.2 where it was submitted"]
    assert version_problems({"python": "3.11.2"}, {"python": "3.12.2"}, own_python=True) == ([], fatal)
    assert version_problems({"torch": "2.9", "gone": "1"}, {"torch": ""}) == (
        *([], ["torch (missing) here, 2.9 where it was submitted"]),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "raise ImportError('libcudart.so.12: cannot open shared object file: No such file or directory')",
            "torch cannot be imported: libcudart.so.12 is missing; load it with `modules`, `before` or `environment`",
        ),
        ("import nothing_of_that_name", "torch cannot be imported: No module named 'nothing_of_that_name'. Install it"),
        ("import os; os.kill(os.getpid(), 11)", "importing torch ended with signal Segmentation fault"),
        ("raise RuntimeError('odd\\nmore')", "torch cannot be imported: RuntimeError: odd. Fix"),
    ],
)
def test_a_failed_import_is_named_with_its_fix(text: str, said: str, real_run: RunFolder, tmp_path: Path) -> None:
    found = failed(real_run, **shadow(tmp_path / "shadow", "torch", text))
    assert f"preflight on n7: imports: {said}" in found


def test_a_torch_for_cpus_is_not_a_missing_gpu(real_run: RunFolder) -> None:
    """The real torch here, in the real subprocess."""
    found = run_probe(("torch",), "cuda", {})
    if found.torch_cuda:
        pytest.skip("torch here is a build for GPUs")
    assert (found.doing, found.exit, found.error) == ("", 0, None)
    config = read(real_run.config, RunConfig)
    change(real_run, request=msgspec.structs.replace(config.request, device="cuda"))
    said = failed(real_run)
    assert f"preflight on n7: gpu: torch {found.versions['torch']} is a build for CPUs" in said
    assert "--device cpu" in said


def test_a_stub_build_that_cannot_use_the_device_is_named(real_run: RunFolder, tmp_path: Path) -> None:
    """A vLLM for GPUs that imports, with the real torch for CPUs, as a module of the site may bring it."""
    folder = stub_engines(tmp_path / "stub", vllm="0.24.0")
    (folder / "vllm" / "__init__.py").write_text("__version__ = '0.24.0'\nLLM = None\n")
    config = read(real_run.config, RunConfig)
    change(real_run, request=msgspec.structs.replace(config.request, engine="vllm"))
    said = failed(real_run, **python_path(folder))
    assert "preflight on n7: imports: vllm 0.24.0 with torch " in said
    assert "cannot use CPUs: jobs have a build that submit did not find" in said


def test_a_model_that_does_not_load_fails_the_check_of_that_name(real_run: RunFolder, tmp_path: Path) -> None:
    config = read(real_run.config, RunConfig)
    model = tmp_path / "model"
    shutil.copytree(config.locations.model, model)
    change(real_run, locations=msgspec.structs.replace(config.locations, model=str(model)))
    (model / "config.json").write_text("{}")
    assert "preflight on n7: model: " in failed(real_run)


# Made-up results of a node with GPUs


ON_GPUS = Probe(
    doing="",
    versions={"torch": "2.9.0"},
    torch_cuda="12.8",
    driver="570.124",
    driver_cuda=12080,
    visible="0",
    gpus=(H100,),
)


def changed(**changes: Any) -> str:
    return gpu_problem(msgspec.structs.replace(ON_GPUS, **changes), 1) or ""


def test_made_up_gpus_that_can_be_used_are_no_problem() -> None:
    assert changed() == ""
    assert changed(driver_cuda=12020) == ""  # CUDA 12.8 runs on any driver of 12
    assert import_problem(ON_GPUS) is None


def test_a_made_up_driver_that_is_too_old_is_named_with_both_versions() -> None:
    said = changed(driver="470.57", driver_cuda=11040, gpus=(), cuda_error="driver too old", torch_cuda="13.0")
    assert "the driver 470.57 supports CUDA up to 11.4, but torch 2.9.0 is built for CUDA 13.0" in said
    assert "a torch built for CUDA 11" in said


def test_made_up_nodes_without_a_gpu_name_the_request() -> None:
    assert "no NVIDIA driver here (no libcuda.so.1); the profile requests 1 GPUs per task" in changed(driver_cuda=0)
    said = changed(gpus=(), visible="", cuda_error="No CUDA GPUs are available")
    assert "no GPU can be used (No CUDA GPUs are available): CUDA_VISIBLE_DEVICES is ''; the profile requests 1" in said
    assert "CUDA_VISIBLE_DEVICES is not set" in changed(gpus=(), visible=None)


def test_a_made_up_gpu_in_use_is_named_with_its_free_memory() -> None:
    assert changed(gpus=(("H100", 75 * GIB, 80 * GIB),)) == ""
    said = changed(gpus=(H100, ("H100", 40 * GIB, 80 * GIB)))
    assert "another process uses 39.0 GiB of GPU 1 (H100; 40.0 of 80.0 GiB are free)" in said


def test_a_made_up_probe_that_dies_is_reported_once() -> None:
    said = b'{"versions": {"torch": "2.9"}, "torch_cuda": "12.8", "doing": "starting CUDA"}'
    answer = b"noise\nembedkit-probe " + said + b"\nembedkit-pr"
    found = read_answer(answer, -11, b"noise\nfatal: libnccl\n")
    assert gpu_problem(found, 1) is None
    assert "starting CUDA ended with signal Segmentation fault; its last line: fatal: libnccl" in (
        import_problem(found) or ""
    )
    assert "starting CUDA took longer than 600 s" in (import_problem(read_answer(answer, 124, b"")) or "")
    assert "starting ended with exit code 1" in (import_problem(read_answer(b"", 1, b"")) or "")
