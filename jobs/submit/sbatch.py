"""Call sbatch for the jobs of a chain, in order, and record each. If one is refused, the earlier ones are cancelled.

If the answer to a call is lost, the job is searched for. If Slurm does not say whether it exists, nothing is cancelled.
"""

import logging
import os
from collections.abc import Sequence

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.output import print_error
from jobs.profiles import Profile, Stage
from jobs.records import Submission, Submissions, new_submission, now
from jobs.slurm import SETTLE_SECONDS, array_spec, call_sbatch, cancel, own_environment, still_active
from jobs.submit.chain import ChainJob
from jobs.submit.find_submitted import LostJobError, SbatchError, WaitingForSbatch, confirm, what_may_be_there
from jobs.submit.script import make_script

log = logging.getLogger("embedkit")


def submit(run: RunFolder, profile: Profile, jobs: Sequence[ChainJob], why: str) -> list[Submission]:
    """Submit the jobs of a chain in their order; returns the lines added to `submissions.jsonl`.

    Raises:
        EmbedkitError: sbatch refused a job. The jobs before it were cancelled, or the error names those that were not.
            Or it is not known whether a job was submitted: then nothing was cancelled, and the error says what to type.
    """
    record = Submissions(run)
    (run.logs / "slurm").mkdir(parents=True, exist_ok=True)
    done: dict[Stage, Submission] = {}
    intent = None
    try:
        for job in jobs:
            ready = job.with_job_ids({stage: line.job for stage, line in done.items() if line.job is not None})
            intent = _intent(profile, ready, why)
            record.add(intent)  # before sbatch: if this process is killed, the job is still found by its tag
            done[job.stage] = _submit_one(run, record, profile, ready, intent)
            record.add(done[job.stage])
    except (LostJobError, KeyboardInterrupt) as error:
        before = [line.job for line in done.values() if line.job is not None]
        advice = what_may_be_there(run, intent, before)
        if isinstance(error, LostJobError):
            raise EmbedkitError(f"{job.stage} may have been submitted: {error}\n{advice}") from None
        print_error(f"interrupted while it submitted {job.stage}\n{advice}")
        raise
    except BaseException as error:
        outcome = _rollback(record, list(done.values()))
        if isinstance(error, SbatchError | OSError):
            raise EmbedkitError(f"{job.stage} was not submitted: {error}\n{outcome}") from None
        log.error(outcome)
        raise
    return list(done.values())


def _intent(profile: Profile, job: ChainJob, why: str) -> Submission:
    """The line before the sbatch of a job."""
    shards = array_spec(job.indices) if job.indices is not None and job.per_job > 1 else ""
    return new_submission(
        job.stage,
        job.array,
        job.dependency,
        why,
        str(profile.path),
        profile.stages[job.stage],
        shards,
        profile_sha256=profile.sha256,
        allow_mixed=job.allow_mixed,
    )


def _submit_one(run: RunFolder, record: Submissions, profile: Profile, job: ChainJob, line: Submission) -> Submission:
    """Submit one job; returns its line with the id.

    Raises:
        SbatchError: sbatch refused it.
        LostJobError: it is not known whether it was submitted.
        OSError: the script cannot be written, or sbatch cannot be started.
    """
    path = run.logs / "slurm" / f"{job.stage}-{line.tag}.sh"
    path.write_bytes(os.fsencode(make_script(run, profile, job, line.tag)))
    with own_environment():
        answer = call_sbatch(path, WaitingForSbatch(run, line))
    try:
        job_id = confirm(run, line, answer)
    except SbatchError:
        record.add_answer(line, "refused", None)
        raise
    return msgspec.structs.replace(line, what="submitted", at=now(), job=job_id)


def _rollback(record: Submissions, lines: Sequence[Submission]) -> str:
    """Cancel the jobs that were just submitted; returns what became of them."""
    jobs = [line.job for line in lines if line.job is not None]
    if not jobs:
        return "this command submitted no job"
    names, problem = ", ".join(jobs), ""
    try:
        cancel(jobs)
    except EmbedkitError as error:
        problem = f" ({error})"
    left = still_active(jobs, 0.0 if problem else SETTLE_SECONDS)
    there = sorted({task.job for task in left.active} | set(left.unanswered), key=int)
    if there:
        return (
            f"jobs {names} were submitted before it, and {', '.join(there)} may still be there{problem}; to cancel "
            f"them: scancel {' '.join(there)}"
        )
    try:
        for line in lines:
            record.add(msgspec.structs.replace(line, what="cancelled", at=now()))
    except OSError as error:
        return f"jobs {names}, submitted before it, are cancelled, which could not be recorded ({error})"
    return f"jobs {names}, submitted before it, are cancelled; nothing of this chain is left"
