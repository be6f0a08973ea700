"""Call sbatch for the jobs of a chain, in order, and record each. If one is refused, the earlier ones are cancelled.

If the answer to a call is lost, the job is searched for. If Slurm does not say whether it exists, nothing is cancelled.
"""

import logging
import os
from collections.abc import Sequence
from functools import cache

import msgspec

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.output import print_error, print_note, show_progress
from jobs.profiles import Profile
from jobs.records import Submission, Submissions, new_submission, now
from jobs.slurm import (
    SETTLE_SECONDS,
    array_spec,
    call_sbatch,
    cancel,
    chosen_cluster,
    configuration,
    job_list,
    on_cluster,
    own_environment,
    still_active,
    use_cluster,
)
from jobs.submit.chain import ChainJob
from jobs.submit.find_submitted import LostJobError, SbatchError, WaitingForSbatch, confirm, what_may_be_there
from jobs.submit.lanes import one_by_one
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
    done: list[Submission] = []
    ids: dict[str, str] = {}
    calls = one_by_one(jobs)
    intent = None
    try:
        with show_progress("submitting jobs", len(calls)) as advance:
            for job in calls:
                ready = job.with_job_ids(ids)
                intent = _intent(profile, ready, why)
                record.add(intent)  # before sbatch: if this process is killed, the job is still found by its tag
                done.append(_submit_one(run, record, profile, ready, intent))
                record.add(done[-1])
                _add_id(ids, job, done[-1])
                advance()
    except (LostJobError, KeyboardInterrupt) as error:
        advice = what_may_be_there(run, intent, [line.job for line in done if line.job is not None])
        if isinstance(error, LostJobError):
            raise EmbedkitError(f"{job.name} may have been submitted: {error}\n{advice}") from None
        print_error(f"interrupted while it submitted {job.name}\n{advice}")
        raise
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


def _intent(profile: Profile, job: ChainJob, why: str) -> Submission:
    """The line before the sbatch of a job."""
    is_single = job.indices is not None and not job.as_array
    shards = array_spec(job.indices) if job.indices is not None and (job.per_job > 1 or is_single) else ""
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
        parallel=job.parallel if is_single else None,
        variables=profile.variables,
    )


def _submit_one(run: RunFolder, record: Submissions, profile: Profile, job: ChainJob, line: Submission) -> Submission:
    """Submit one job; returns its line with the id.

    Raises:
        SbatchError: sbatch refused it.
        LostJobError: it is not known whether it was submitted.
        OSError: the script cannot be written, or sbatch cannot be started.
    """
    path = run.logs / "slurm" / f"{job.name}-{line.tag}.sh"
    path.write_bytes(os.fsencode(make_script(run, profile, job, line.tag)))
    with own_environment():
        answer = call_sbatch(path, WaitingForSbatch(run, line))
    try:
        job_id = confirm(run, line, answer)
    except SbatchError:
        record.add_answer(line, "refused", None)
        raise
    clusters = _follow(answer.cluster) or line.clusters
    return msgspec.structs.replace(line, what="submitted", at=now(), job=job_id, clusters=clusters)


def _follow(cluster: str) -> str:
    """Ask the cluster that sbatch's answer names from now on, if it is a different one; returns it, else ""."""
    if cluster in ("", chosen_cluster(), _own_cluster()):
        return ""
    print_note(f"sbatch sent the job to cluster {cluster}; later commands ask there")
    use_cluster(cluster, "sbatch's answer")
    return cluster


@cache
def _own_cluster() -> str:
    """The name of the cluster that this machine belongs to; "" if Slurm does not answer."""
    try:
        with on_cluster(""):
            return configuration().get("ClusterName", "")
    except EmbedkitError:
        return ""


def _rollback(record: Submissions, lines: Sequence[Submission]) -> str:
    """Cancel the jobs that were just submitted; returns what became of them."""
    jobs = [line.job for line in lines if line.job is not None]
    if not jobs:
        return "this command submitted no job"
    names, problem = job_list(jobs), ""
    try:
        cancel(jobs[::-1])  # the last first: they wait for the others
    except EmbedkitError as error:
        problem = f" ({error})"
    left = still_active(jobs, 0.0 if problem else SETTLE_SECONDS)
    there = sorted({task.job for task in left.active} | set(left.unanswered), key=int)
    if there:
        return (
            f"jobs {names} were submitted before it, and {job_list(there)} may still be there{problem}; to cancel "
            f"them: scancel {' '.join(there)}"
        )
    try:
        for line in lines:
            record.add(msgspec.structs.replace(line, what="cancelled", at=now()))
    except OSError as error:
        return f"jobs {names}, submitted before it, are cancelled, which could not be recorded ({error})"
    return f"jobs {names}, submitted before it, are cancelled; nothing of this chain is left"
