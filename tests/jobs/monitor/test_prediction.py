"""Predicted hours: by the curve of the profile's GPU, or by the run's own measurements."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.check.status import ShardStatus, StatusReader
from embedkit.documents.codec import digest, encode_line, read
from embedkit.documents.schema import FORMAT, Chunk, EngineRecord, JournalHeader, RunConfig
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from jobs.monitor.observations import RunObservations
from jobs.monitor.overview import make_overview
from jobs.monitor.prediction import Measured, Scale, measure, scale, scale_of_curve, seconds_until_done
from tests.conftest import embedkit
from tests.jobs.monitor.test_overview import NOW, RUN, in_queue, status, submission
from tests.support.curves import made_up_curve
from tests.support.stub_engines import gpu_build

CURVES = {"h100": 1.06, "h200": 1.0}
ON_H100 = Measured("NVIDIA H100 80GB HBM3", 12, 1.1)
ON_H200 = Measured("NVIDIA H200", 3, 0.97)


def shard(number: int, done: int, seconds: float, gpu: str = "NVIDIA H200", predicted: float = 200.0) -> ShardStatus:
    """So many of ten chunks are durable, after so many seconds of embedding."""
    return ShardStatus(
        shard=number,
        state="started" if done else "pending",
        rows_done=10 * done,
        rows=100,
        tokens_done=100 * done,
        tokens=1000,
        chunks_done=done,
        chunks=10,
        embed_seconds=seconds,
        predicted_seconds=predicted,
        gpu=gpu if done else "",
    )


def test_durable_chunks_are_measured_per_gpu_by_the_prediction() -> None:
    shards = [shard(0, 5, 110.0), shard(1, 1, 30.0), shard(2, 0, 0.0), shard(3, 2, 20.0, gpu="NVIDIA H100 80GB HBM3")]
    on_h200, on_h100 = measure(shards)
    assert (on_h200.gpu, on_h200.chunks) == ("NVIDIA H200", 6)
    assert on_h200.ratio == pytest.approx(140 / 120)
    assert (on_h100.gpu, on_h100.chunks, on_h100.ratio) == ("NVIDIA H100 80GB HBM3", 2, pytest.approx(0.5))
    assert measure([shard(0, 0, 0.0)]) == ()


@pytest.mark.parametrize(
    ("wanted", "measured", "ratio", "basis"),
    [
        (None, (), 1.0, "as on an H200: the profile does not say which GPU it is (gpu_model)"),
        ("h200", (), 1.0, "as on an H200, by its curve"),
        ("h100", (), 1.06, "as on an H100, by its curve: 1.06 of an H200's time"),
        ("h100", (ON_H100, ON_H200), 1.1, "measured: 12 durable chunks on NVIDIA H100 80GB HBM3 took 1.10 of the plan"),
        ("h200", (ON_H100, ON_H200), 0.97, "measured: 3 durable chunks on NVIDIA H200 took 0.97 of the plan"),
        (None, (ON_H100, ON_H200), 1.1, "measured: 12 durable chunks on NVIDIA H100"),
        ("h100", (ON_H200,), 0.97 * 1.06, "; an H100 takes 1.06 of that by the curves"),
        ("h100", (Measured("NVIDIA A100-SXM4-80GB", 1, 2.5),), 2.5, "; the profile requests an H100"),
    ],
)
def test_scale_takes_the_best_basis_and_names_it(
    wanted: str | None, measured: tuple[Measured, ...], ratio: float, basis: str
) -> None:
    found = scale(wanted, CURVES, measured)  # type: ignore[arg-type]
    assert found.ratio == pytest.approx(ratio)
    assert basis in found.basis


def test_a_gpu_without_a_curve_is_named_in_the_basis() -> None:
    found = scale(None, CURVES, (), "a100")  # type: ignore[arg-type]
    assert found == Scale(
        1.0,
        "as on an H200: no curve of a100 is known; on such a GPU `embedkit curve` measures one, for curve in the "
        "profile",
    )


@pytest.mark.parametrize(
    ("measured", "ratio", "basis"),
    [
        ((), 1.0, "as on NVIDIA L4, by the run's curve (embedkit curve: vllm 0.24.0, bfloat16, model)"),
        ((ON_H200,), 0.97, "0.97 of the plan's prediction; the run's curve is that of NVIDIA L4"),
        ((ON_H200, Measured("NVIDIA L4", 1, 1.2)), 1.2, "on NVIDIA L4 took 1.20 of the plan's prediction"),
    ],
)
def test_a_run_with_a_curve_is_predicted_by_it(measured: tuple[Measured, ...], ratio: float, basis: str) -> None:
    """Its own durable chunks are better, those of the curve's GPU most of all."""
    found = scale_of_curve(made_up_curve(), measured)
    assert found.ratio == ratio
    assert found.basis.endswith(basis)


def test_cpus_have_no_curve_only_measurements() -> None:
    for wanted in (None, "h100"):
        assert scale(wanted, {}, ()) == Scale(1.0, "")  # type: ignore[arg-type]
    basis = scale(None, {}, (Measured("", 1, 4.0),)).basis
    assert basis == "measured: 1 durable chunk took 4.00 of the plan's prediction"


@given(st.lists(st.floats(0, 1e5), max_size=8), st.lists(st.floats(0, 1e5), max_size=30), st.integers(1, 9))
def test_schedule_is_bounded_by_work_and_longest_task(running: list[float], waiting: list[float], at_once: int) -> None:
    at_once = max(at_once, len(running))
    took = seconds_until_done(running, waiting, at_once)
    tasks = [*running, *waiting, 0.0]
    least = max(sum(tasks) / at_once, *tasks)
    assert least * (1 - 1e-9) <= took <= sum(tasks) / at_once + max(tasks) + 1e-6


def test_last_wave_takes_its_full_time() -> None:
    assert seconds_until_done([], [10.0] * 16, 8) == 20
    assert seconds_until_done([], [10.0] * 17, 8) == 30
    assert seconds_until_done([4.0, 1.0], [10.0], 2) == 11


def test_seconds_left_includes_start_ups_still_to_come() -> None:
    shards = [shard(0, 5, 100.0), shard(1, 0, 0.0), shard(2, 0, 0.0)]
    observed = RunObservations(
        run=RUN,
        status=status(shards),
        now=NOW,
        submissions=(submission(array="0-2%2"),),
        queue=[in_queue("RUNNING", 0), in_queue("PENDING", 1), in_queue("PENDING", 2)],
        attempts={},
        errors={},
    )
    # Two at once: shard 0 has 100 s to go and shard 2 follows it; shard 1 begins now.
    assert make_overview(observed).seconds_left == 300
    assert make_overview(replace(observed, start_seconds=40.0)).seconds_left == 340


@pytest.mark.slow
def test_dry_run_uses_the_runs_own_durable_chunks(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    """A real engine on the CPU: its journal and manifest are what is measured. A GPU's words are tested above."""
    request = ["--dataset", demo_chats, "--model", minilm, "--engine", "transformers", "--max-length", 256]
    request += ["--sample-size", 1, "--shards", 2, "--output-dir", tmp_path, "--run-name", "half", "--device", "cpu"]
    embedkit("prepare", *request)
    again = ["submit", "--resume", "--dry-run", "--output-dir", tmp_path, "--run-name", "half", "--profile", "cpu"]
    before = embedkit(*again).stdout
    assert not re.search("speed | left of ", before)
    embedkit("embed", tmp_path / "half", "--shard", 0)
    printed = embedkit(*again).stdout
    (found,) = measure(StatusReader(RunFolder(tmp_path / "half")).read().shards)
    assert "measured: " in printed
    assert re.search(rf"took {found.ratio:.2f} of the plan's prediction", printed)
    assert re.search(r"embed +0\.0 CPU task hours left of 0\.0", printed)


def test_dry_run_of_a_stub_gpu_build_names_the_gpu(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    """There is no GPU here: the plan is real, the journal says what one of an H100 would."""
    where = ["--output-dir", tmp_path, "--run-name", "gpu"]
    request = ["--dataset", demo_chats, "--model", minilm, "--engine", "vllm", "--device", "cuda", *where]
    request += ["--max-length", 256, "--sample-size", 6, "--shards", 2, "--num-gpus", 2]
    (tmp_path / "site.toml").write_text("[embed]\ngpus = 1\n")

    stub = gpu_build(tmp_path)

    def forecast(profile: object, *more: object) -> str:
        return embedkit("submit", *more, "--dry-run", "--profile", profile, **stub).stdout

    assert "speed    as on an H200: the profile does not say" in forecast(tmp_path / "site.toml", *request)
    printed = re.search(r"speed    as on an H100, by its curve: (\S+) of an H200's time", forecast("h100", *request))
    assert printed is not None
    assert 2.0 < float(printed[1]) < 2.6  # a small model and short chats: it is the hosts that differ
    embedkit("prepare", *request, **stub)
    run = RunFolder(tmp_path / "gpu")
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    first = plan.shards[0]
    record = EngineRecord(
        **dict.fromkeys(("engine", "engine_version", "torch", "cuda", "attention", "compile"), ""),
        dtype="bfloat16",
        gpu="NVIDIA H100 80GB HBM3",
        token_budget=1,
        dim=384,
    )
    header = JournalHeader(
        format=FORMAT,
        shard=0,
        attempt="local-0",
        plan_sha256=digest(plan),
        engine=record,
        canary=b"",
        host="n1",
        started=1.0,
    )
    chunk = Chunk(
        start=first.start,
        stop=first.stop,
        tokens=first.tokens,
        inputs_sha256="",
        views={},
        seconds=3 * first.cost_seconds,
    )
    run.shard(0).mkdir(parents=True)
    (run.shard(0) / "local-0.journal.jsonl").write_bytes(encode_line(header) + encode_line(chunk))
    resumed = forecast("h100", "--resume", *where)
    assert "speed    measured: 1 durable chunk on NVIDIA H100 80GB HBM3 took 3.00 of the plan's prediction\n" in resumed
    assert "GPU hours left of " in resumed
