"""`array = false`: one job per task of embed, on a cluster whose sbatch refuses arrays."""

import json
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from jobs.records.attempts import Attempts
from jobs.records.submission import Submission
from tests.conftest import embedkit, hash_request, snapshot
from tests.on_slurm.test_submit import cancel, lines_of, profile, stand_in
from tests.support.slurm.chains import faults, file_times, jobs_of, logs, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow

REFUSING = """
if grep -qs -e '--array' "$@"; then echo "sbatch: error: --array is not available here" >&2; exit 1; fi
"""
"""As on Frontera: a filter refuses arrays."""
PAIRS = """\
[all]
partition = "cpu"
cpus = 1
mem = 1500
time = 60
[embed]
partition = "gpu"
gpus_per_job = 2
cpus = 2
mem = 3000
array = false
"""


def site_of(folder: Path, *changes: str) -> Path:
    return profile(folder, "array = false", *changes)


def embeds(run: RunFolder) -> list[Submission]:
    return [line for line in lines_of(run) if line.stage == "embed"]


def running_at_once(cluster: Cluster, jobs: list[str]) -> int:
    """How many of these jobs ran at once at most, by the accounting's whole seconds."""
    text = cluster.run("sacct", "-nXPD", "-j", ",".join(jobs), "-o", "Start,End")
    spans = [line.split("|") for line in text.splitlines() if "Unknown" not in line and "None" not in line]
    return max(sum(start <= at < end for start, end in spans) for at, _ in spans)


def attempts(run: RunFolder, shard: int) -> list[str]:
    return [attempt.outcome for attempt in Attempts(run, "embed", shard).attempts()]


def started(run: RunFolder, shard: int) -> str:
    return Attempts(run, "embed", shard).attempts()[0].started.at


def ended(run: RunFolder, shard: int) -> str:
    exit_record = Attempts(run, "embed", shard).attempts()[-1].exit_record
    assert exit_record is not None
    return exit_record.at


def test_five_jobs_run_two_at_once_and_rerun_submits_one(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    environment = faults(tmp_path / "faults", 0.15, shards={"3": ["raise", 1]}) | stand_in(
        tmp_path / "bin", REFUSING + 'real "$@"'
    )
    request = [*hash_request(small_chats, tokenizer_only, tmp_path), "--profile", site_of(tmp_path)]
    more = ["--shards", 5, "--num-gpus", 2]
    said = embedkit("submit", *request, *more, **cluster.environment, **environment).stdout
    run = RunFolder(tmp_path / "run")
    jobs = jobs_of(run, "embed")
    prepare = jobs_of(run, "prepare")[0]
    assert f"jobs {', '.join(jobs)}: embed shards 0-4 (2 at once) (after afterok:{prepare})" in said
    names = cluster.run("squeue", "-h", "-j", ",".join(jobs), "-o", "%i %j").splitlines()
    assert sorted(names) == sorted(f"{job} run.embed-{shard:05d}" for shard, job in enumerate(jobs))
    first, second = jobs[:2]
    assert [line.dependency for line in embeds(run)] == [
        f"afterok:{prepare}",
        f"afterok:{prepare}",
        f"afterok:{prepare},afterany:{first}",
        f"afterok:{prepare},afterany:{second}",
        f"afterok:{prepare},afterany:{first}:{jobs[2]}",
    ]
    # A requeued job keeps its place: the next one of its lane does not start.
    wait_until(lambda: attempts(run, 0), describe=lambda: logs(run))
    cluster.run("scontrol", "requeue", first)
    wait_ended(cluster, run)
    assert [attempts(run, shard) for shard in (1, 3)] == [["finished"], ["failed"]]
    assert attempts(run, 0) == ["stopped", "finished"]  # Slurm starts it again: it is not cancelled
    assert started(run, 2) >= ended(run, 0)
    assert started(run, 1) < ended(run, 0)  # the two lanes run side by side
    assert running_at_once(cluster, jobs) <= 2
    assert {f"embed-{shard:05d}.log" for shard in range(5)} <= {path.name for path in run.logs.glob("*.log")}
    about = json.loads(embedkit("status", run.path, "--json", code=1, **cluster.environment).stdout)
    assert [shard["state"] for shard in about["shards"]] == ["done", "done", "done", "failed", "done"]
    assert about["shards"][3]["job"] == jobs[3]
    assert "illegal memory access" in embedkit("logs", run.path, "--failed", **cluster.environment).stdout
    before = file_times(run, [0, 1, 2, 4])

    said = rerun(cluster, run, **environment).stdout
    again = embeds(run)[5:]
    assert [(line.shards, line.shards_at_once) for line in again] == [("3", 2)]
    assert f"job {again[0].job}: embed shards 3 (2 at once)" in said
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(five_shards), logs(run)
    assert file_times(run, [0, 1, 2, 4]) == before
    scripts = [path.read_text() for path in (run.logs / "slurm").glob("*.sh")]
    assert len(scripts) == 9
    assert not any("--array" in script for script in scripts)
    report = json.loads(embedkit("report", run.path, "--json", **cluster.environment).stdout)
    made = [(attempt["shard"], attempt["job"]) for attempt in report["attempts"] if attempt["stage"] == "embed"]
    assert made == [(0, first), (0, first), (1, second), (2, jobs[2]), (3, jobs[3]), (3, again[0].job), (4, jobs[4])]


def test_cancelled_lanes_and_a_failed_prepare_start_nothing(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--shards", 5, "--num-gpus", 2)
    (tmp_path / "broken").mkdir()
    text = site_of(tmp_path).read_text().replace("[prepare]", '[prepare]\nbefore = ["exit 1"]')
    broken = profile(tmp_path / "broken", text=text)
    failed = submit(*asked, "--profile", broken, name="failed")
    run = submit(*asked, "--profile", site_of(tmp_path), **faults(tmp_path / "faults", 1.0))
    wait_until(lambda: attempts(run, 0) and attempts(run, 1), describe=lambda: logs(run))
    said = embedkit("cancel", run.path, **cluster.environment).stdout
    assert "cancelled: 3 embed pending\ncancelled: 2 embed running" in said
    wait_ended(cluster, run)
    assert [attempts(run, shard) for shard in range(5)] == [["cancelled"]] * 2 + [[]] * 3
    about = json.loads(embedkit("status", run.path, "--json", code=1, **cluster.environment).stdout)
    assert [shard["state"] for shard in about["shards"]] == ["cancelled"] * 5

    wait_ended(cluster, failed)
    states = cluster.run("squeue", "-h", "-t", "all", "-j", ",".join(jobs_of(failed, "embed")), "-o", "%T").split()
    assert states == ["CANCELLED"] * 5
    assert not list(failed.logs.glob("embed-*.log"))


def test_a_submit_that_ends_early_is_undone_or_completed(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    request = hash_request(small_chats, tokenizer_only, tmp_path)
    more = ["--profile", site_of(tmp_path, "sbatch = { hold = true }"), "--shards", 8, "--num-gpus", 3]
    refuse = 'if [ $N = 6 ]; then echo "sbatch: error: Too many jobs" >&2; exit 1; fi\nreal "$@"'
    refused = embedkit(
        *("submit", *request, *more), check=False, **cluster.environment, **stand_in(tmp_path / "refuses", refuse)
    )
    run = RunFolder(tmp_path / "run")
    assert refused.returncode == 1
    assert "embed-00004 was not submitted: sbatch: error: Too many jobs" in refused.stderr
    assert "sbatch accepted 5 of 10 jobs before it" in refused.stderr
    assert "3 shards fit" in refused.stderr
    assert "submitted before it, are cancelled" in refused.stderr
    assert len(jobs_of(run)) == 5
    wait_ended(cluster, run)

    kill = 'real "$@"; if [ $N = 6 ]; then kill -9 $PPID; fi'
    environment = cluster.environment | stand_in(tmp_path / "kills", kill)
    assert embedkit("rerun", run.path, check=False, **environment).returncode == -9
    assert len(jobs_of(run)) == 5 + 5
    said = rerun(cluster, run).stdout
    assert "already on the cluster: 5 embed pending, 1 prepare pending" in said
    # The job of shard 4 is on the cluster, though its id was never recorded.
    by_name = dict(line.split() for line in cluster.run("squeue", "-h", "-o", "%j %i").splitlines())
    ids = [by_name[f"run.embed-{shard:05d}"] for shard in range(8)]
    assert [(line.shards, line.job) for line in embeds(run)[-3:]] == [("5", ids[5]), ("6", ids[6]), ("7", ids[7])]
    behind = [set(line.dependency_ids) & set(ids) for line in embeds(run)[-3:]]
    assert sorted(map(sorted, behind)) == sorted(map(sorted, [{ids[2]}, {ids[0], ids[3]}, {ids[1], ids[4]}]))
    merge = lines_of(run)[-1]
    assert (merge.stage, set(merge.dependency_ids)) == ("merge", set(ids))
    cluster.run("scancel", ids[4])
    cancel(cluster, run)


def test_pairs_of_shards_run_as_jobs_of_their_own(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, five_shards: RunFolder, tmp_path: Path
) -> None:
    (tmp_path / "pairs.toml").write_text(PAIRS)
    environment = faults(tmp_path / "faults", shards={"2": ["raise", 1]}) | stand_in(
        tmp_path / "bin", REFUSING + 'real "$@"'
    )
    asked = (cluster, small_chats, tokenizer_only, tmp_path, "--profile", tmp_path / "pairs.toml", "--shards", 5)
    run = submit(*asked, **environment)
    jobs = jobs_of(run, "embed")
    assert [line.shards for line in embeds(run)] == ["0-1", "2-3", "4"]
    names = cluster.run("squeue", "-h", "-j", ",".join(jobs), "-o", "%j").split()
    assert sorted(names) == ["run.embed-job-00000", "run.embed-job-00002", "run.embed-job-00004"]
    assert embeds(run)[2].dependency.endswith(f",afterany:{jobs[0]}")
    wait_ended(cluster, run)
    logged = {path.name for path in run.logs.glob("*.log")}
    assert {"embed-job-00000.log", "embed-job-00002.log", "embed-00000.log", "embed-00003.log"} <= logged
    failed = [shard for shard in range(5) if not run.shard_manifest(shard).exists()]
    assert failed in ([2], [3]), logs(run)
    rerun(cluster, run, **environment)
    assert [line.shards for line in embeds(run)[3:]] == [str(failed[0])]
    wait_ended(cluster, run)
    assert snapshot(run) == snapshot(five_shards), logs(run)
