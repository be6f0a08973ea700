"""Submitting jobs of a chain, in order, each written down; what was submitted is taken back if the next one fails."""

import logging
from collections.abc import Sequence

import msgspec
from submitit.core.utils import FailedJobError, FailedSubmissionError

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.profiles.schema import Profile, Resources, Stage
from jobs.records.submissions import Submission, Submissions, new_submission, now
from jobs.slurm.client import array_spec, cancel, own_environment
from jobs.submit.chain import ChainJob, JobExecutor

log = logging.getLogger("embedkit")


def submit(run: RunFolder, profile: Profile, jobs: Sequence[ChainJob], why: str) -> list[Submission]:
    """Submit jobs of a chain in their order; returns the lines that were written to `submissions.jsonl`.

    Raises:
        EmbedkitError: sbatch refused one; those before it were cancelled, or the error says which were not.
    """
    record = Submissions(run)
    (run.logs / "slurm").mkdir(parents=True, exist_ok=True)
    done: dict[Stage, Submission] = {}
    try:
        for job in jobs:
            ready = job.after({stage: line.job for stage, line in done.items() if line.job is not None})
            done[job.stage] = _submit_one(run, record, profile, ready, why)
    except BaseException as error:
        said = _rollback(record, list(done.values()))
        if isinstance(error, FailedJobError | FailedSubmissionError | OSError):
            raise EmbedkitError(f"{job.stage} was not submitted: {_reason(error)}\n{said}") from None
        log.error(said)
        raise
    return list(done.values())


def script(run: RunFolder, profile: Profile, job: ChainJob) -> str:
    """What would be given to sbatch for a job."""
    return JobExecutor(run, job, profile.stages[job.stage], "TAG").text()


def _submit_one(run: RunFolder, record: Submissions, profile: Profile, job: ChainJob, why: str) -> Submission:
    resources: Resources = profile.stages[job.stage]
    shards = array_spec(job.indices) if job.indices is not None and job.per_job > 1 else ""
    asked = new_submission(job.stage, job.array, job.dependency, why, str(profile.path), resources, shards)
    record.add(asked)
    with own_environment():
        job_id = JobExecutor(run, job, resources, asked.tag).start()
    submitted = msgspec.structs.replace(asked, what="submitted", at=now(), job=job_id)
    try:
        record.add(submitted)
    except OSError:
        cancel([job_id])
        raise
    return submitted


def _rollback(record: Submissions, lines: Sequence[Submission]) -> str:
    """Cancel what was submitted just now; what to say of it."""
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


def _reason(error: Exception) -> str:
    """What sbatch said, without the trace that submitit wraps it in."""
    text = str(error)
    said = [line for line in text.splitlines() if "sbatch: error" in line]
    return "\n".join(said) or text
