"""The local queue: slots, order, failures, and that nothing outlives it. Jobs are real processes."""

import itertools
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig, ShardManifest
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.cli.run import slots_of
from jobs.local.queue import Job, LocalQueue, Slot, last_error, make_slots
from tests.conftest import EMBEDKIT, ROOT, embedkit, needs_vllm
from tests.end_to_end.test_whole_run import matrix_of


def note(path: Path, name: str, seconds: float = 0.0) -> None:
    """A job for tests: append when and where it ran."""
    begin = time.time()
    time.sleep(seconds)
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{name} {gpu} {begin} {time.time()}\n")


def note_threads(path: Path) -> None:
    """A job for tests: write the CPUs of every thread, and the size of polars' thread pool."""
    import polars as pl

    pool = pl.thread_pool_size()
    cpus = {str(sorted(os.sched_getaffinity(int(task.name)))) for task in Path("/proc/self/task").iterdir()}
    path.write_text(f"{pool} {' '.join(sorted(cpus))}", encoding="utf-8")


def fail(path: Path) -> None:
    from embedkit.errors import EmbedkitError

    raise EmbedkitError("the moon is full")


def die(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.logs.mkdir(parents=True)
    return folder


def test_libraries_of_a_job_see_only_its_cpus(run: RunFolder, tmp_path: Path) -> None:
    """Thread pools are sized when a library is imported, so the CPUs are set before."""
    before = os.sched_getaffinity(0)
    notes = tmp_path / "notes"
    queue = LocalQueue(run, [Slot("", (min(before),))])
    assert queue.run([Job("job", note_threads, (notes,))], lambda: None) == {}
    assert notes.read_text() == f"1 [{min(before)}]"
    assert os.sched_getaffinity(0) == before


def test_each_slot_runs_one_job_at_a_time(run: RunFolder, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    cpus = tuple(os.sched_getaffinity(0))
    queue = LocalQueue(run, [Slot("4", cpus), Slot("7", cpus)])
    assert queue.run([Job(f"job-{i}", note, (notes, str(i), 0.5)) for i in range(3)], lambda: None) == {}
    rows = [line.split() for line in notes.read_text().splitlines()]
    assert sorted(row[0] for row in rows) == list("012")
    assert {row[1] for row in rows} == {"4", "7"}
    for gpu in ("4", "7"):
        times = sorted((float(begin), float(end)) for _, g, begin, end in rows if g == gpu)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    assert not list((run.logs / "submitit").iterdir())


def test_a_failure_is_reported_and_stops_no_other_job(run: RunFolder, tmp_path: Path) -> None:
    queue = LocalQueue(run, make_slots(1, []))
    jobs = [Job("a", fail, (tmp_path,)), Job("b", die, (tmp_path,)), Job("c", note, (tmp_path / "notes", "c"))]
    failures = queue.run(jobs, lambda: None)
    assert set(failures) == {"a", "b"}
    assert failures["a"].startswith("the moon is full\nlog: ")
    assert "killed?" in failures["b"]
    assert (tmp_path / "notes").exists()


def test_an_old_error_in_the_log_is_not_reported_again(run: RunFolder, tmp_path: Path) -> None:
    queue = LocalQueue(run, make_slots(1, []))
    assert "the moon is full" in queue.run([Job("a", fail, (tmp_path,))], lambda: None)["a"]
    assert "killed?" in queue.run([Job("a", die, (tmp_path,))], lambda: None)["a"]


def test_a_log_that_cannot_be_written_is_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "embed-00000.log"
    log.write_text("INFO started\n")
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, most))
    try:
        error = last_error(log, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert error.startswith("its error could not be logged: the file is larger than the limit of 0.50 MiB (ulimit -f)")
    assert last_error(log, 0).startswith("it ended without logging an error (killed?)")
    assert list(tmp_path.iterdir()) == [log]


def test_slots_share_the_cpus_and_name_the_gpus() -> None:
    slots = make_slots(2, ["3", "5"])
    assert [slot.gpu for slot in slots] == ["3", "5"]
    assert set(slots[0].cpus) | set(slots[1].cpus) == os.sched_getaffinity(0)


def processes_of(path: Path) -> list[psutil.Process]:
    """Live processes that have the path in their command line or as a submitit folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(path) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until_gone(path: Path, seconds: float) -> None:
    deadline = time.time() + seconds
    while processes_of(path):
        assert time.time() < deadline, processes_of(path)
        time.sleep(0.1)


def start_run(request: list[object]) -> "subprocess.Popen[str]":
    """`embedkit run` as a terminal starts it: in a process group of its own."""
    return subprocess.Popen(
        [*EMBEDKIT, "run", *map(str, request)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], started: "subprocess.Popen[str]") -> None:
    deadline = time.time() + 120
    while not condition():
        assert started.poll() is None, started.communicate()
        assert time.time() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@needs_vllm
def test_a_run_killed_in_embed_leaves_no_process(tiny_qwen: Path, small_chats: Path, tmp_path: Path) -> None:
    """With vLLM. Continued, it gives what an undisturbed run gives."""
    request = ["--dataset", small_chats, "--model", tiny_qwen, "--sample-size", 200, "--shards", 1]
    request += ["--output-dir", tmp_path, "--run-name"]
    run, undisturbed = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "undisturbed")
    started = start_run([*request, "run"])
    wait_for(lambda: any(len(p.read_bytes().splitlines()) > 1 for p in run.shard(0).glob("*.jsonl")), started)
    assert len(processes_of(tmp_path)) >= 3
    started.kill()
    assert started.wait() == -signal.SIGKILL
    wait_until_gone(tmp_path, 10)
    assert not run.shard_manifest(0).exists()
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path)
    assert read(run.shard_manifest(0), ShardManifest).chunks_adopted >= 1
    assert embedkit("verify", run.path).returncode == 0
    embedkit("run", *request, "undisturbed")
    assert run.metadata.read_bytes() == undisturbed.metadata.read_bytes()
    vectors, expected = (matrix_of(one.view_matrix("combined")) for one in (run, undisturbed))
    assert np.abs(vectors - expected).max() <= 1e-6


@pytest.mark.slow
def test_a_run_interrupted_in_prepare_leaves_no_process(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    request = [
        *("--dataset", demo_chats, "--model", minilm, "--engine", "hash", "--sample-size", 1000),
        *("--output-dir", tmp_path, "--run-name", "run"),
    ]
    run = RunFolder(tmp_path / "run")
    started = start_run(request)
    wait_for(run.part_manifest(0).exists, started)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to the queue and to all its children
    assert started.wait(20) == 130
    wait_until_gone(tmp_path, 10)
    assert started.stderr is not None
    message = started.stderr.read()
    assert "interrupted; finished work is kept. To continue: embedkit run --resume" in message
    assert "Traceback" not in message
    assert not run.plan.exists()
    made = run.part_data(0).stat().st_mtime_ns
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path)
    assert run.part_data(0).stat().st_mtime_ns == made
    assert embedkit("verify", run.path).returncode == 0


def test_a_run_takes_the_gpus_of_its_machine(hash_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of the login node where it was created."""
    on_cpus = read(hash_run.config, RunConfig)
    config = msgspec.structs.replace(on_cpus, request=msgspec.structs.replace(on_cpus.request, device="cuda"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    assert slots_of(config, None) == (3, ["4", "5", "7"])
    assert slots_of(config, 2) == (2, ["4", "5"])
    with pytest.raises(UsageError, match="--num-gpus 4: this machine has 3 GPUs"):
        slots_of(config, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UsageError, match="the run needs GPUs: this machine has 0 GPUs"):
        slots_of(config, None)
    assert slots_of(on_cpus, None) == (on_cpus.num_gpus, [])
    assert slots_of(on_cpus, 5) == (5, [])
