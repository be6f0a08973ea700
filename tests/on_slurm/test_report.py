"""`embedkit report` on a real cluster: two attempts at a shard, the first killed, with and without accounting."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from jobs.records.attempts import Attempt, Attempts
from jobs.report.schema import AttemptReport, Report
from jobs.report.text import clock, cpus, duration, memory
from tests.conftest import embedkit, snapshot
from tests.jobs.report.test_command import report_of, table
from tests.on_slurm.test_submit import lines_of
from tests.support.slurm.chains import faults, file_times, jobs_of, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Asked:
    """What is asked for, and the finished run that it must equal."""

    data: Path
    model: Path
    folder: Path
    right: RunFolder


@pytest.fixture
def asked(small_chats: Path, tokenizer_only: Path, hash_run: RunFolder, tmp_path: Path) -> Asked:
    return Asked(small_chats, tokenizer_only, tmp_path, hash_run)


def run_with_a_kill(cluster: Cluster, asked: Asked) -> RunFolder:
    """A merged run whose shard 1 was killed at its third chunk, and alone was run again."""
    folder = asked.folder
    fault = faults(folder / "faults", 0.3, shards={"1": ["kill", 1]})
    # The cluster without accounting has no other partition.
    site = folder / "site.toml"
    site.write_text('[all]\npartition = "gpu"\ncpus = 2\nmem = 1500\ntime = 60\n[embed]\ngpus = 1\n')
    run = submit(cluster, asked.data, asked.model, folder, "--profile", site, **fault)
    wait_ended(cluster, run)
    assert not run.success.exists()
    assert "shard 1: not finished" in logs(run, ["merge.log"])
    whole = file_times(run, [0, 2])
    rerun(cluster, run, **fault)
    wait_ended(cluster, run)
    assert run.success.exists(), logs(run)
    assert lines_of(run)[3].indices == (1,)
    assert file_times(run, [0, 2]) == whole
    assert "chunks are durable already" in logs(run, ["embed-00001.log"])
    assert snapshot(run) == snapshot(asked.right)
    return run


def recorded_attempts(run: RunFolder, shard: int) -> list[Attempt]:
    return Attempts(run, "embed", shard).attempts()


def seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def check_text(report: Report, run: RunFolder, cluster: Cluster) -> None:
    """The printed rows of the shard's attempts have the numbers of the JSON."""
    printed = embedkit("report", run.path, **cluster.environment).stdout
    attempts = [attempt for attempt in report.attempts if attempt.shard == 1]
    rows = [row for row in table(printed, "attempt at") if row["attempt at"] == "shard 1"]
    assert len(rows) == len(attempts) == 2
    for row, attempt in zip(rows, attempts, strict=True):
        assert (row["job"], row["node"], row["how"]) == (attempt.job, attempt.node, attempt.outcome)
        assert row["started"] == clock(attempt.started)
        assert row["ended"] == ">=" * attempt.ended_at_least + clock(attempt.ended)
        assert row["queued"] == duration(attempt.queue_seconds)
        assert row["wall"] == duration(attempt.wall_seconds, attempt.ended_at_least)
        assert row["memory"] == memory(attempt.memory_peak, attempt.memory_requested)
        used = None if attempt.cpu_seconds is None else attempt.cpu_seconds / (attempt.wall_seconds or 1.0)
        assert row["CPUs"] == cpus(used, attempt.cpus_requested)
    shard = table(printed, "shard")[1]
    assert (shard["attempts"], shard["GPU time"]) == ("2", duration(report.shards[1].device_seconds))
    assert "it ended without an exit record" in printed


def check_attempts(report: Report, run: RunFolder) -> tuple[AttemptReport, AttemptReport]:
    """Check what both clusters know of the killed attempt and the next one."""
    first, second = [attempt for attempt in report.attempts if attempt.shard == 1]
    recorded = recorded_attempts(run, 1)
    assert [attempt.outcome for attempt in recorded] == ["failed", "finished"]
    assert (first.outcome, second.outcome) == ("failed", "finished")
    assert [first.job, second.job] == [f"{job}_1" for job in jobs_of(run, "embed")]
    assert [first.node, second.node] == [attempt.node for attempt in recorded]
    assert first.ended is not None
    assert seconds(recorded[0].started.at) <= first.ended <= seconds(recorded[1].started.at)
    assert first.wall_seconds is not None
    assert first.wall_seconds > 0.5  # two chunks of 0.3 s were done
    for attempt in (first, second):
        assert (attempt.cpus_requested, attempt.memory_requested, attempt.gpus) == (2, 1500 * MEBIBYTE, 1)
        assert attempt.queue_seconds is not None
        assert 0 <= attempt.queue_seconds < 60
    assert second.cpu_seconds is not None
    assert second.memory_peak is not None
    assert 20 * MEBIBYTE < second.memory_peak < 1500 * MEBIBYTE
    assert report.unit == "gpu"
    shard = report.shards[1]
    assert (shard.attempts, shard.chunks_adopted) == (2, 2)
    assert shard.spent is not None
    assert shard.device_seconds == pytest.approx(first.wall_seconds + (second.wall_seconds or 0.0))
    assert [report.shards[shard].attempts for shard in (0, 2)] == [1, 1]
    embed = next(stage for stage in report.stages if stage.stage == "embed")
    assert (embed.attempts, embed.attempts_lost) == (4, 1)
    return first, second


def test_killed_task_and_rerun_are_reported_with_accounting(cluster: Cluster, asked: Asked) -> None:
    run = run_with_a_kill(cluster, asked)
    # The accounting lags some seconds.
    wait_until(lambda: report_of(run, **cluster.environment).accounting == "complete")
    wait_until(lambda: report_of(run, **cluster.environment).attempts[2].memory_peak is not None)
    report = report_of(run, **cluster.environment)
    first, second = check_attempts(report, run)
    assert not any(attempt.ended_at_least for attempt in report.attempts)
    for attempt in (first, second):
        said = cluster.run("sacct", "-X", "-n", "-P", "-j", attempt.job, "-o", "Start,End,Eligible").split("|")
        began, ended, eligible = (datetime.fromisoformat(time).timestamp() for time in said)
        assert (attempt.started, attempt.queue_seconds) == (began, began - eligible)
        assert attempt.ended == pytest.approx(ended, abs=1.0)
    assert report.shards[1].spent is not None
    assert report.shards[1].spent.lost > 0
    # A task that was killed could not say what it used.
    assert first.cpu_seconds is not None
    assert first.memory_peak is not None
    assert first.memory_peak > 20 * MEBIBYTE
    assert first.why is not None
    assert "Slurm says FAILED" in first.why
    check_text(report, run, cluster)


def test_killed_task_and_rerun_are_reported_without_accounting(plain_cluster: Cluster, asked: Asked) -> None:
    run = run_with_a_kill(plain_cluster, asked)
    report = report_of(run, **plain_cluster.environment)
    assert report.accounting == "none"
    first, second = check_attempts(report, run)
    assert first.ended_at_least
    assert not second.ended_at_least
    assert (first.cpu_seconds, first.memory_peak) == (None, None)
    assert any("no accounting" in note for note in report.notes)
    check_text(report, run, plain_cluster)


def test_unfinished_run_is_reported_with_running_and_queued(
    plain_cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    fault = faults(tmp_path / "faults", 1.5)
    site = tmp_path / "site.toml"
    site.write_text('[all]\npartition = "gpu"\ncpus = 1\nmem = 1500\ntime = 60\n[embed]\ngpus = 1\n')
    run = submit(
        *(plain_cluster, small_chats, tokenizer_only, tmp_path, "--profile", site, "--num-gpus", 1),
        **fault,
    )
    wait_until(lambda: run.shard(0).exists() and any(run.shard(0).glob("*.journal.jsonl")))
    report = report_of(run, **plain_cluster.environment)
    assert [shard.state for shard in report.shards] == ["running", "queued", "queued"]
    running = next(attempt for attempt in report.attempts if attempt.shard == 0)
    assert (running.outcome, running.ended) == ("running", report.made)
    assert not report.merged
    plain_cluster.run("scancel", *jobs_of(run))
    wait_ended(plain_cluster, run)
    ended = next(a for a in report_of(run, **plain_cluster.environment).attempts if a.shard == 0)
    assert ended.outcome == "cancelled"
