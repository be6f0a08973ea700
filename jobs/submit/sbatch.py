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
from jobs.output import show_progress
from jobs.profiles import Profile
from jobs.records import Submission, Submissions, new_submission, now
from jobs.slurm import array_spec, cancel, job_list, own_environment
from jobs.submit.chain import ChainJob
from jobs.submit.lanes import one_by_one
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
    done: list[Submission] = []
    ids: dict[str, str] = {}
    calls = one_by_one(jobs)
    try:
        with show_progress("submitting jobs", len(calls)) as advance:
            for job in calls:
                done.append(_submit_one(run, record, profile, job.with_job_ids(ids), why))
                _add_id(ids, job, done[-1])
                advance()
    except BaseException as error:
        outcome = _rollback(record, done)
        if isinstance(error, SbatchError | OSError):
            advice = _advice(job, calls, done, str(error)) if isinstance(error, SbatchError) else ""
            raise EmbedkitError(f"{job.name} was not submitted: {error}{advice}\n{outcome}") from None
        log.error(outcome)
        raise
    return done


def _add_id(ids: dict[str, str], job: ChainJob, line: Submission) -> None:
    """Add the id of a submitted job by its name and by its stage, as ChainJob.with_job_ids takes them."""
    for name in {job.name, job.stage}:
        ids[name] = f"{ids[name]}:{line.job}" if name in ids else f"{line.job}"


def _advice(job: ChainJob, calls: Sequence[ChainJob], done: Sequence[Submission], error: str) -> str:
    """What to do about a job that sbatch refused: an array, or one of the many jobs of embed without an array."""
    if job.array:
        hint = "\nif this site refuses job arrays, write array = false under [embed] of the profile"
        return hint if "array" in error.lower() else ""
    embed = [job for job in calls if job.indices and not job.as_array]
    if not embed or not done:
        return ""
    fit = max(len(done) - (len(calls) - len(embed)), 0) * embed[0].per_job
    fitting = (
        f". If the site limits how many jobs a user may have, {fit} shards fit: make a new run with --shards {fit}, or "
        "rerun some shards with --shard"
    )
    return f"\nsbatch accepted {len(done)} of {len(calls)} jobs before it{fitting if fit else ''}"


def _submit_one(run: RunFolder, record: Submissions, profile: Profile, job: ChainJob, why: str) -> Submission:
    resources = profile.stages[job.stage]
    is_single = job.indices is not None and not job.as_array
    shards = array_spec(job.indices) if job.indices is not None and (job.per_job > 1 or is_single) else ""
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
        parallel=job.parallel if is_single else None,
    )
    record.add(intent)  # before sbatch: if this process is killed, the job is still found by its tag
    path = run.logs / "slurm" / f"{job.name}-{intent.tag}.sh"
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
        cancel(jobs[::-1])  # the last first: they wait for the others
        for line in lines:
            record.add(msgspec.structs.replace(line, what="cancelled", at=now()))
    except (EmbedkitError, OSError) as error:
        return f"jobs {job_list(jobs)} were submitted and could not be cancelled ({error}): scancel {' '.join(jobs)}"
    return f"jobs {job_list(jobs)}, submitted before it, are cancelled; nothing of this chain is left"
