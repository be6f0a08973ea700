"""Slurm's commands behind wrapper scripts that lose, change, delay or repeat answers; the jobs are real."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from jobs.records.submissions import Submissions
from jobs.slurm.squeue import QUEUE_FORMAT
from tests.conftest import EMBEDKIT, ROOT, embedkit, hash_request
from tests.on_slurm.test_submit import held
from tests.support.slurm import wrappers as w
from tests.support.slurm.chains import faults, jobs_of, live, rerun, submit, wait_ended, wait_until
from tests.support.slurm.cluster import Cluster

pytestmark = pytest.mark.slow


@pytest.fixture
def request_of(cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> list[object]:
    """The arguments of a submit whose jobs wait until they are cancelled."""
    return ["submit", *hash_request(small_chats, tokenizer_only, tmp_path), "--profile", held(tmp_path)]


def in_slurm(cluster: Cluster, run: RunFolder) -> list[str]:
    """The ids of all jobs in the run's folder that are queued or running, whatever the run has recorded."""
    lines = cluster.run("squeue", "-h", "-t", "PD,R,CF,CG,S", "-o", "%F %T %Z").splitlines()
    found = {line.split()[0] for line in lines if line.split()[2] == str(run.path) and "COMPLETING" not in line}
    return sorted(found, key=int)


def by_stage(**texts: str) -> str:
    """A wrapper of sbatch that does something different for the job of each stage."""
    cases = "\n".join(f"*/{stage}-*)\n{text}\n;;" for stage, text in texts.items())
    return f'case "${{!#}}" in\n{cases}\n*) real "$@" ;;\nesac'


def test_jobs_whose_answer_was_lost_are_found_and_kept(
    cluster: Cluster, request_of: list[object], tmp_path: Path
) -> None:
    """By their tag; by name and folder where comments do not arrive; and where sbatch says nothing at all."""
    run = RunFolder(tmp_path / "run")
    text = by_stage(prepare=w.SBATCH_LOSES_THE_ANSWER, embed=w.SBATCH_DROPS_COMMENTS, merge=w.SBATCH_SAYS_NOTHING)
    done = embedkit(*request_of, **cluster.environment | w.wrappers(tmp_path / "bin", sbatch=text))
    jobs = jobs_of(run)
    assert len(jobs) == 3
    assert in_slurm(cluster, run) == jobs
    for stage, job in zip(("prepare", "embed", "merge"), jobs, strict=True):
        assert f"{stage} was submitted all the same: job {job}" in done.stderr
    assert re.search(r"prepare: sbatch: error: .*; searching for the job", done.stderr)
    assert "nothing to submit" in rerun(cluster, run).stdout
    cluster.run("scancel", *jobs)


def test_a_wrapped_sbatch_gives_the_right_ids(cluster: Cluster, request_of: list[object], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    text = by_stage(prepare=w.SBATCH_WITH_A_BANNER, embed=w.SBATCH_WITH_ONLY_THE_ID, merge=w.SBATCH_TRIES_AGAIN)
    done = embedkit(*request_of, **cluster.environment | w.wrappers(tmp_path / "bin", sbatch=text))
    merge = jobs_of(run)[-1]
    (copy,) = set(in_slurm(cluster, run)) - set(jobs_of(run))
    assert len(jobs_of(run)) == 3
    assert "sbatch: warning: the file system is 91 % full" in done.stderr
    # The copy of merge is cancelled by the next command.
    note = f"job {copy} is a second copy of job {merge}: one call of sbatch made both. To end it: scancel {copy}"
    assert note in " ".join(embedkit("status", run.path, code=1, **cluster.environment).stdout.split())
    assert f"cancelled: {copy} (second copies of {merge}: " in rerun(cluster, run).stdout
    wait_until(lambda: in_slurm(cluster, run) == jobs_of(run))
    cluster.run("scancel", *jobs_of(run))


def test_a_hanging_sbatch_is_reported_and_may_be_interrupted(
    cluster: Cluster, request_of: list[object], tmp_path: Path
) -> None:
    """For embed it hangs after Slurm has the job, which is found; for merge before that."""
    run = RunFolder(tmp_path / "run")
    text = by_stage(embed=w.SBATCH_HANGS_AFTER_ACCEPTING, merge=w.SBATCH_HANGS_BEFORE_ACCEPTING)
    environment = os.environ | cluster.environment | w.wrappers(tmp_path / "bin", sbatch=text)
    command = [*EMBEDKIT, *map(str, request_of)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "INFO Column 'messages'" in process.stderr.readline()
        assert "INFO Row 0, as it will be embedded" in process.stderr.readline()
        assert "sbatch has not answered for 5 s; still waiting" in process.stderr.readline()
        assert "embed was submitted all the same: job " in process.stderr.readline()
        assert "sbatch has not answered for 5 s; still waiting" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    jobs = in_slurm(cluster, run)
    assert jobs_of(run) == jobs
    assert f"jobs {', '.join(jobs)}, submitted before it, are left as they are" in said
    assert f"embedkit rerun {run.path}" in said
    assert "nothing was submitted" not in said
    rerun(cluster, run)
    assert [line.stage for line in Submissions(run).read() if line.what == "submitted"] == ["prepare", "embed", "merge"]
    assert in_slurm(cluster, run) == jobs_of(run)
    cluster.run("scancel", *jobs_of(run))


def test_while_slurm_is_silent_nothing_is_claimed_or_cancelled(
    cluster: Cluster, request_of: list[object], tmp_path: Path
) -> None:
    """The answer for merge is lost, and then no command of Slurm answers. Later, rerun records the job."""
    run = RunFolder(tmp_path / "run")
    silent = f'[ -e {tmp_path}/lost ] && {{ {w.FAILS}; }}\nreal "$@"'
    text = by_stage(merge=f"touch {tmp_path}/lost; {w.SBATCH_LOSES_THE_ANSWER}")
    environment = w.wrappers(tmp_path / "bin", sbatch=text, squeue=silent, scontrol=silent, sacct=silent)
    quickly = "import jobs.submit.find_submitted as f; f.SEARCHES_AT = (0.0,); from jobs.cli.main import main; main()"
    failed = subprocess.run(
        [sys.executable, "-c", quickly, *map(str, request_of)],
        cwd=ROOT,
        env=os.environ | cluster.environment | environment,
        capture_output=True,
        text=True,
    )
    jobs = in_slurm(cluster, run)
    assert len(jobs) == 3
    assert failed.returncode == 1
    assert "merge may have been submitted: sbatch: error: Batch job submission failed: Socket timed" in failed.stderr
    assert f"jobs {', '.join(jobs[:2])}, submitted before it, are left as they are" in failed.stderr
    for said in (
        "name run.merge, comment embedkit-",
        "squeue --me",
        *(f"{name} {run.path}" for name in ("rerun", "cancel")),
    ):
        assert said in failed.stderr
    refused = embedkit("cancel", run.path, check=False, **cluster.environment | environment)
    assert refused.returncode == 1
    assert f"Recorded are: {jobs[0]} {jobs[1]}" in refused.stderr
    assert in_slurm(cluster, run) == jobs
    assert "nothing to submit" in rerun(cluster, run).stdout
    assert jobs_of(run) == jobs
    cluster.run("scancel", *jobs)


def test_a_refused_job_whose_predecessors_stay_names_them(
    cluster: Cluster, request_of: list[object], tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    refused = "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1"
    text = by_stage(merge=refused)
    environment = w.wrappers(tmp_path / "bin", sbatch=text, scancel=w.FAILS)
    failed = embedkit(*request_of, check=False, **cluster.environment | environment)
    jobs = in_slurm(cluster, run)
    assert failed.returncode == 1
    assert len(jobs) == 2
    assert "merge was not submitted: sbatch: error: Batch job submission failed: Invalid account" in failed.stderr
    assert f"{', '.join(jobs)} may still be there" in failed.stderr
    assert f"to cancel them: scancel {' '.join(jobs)}" in failed.stderr
    failed = embedkit("cancel", run.path, check=False, **cluster.environment | environment)
    assert failed.returncode == 1
    assert "these jobs may still be queued or running" in failed.stderr
    assert "cancelled" not in failed.stdout
    # cancel works where squeue cannot be read.
    done = embedkit(
        "cancel", run.path, **cluster.environment | w.wrappers(tmp_path / "own", squeue=w.SQUEUE_WITH_ITS_OWN_FORMAT)
    )
    assert "cancelled: 3 embed pending" in done.stdout
    assert "the jobs were found by scontrol" in done.stderr
    assert in_slurm(cluster, run) == []


def test_a_squeue_that_hides_running_shards_misleads_no_command(
    cluster: Cluster, small_chats: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """From a cache, in a format of its own, and with a banner around a right answer."""
    fault = faults(tmp_path / "f", seconds=20.0)
    cached = tmp_path / "queue.txt"
    cached.write_text(cluster.run("squeue", "-u", "nobody", "-o", QUEUE_FORMAT) + "\n")
    run = submit(cluster, small_chats, tokenizer_only, tmp_path, "--num-gpus", 2, **fault)
    wait_until(lambda: Counter(line.split()[2] for line in live(cluster, run))["RUNNING"] == 2)
    before = in_slurm(cluster, run)
    old_answer = cluster.run("squeue", "-a", "-u", str(os.getuid()), "-o", QUEUE_FORMAT) + "\n"
    _, embed, merge = jobs_of(run)

    own = cluster.environment | w.wrappers(tmp_path / "own", squeue=w.SQUEUE_WITH_ITS_OWN_FORMAT)
    failed = embedkit("rerun", run.path, check=False, **own)
    assert failed.returncode == 1
    assert "squeue printed something that is not its answer: 'JOBID" in failed.stderr
    status = embedkit("status", run.path, code=1, **own).stdout
    assert "it is not known whether jobs are queued or running" in status

    there = "already on the cluster: 1 embed pending, 2 embed running, 1 merge pending"
    banner = cluster.environment | w.wrappers(tmp_path / "banner", squeue=w.SQUEUE_WITH_A_BANNER)
    assert there in embedkit("rerun", run.path, **banner).stdout
    stale = cluster.environment | w.wrappers(tmp_path / "stale", squeue=w.squeue_from_a_cache(cached))
    again = embedkit("rerun", run.path, new_interpreter=True, **stale)
    assert there in again.stdout
    assert "nothing to submit" in again.stdout
    status = embedkit("status", run.path, code=1, **stale).stdout
    assert "2 running, 1 pending" in status
    assert f"squeue does not show {embed}_" in status
    assert in_slurm(cluster, run) == before

    cancelled = embedkit("cancel", run.path, **stale)
    assert "cancelled: 2 embed running" in cancelled.stdout
    assert f"jobs {merge}, {embed};" in cancelled.stdout
    assert "found by scontrol" in cancelled.stderr
    wait_ended(cluster, run)
    assert "no job of this run is queued or running" in embedkit("cancel", run.path, **stale).stdout

    # The cache has an answer from before the cancel.
    cached.write_text(old_answer)
    note = f"squeue still shows {embed}_0, {embed}_1, {embed}_2, {merge}, which have ended: its answer is old"
    status = embedkit("status", run.path, code=1, **stale).stdout
    assert "2 running" not in status
    assert note in " ".join(status.split())
    again = embedkit("rerun", run.path, "--dry-run", **stale)
    assert note in again.stderr
    assert "already on the cluster" not in again.stdout
    assert "would submit embed shards 0-2" in again.stdout
    again = embedkit("cancel", run.path, **stale)
    assert note in again.stderr
    assert "no job of this run is queued or running" in again.stdout
