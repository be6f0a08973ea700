"""Call sbatch for the jobs of a chain, in order, and record each. If one fails, the earlier ones are cancelled."""

import logging
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.profiles import Profile, Stage
from jobs.records import Submission, Submissions, new_submission, now
from jobs.slurm import array_spec, cancel, own_environment
from jobs.submit.chain import ChainJob
from jobs.submit.script import make_script

log = logging.getLogger("embedkit")


class SbatchError(Exception):
    """sbatch refused a job; the text is its message."""


def submit(run: RunFolder, profile: Profile, jobs: Sequence[ChainJob], why: str) -> list[Submission]:
    """Submit the jobs of a chain in their order; returns the lines added to `submissions.jsonl`.

    Raises:
        EmbedkitError: sbatch refused a job. The jobs before it were cancelled, or the error names those that were not.
    """
    record = Submissions(run)
    (run.logs / "slurm").mkdir(parents=True, exist_ok=True)
    done: dict[Stage, Submission] = {}
    try:
        for job in jobs:
            ready = job.with_job_ids({stage: line.job for stage, line in done.items() if line.job is not None})
            done[job.stage] = _submit_one(run, record, profile, ready, why)
    except BaseException as error:
        outcome = _rollback(record, list(done.values()))
        if isinstance(error, SbatchError | OSError):
            raise EmbedkitError(f"{job.stage} was not submitted: {error}\n{outcome}") from None
        log.error(outcome)
        raise
    return list(done.values())


def _submit_one(run: RunFolder, record: Submissions, profile: Profile, job: ChainJob, why: str) -> Submission:
    resources = profile.stages[job.stage]
    shards = array_spec(job.indices) if job.indices is not None and job.per_job > 1 else ""
    intent = new_submission(
        job.stage,
        job.array,
        job.dependency,
        why,
        str(profile.path),
        resources,
        shards,
        profile_sha256=profile.sha256,
        allow_mixed=job.allow_mixed,
        variables=profile.variables,
    )
    record.add(intent)  # before sbatch: if this process is killed, the job is still found by its tag
    path = run.logs / "slurm" / f"{job.stage}-{intent.tag}.sh"
    path.write_bytes(os.fsencode(make_script(run, profile, job, intent.tag)))
    with own_environment():
        job_id = _sbatch(path)
    submitted = msgspec.structs.replace(intent, what="submitted", at=now(), job=job_id)
    try:
        record.add(submitted)
    except OSError:
        cancel([job_id])
        raise
    return submitted


def _sbatch(path: Path) -> str:
    """Submit a script; returns the job's id. Raises SbatchError, or OSError if sbatch cannot be started."""
    done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if "sbatch: error" in line]
        raise SbatchError("\n".join(errors or lines) or f"sbatch exited with {done.returncode}")
    job = re.search(r"job (\d+)", done.stdout)
    if job is None:
        raise SbatchError(f"sbatch printed no job id: {done.stdout.strip()!r}")
    return job[1]


def _rollback(record: Submissions, lines: Sequence[Submission]) -> str:
    """Cancel the jobs that were just submitted; returns what became of them."""
    jobs = [line.job for line in lines if line.job is not None]
    if not jobs:
        return "nothing was submitted"
    try:
        cancel(jobs)
        for line in lines:
            record.add(msgspec.structs.replace(line, what="cancelled", at=now()))
    except (EmbedkitError, OSError) as error:
        return f"jobs {', '.join(jobs)} were submitted and could not be cancelled ({error}): scancel {' '.join(jobs)}"
    return f"jobs {', '.join(jobs)}, submitted before it, are cancelled; nothing of this chain is left"
