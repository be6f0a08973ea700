"""A node with a different GPU or different versions stops before it embeds; GPUs and their driver are stand-ins."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from embedkit.documents.codec import digest, read, write
from embedkit.documents.schema import FORMAT, EngineRecord, Plan, Preflight, RunConfig, ShardManifest
from embedkit.embed.same_engine import EngineCheck, Reference, finished_engine, preflight_engine, refused_fields
from embedkit.embed.stage import embed_shards
from embedkit.engines.gpu_name import gpu_name
from embedkit.errors import EngineDiffers, GpuDiffers
from embedkit.run import RunFolder
from embedkit.versions import importable_version, versions
from jobs.records.attempts import Attempts
from tests.conftest import embedkit
from tests.support.checkout import python_path
from tests.support.driver import stand_in_driver
from tests.support.forked.client import run_module

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


def record(**changes: object) -> EngineRecord:
    """What a transformers engine on an H100 records with the packages of this machine."""
    known: dict[str, object] = {
        **{"engine": "transformers", "engine_version": versions()["transformers"], "torch": versions()["torch"]},
        **{"cuda": "13.0", "gpu": H100, "attention": "sdpa", "compile": "eager", "dtype": "bfloat16"},
        **{"token_budget": 8192, "dim": 32},
    }
    return EngineRecord(**{**known, **changes})  # type: ignore[arg-type]


def write_preflight(run: RunFolder, engine: EngineRecord) -> None:
    request = digest(read(run.config, RunConfig).request)
    write(
        run.preflight,
        Preflight(format=FORMAT, request_sha256=request, engine=engine, job="6", host="n1", start_seconds=1.0),
    )


def change_engine(run: RunFolder, shard: int, **changes: object) -> None:
    """Change the engine record in a finished shard's manifest."""
    path = run.shard_manifest(shard)
    manifest = read(path, ShardManifest)
    engine = msgspec.structs.replace(manifest.engine, **changes)
    write(path, msgspec.structs.replace(manifest, engine=engine))


def job(run: RunFolder, stage: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a job's command as Slurm would on node n7; for embed the task of shard 1."""
    array = {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "1"} if stage == "embed" else {}
    known = os.environ | {"SLURM_JOB_ID": "11", "SLURMD_NODENAME": "n7"} | array | environment
    return run_module("jobs.node.job", [stage, run.path, *options], known, timeout=200)


def without_torch(folder: Path) -> dict[str, str]:
    """An environment in which engines fail at once, because torch cannot be imported."""
    package = folder / "without" / "torch"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("raise ImportError('hidden')\n")
    return python_path(package.parent)


@pytest.fixture(scope="module")
def prepared_gpu_run(small_chats: Path, tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    output = tmp_path_factory.mktemp("gpus")
    options = ("--engine", "transformers", "--device", "cuda", "--dtype", "bfloat16", "--max-length", 64, "--shards", 2)
    request = ("--dataset", small_chats, "--model", tiny_qwen, "--sample-size", 5, *options, "--run-name", "gpus")
    embedkit("prepare", *request, "--output-dir", output)
    run = RunFolder(output / "gpus")
    run.logs.mkdir(exist_ok=True)
    return run


@pytest.fixture
def gpu_run(prepared_gpu_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A prepared run of the transformers engine that asks for GPUs, in two shards."""
    shutil.copytree(prepared_gpu_run.path, tmp_path / "gpus")
    return RunFolder(tmp_path / "gpus")


@pytest.fixture
def unfinished_run(damaged_run: RunFolder) -> RunFolder:
    """A run of the hash engine of which shards 0 and 2 are finished; shard 0 was made on a different GPU."""
    shutil.rmtree(damaged_run.shard(1))
    damaged_run.success.unlink()
    change_engine(damaged_run, 0, gpu=A100)
    return damaged_run


# The GPU's name, from a stand-in for the driver


def test_stand_in_gpu_is_the_first_visible_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stand_in_driver(tmp_path, H100, A100).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_name() == H100
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert gpu_name() == A100
    for visible in ("", "7"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert gpu_name() == ""


def test_without_a_driver_the_gpu_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libcuda.so.1").write_text("not a library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert gpu_name() == ""


def test_version_is_of_the_package_that_import_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert importable_version("torch") == versions()["torch"]
    assert importable_version("nothing_of_that_name") == ""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.syspath_prepend(tmp_path)
    assert importable_version("numpy") == ""  # a module of the site hides the installed distribution


# Before the engine starts


def test_stand_in_gpu_of_a_different_model_stops_the_task(gpu_run: RunFolder, tmp_path: Path) -> None:
    write_preflight(gpu_run, record())
    gpu_run.submissions.touch()
    done = job(gpu_run, "embed", **stand_in_driver(tmp_path, A100))
    assert done.returncode == 1
    assert f"n7 has GPU {A100}; the preflight on n1 had GPU {H100}" in done.stderr
    assert "shard 1 stops here: merge refuses shards that different engines made" in done.stderr
    rerun = f"embedkit rerun {gpu_run.path}"
    assert f"on other nodes: {rerun} (it excludes n7)" in done.stderr
    assert "name it in the profile's [embed], with gres or constraint" in done.stderr
    assert f"if the preflight had the wrong GPU: {rerun} --preflight" in done.stderr
    assert f"differ by about 0.0001 in cosine): {rerun} --allow-mixed" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Loading weights" not in done.stderr
    (attempt,) = Attempts(gpu_run, "embed", 1).attempts()
    assert (attempt.node, attempt.error_code) == ("n7", "gpu-differs")
    assert attempt.why == f"n7 has GPU {A100}; the preflight on n1 had GPU {H100}"


def test_the_same_or_no_stand_in_gpu_goes_on_to_the_engine(gpu_run: RunFolder, tmp_path: Path) -> None:
    write_preflight(gpu_run, record())
    for more in ({}, {"CUDA_VISIBLE_DEVICES": ""}):
        done = job(gpu_run, "embed", **stand_in_driver(tmp_path, H100), **without_torch(tmp_path), **more)
        assert done.returncode == 2
        assert "stops here" not in done.stderr
        assert "--engine transformers: it cannot be imported here" in done.stderr
    assert {attempt.error_code for attempt in Attempts(gpu_run, "embed", 1).attempts()} == {""}


def test_changed_versions_stop_the_task_and_name_both(gpu_run: RunFolder, tmp_path: Path) -> None:
    write_preflight(gpu_run, record(torch="1.13.1+cu117", engine_version="4.0"))
    gpu_run.submissions.touch()
    done = job(gpu_run, "embed", **stand_in_driver(tmp_path, H100))
    assert done.returncode == 1
    here = f"n7 has transformers {versions()['transformers']}, torch {versions()['torch']}"
    assert f"{here}; the preflight on n1 had transformers 4.0, torch 1.13.1+cu117" in done.stderr
    assert "the environment has changed, so no node is excluded" in done.stderr
    assert Attempts(gpu_run, "embed", 1).attempts()[0].error_code == "engine-differs"


def test_each_worker_looks_at_its_own_stand_in_gpu(gpu_run: RunFolder, tmp_path: Path) -> None:
    """A task with gpus_per_job = 2 on a node with two models."""
    write_preflight(gpu_run, record())
    node = stand_in_driver(tmp_path, A100, H100)
    group = {"SLURM_ARRAY_TASK_ID": "0", "CUDA_VISIBLE_DEVICES": "0,1", **without_torch(tmp_path)}
    done = job(gpu_run, "embed", "--shards", "0-1", "--per-job", "2", **node, **group)
    assert done.returncode == 1, done.stderr
    first, second = ((gpu_run.logs / f"embed-0000{shard}.log").read_text() for shard in (0, 1))
    assert f"n7 has GPU {A100}; the preflight on n1 had GPU {H100}" in first
    assert "stops here" not in second
    codes = [Attempts(gpu_run, "embed", shard).attempts()[-1].error_code for shard in (0, 1)]
    assert codes == ["gpu-differs", ""]


def test_local_run_refuses_stand_in_gpus_of_two_models(gpu_run: RunFolder, tmp_path: Path) -> None:
    options = ("run", "--resume", "--run-name", "gpus", "--output-dir", tmp_path)
    node = {**stand_in_driver(tmp_path, H100, A100, H100), "CUDA_VISIBLE_DEVICES": "0,1,2"}
    refused = embedkit(*options, check=False, **node)
    assert refused.returncode == 2
    assert f"GPUs of several models (0: {H100}, 1: {A100}, 2: {H100})" in refused.stderr
    assert "CUDA_VISIBLE_DEVICES=0,2, or accept both with --allow-mixed" in refused.stderr
    assert not (gpu_run.logs / "embed-00000.log").exists()


# Once the engine has started


def test_merge_and_tasks_compare_the_same_fields() -> None:
    for field in EngineRecord.__struct_fields__:
        other = record(**{field: 7 if field in ("token_budget", "dim") else "different"})
        assert refused_fields(record(), other) == (field,)
        assert refused_fields(record(), other, allow_mixed=True) == (("dim",) if field == "dim" else ())
    assert refused_fields(record(), record()) == ()


def test_a_finished_shard_decides_and_not_the_preflight(unfinished_run: RunFolder) -> None:
    reference = finished_engine(unfinished_run, read(unfinished_run.plan, Plan))
    assert reference is not None
    assert reference.source.startswith("shard 0, embedded on ")
    change_engine(unfinished_run, 0, gpu="")
    write_preflight(unfinished_run, record())
    embed_shards(unfinished_run, [1])
    assert unfinished_run.shard_manifest(1).exists()


def test_different_from_a_finished_shard_is_not_embedded(unfinished_run: RunFolder) -> None:
    host = read(unfinished_run.shard_manifest(0), ShardManifest).host
    with pytest.raises(GpuDiffers) as caught:
        embed_shards(unfinished_run, [1])
    assert f"has GPU (none); shard 0, embedded on {host}, had GPU {A100}" in str(caught.value)
    assert "set CUDA_VISIBLE_DEVICES to them" in str(caught.value)
    assert f"{unfinished_run.resume_command} --allow-mixed" in str(caught.value)
    assert not unfinished_run.shard(1).exists()


def test_a_shard_that_ended_meanwhile_refuses_a_running_engine(unfinished_run: RunFolder) -> None:
    """Another worker finished a shard on a different GPU: the engine is compared for each shard, and not once."""
    change_engine(unfinished_run, 0, gpu="")
    shutil.rmtree(unfinished_run.shard(2))

    def shards() -> Iterator[int]:
        yield 1
        change_engine(unfinished_run, 0, gpu=A100)
        yield 2

    with pytest.raises(GpuDiffers, match="shard 2 stops here") as caught:
        embed_shards(unfinished_run, shards())
    assert f"had GPU {A100}" in str(caught.value)
    assert unfinished_run.shard_manifest(1).exists()
    assert not unfinished_run.shard(2).exists()


def test_vectors_of_a_different_length_are_never_accepted(prepared_run: RunFolder) -> None:
    check = EngineCheck(prepared_run, Reference(record(), "the preflight on n1"), 1, allow_mixed=True)
    check.started(record(gpu=A100))
    with pytest.raises(EngineDiffers) as caught:
        check.started(record(dim=64))
    assert "has dim 64; the preflight on n1 had dim 32" in str(caught.value)
    assert "--allow-mixed" not in str(caught.value)


def test_an_exact_run_is_offered_no_way_to_mix(prepared_run: RunFolder) -> None:
    """Neither a certificate nor --allow-mixed."""
    reference = Reference(record(), "shard 0")
    ways = {}
    for is_exact in (False, True):
        with pytest.raises(GpuDiffers) as caught:
            EngineCheck(prepared_run, reference, 1, False, is_exact).started(record(gpu=A100))
        ways[is_exact] = str(caught.value)
    assert "certify" in ways[False]
    assert "--allow-mixed" in ways[False]
    assert "the run was made with --exact: none of its vectors may differ by a bit" in ways[True]
    assert "certify" not in ways[True]
    assert "--allow-mixed" not in ways[True]


def test_a_gpu_with_less_free_memory_is_avoided_and_named(prepared_run: RunFolder) -> None:
    prepared_run.submissions.touch()
    check = EngineCheck(prepared_run, Reference(record(), "the preflight on n1", True), 1, allow_mixed=False)
    with pytest.raises(GpuDiffers) as caught:
        check.started(record(token_budget=4096))
    assert "has token budget 4096; the preflight on n1 had token budget 8192" in str(caught.value)
    assert "its GPU has less free memory, so batches are smaller" in str(caught.value)
    assert "(it excludes " in str(caught.value)
    assert "constraint" not in str(caught.value)
    assert "cosine" not in str(caught.value)
    with pytest.raises(GpuDiffers, match="the other GPU had less free memory"):
        check.started(record(token_budget=16384))


def test_allowed_the_difference_is_logged_and_merged(unfinished_run: RunFolder) -> None:
    done = job(unfinished_run, "embed", "--allow-mixed")
    assert done.returncode == 0, done.stderr
    assert "embedded all the same, because of --allow-mixed" in done.stderr
    refused = job(unfinished_run, "merge")
    assert refused.returncode == 1
    assert "--allow-mixed" in refused.stderr
    assert job(unfinished_run, "merge", "--allow-mixed").returncode == 0
    success = json.loads(unfinished_run.success.read_bytes())
    assert success["mixed_engines_allowed"] is True
    assert {engine["gpu"] for engine in success["engines"]} == {"", A100}


def test_a_local_run_continues_with_what_is_allowed(unfinished_run: RunFolder, tmp_path: Path) -> None:
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path, "--allow-mixed")
    assert json.loads(unfinished_run.success.read_bytes())["mixed_engines_allowed"] is True


def test_preflight_compares_with_finished_shards(unfinished_run: RunFolder) -> None:
    done = job(unfinished_run, "preflight")
    assert done.returncode == 1
    assert "the preflight stops here: merge refuses" in done.stderr
    assert not unfinished_run.preflight.exists()
    (attempt,) = Attempts(unfinished_run, "preflight").attempts()
    assert (attempt.node, attempt.error_code) == ("n7", "gpu-differs")
    assert job(unfinished_run, "preflight", "--allow-mixed").returncode == 0
    assert unfinished_run.preflight.exists()


def test_a_damaged_or_foreign_preflight_is_not_compared(prepared_run: RunFolder) -> None:
    plan = read(prepared_run.plan, Plan)
    write_preflight(prepared_run, record())
    assert preflight_engine(prepared_run, plan) is not None
    assert preflight_engine(prepared_run, msgspec.structs.replace(plan, request_sha256="0" * 64)) is None
    prepared_run.preflight.write_text("{}")
    assert preflight_engine(prepared_run, plan) is None


def test_how_a_preflight_compiles_is_no_difference(prepared_run: RunFolder) -> None:
    """A preflight compiles. Shards of a minute do not, since the plan says so."""
    preflight = Reference(record(compile="compiled"), "the preflight on n1", is_preflight=True)
    EngineCheck(prepared_run, preflight, 1, allow_mixed=False).started(record())
    finished = Reference(record(), "shard 0, embedded on n1,")
    EngineCheck(prepared_run, finished, None, allow_mixed=False).started(record(compile="compiled"))
    with pytest.raises(EngineDiffers, match="compile compiled"):
        EngineCheck(prepared_run, finished, 1, allow_mixed=False).started(record(compile="compiled"))
