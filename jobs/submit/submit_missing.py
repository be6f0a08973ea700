"""Submit a run to Slurm, for the first time or again: only the jobs that are missing."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from embedkit.documents import RunConfig, write
from embedkit.errors import EmbedkitError, EngineDiffers, UsageError
from embedkit.run import RunFolder, program
from embedkit.storage import run_lock
from embedkit.versions import environment, package_folder
from jobs.profiles import Profile
from jobs.records import Attempts, LiveReader, Submission, Submissions, adopt_found, record_profile
from jobs.slurm import array_spec, cancel, queue, require_slurm
from jobs.submit.adapt_profile import adapt_profile
from jobs.submit.chain import as_one_chain
from jobs.submit.changed_profile import ProfileCheck
from jobs.submit.check_limits import check_limits
from jobs.submit.check_profile import refuse_engine
from jobs.submit.plan import SubmissionPlan, plan_submission
from jobs.submit.sbatch import submit
from jobs.submit.script import check_path
from jobs.submit.state import SubmissionState, choose_allow_mixed, read_state, refuse_if_elsewhere

ADVICE = {
    EngineDiffers.code: " (the environment has changed, so no node is excluded: install the earlier versions again, or "
    "accept both with --allow-mixed)"
}
"""By error code: what a rerun does not do by itself."""


@dataclass(frozen=True)
class SubmissionResult:
    """What was submitted, or would be.

    `state` is the run before, `plan` what to cancel and submit. `profile` was adapted as the lines of `adapted` say.
    `failed` has one line per cause of failure of the shards that run again. `warning` is about the engine, "" for none.
    """

    state: SubmissionState
    plan: SubmissionPlan
    profile: Profile
    adapted: tuple[str, ...]
    failed: tuple[str, ...]
    warning: str = ""
    submitted: tuple[Submission, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class SubmitOptions:
    """How to submit a run."""

    parallel: int
    """Shards that may be embedded at once."""
    why: Literal["submit", "rerun"]
    """The command, for `submissions.jsonl`."""
    only: Collection[int] = ()
    """Shards to run, even those that failed the same way repeatedly. Empty: all unfinished shards except those."""
    more_memory: bool = True
    """Give more memory to shards that ran out of it."""
    dry_run: bool = False
    """Plan, but submit nothing."""
    profile_check: ProfileCheck = field(default_factory=ProfileCheck)
    """The check of a profile that is new to the run."""
    preflight: bool | None = None
    """Run a preflight before the shards; None: as before."""
    analyze: bool | None = None
    """Analyze the run after its merge; None: as before."""
    allow_mixed: bool | None = None
    """Accept shards that different engines made; None: as before."""


def submit_missing(run: RunFolder, config: RunConfig, profile: Profile, options: SubmitOptions) -> SubmissionResult:
    """Submit every job that is neither finished nor queued nor running, and all jobs that depend on it.

    Jobs whose dependency can no longer be satisfied, and second copies that wait, are cancelled first.

    Raises:
        UsageError: a limit of the cluster or the account is too small, the cluster would refuse a profile that is new
            to the run, a shard does not exist, or the engine cannot use what a task of embed gets.
        EmbedkitError: another command is submitting this run, or Slurm does not answer or refuses.
    """
    require_slurm()
    check_path(run)
    with run_lock(run.submit_lock, "submitting this run"):
        allow_mixed = choose_allow_mixed(run, config, options.allow_mixed)
        shards = _shard_count(run, config)
        refuse_if_elsewhere(run)
        if not options.dry_run and Submissions(run).unanswered():
            adopt_found(run, LiveReader(run).read())
        state = read_state(run, config, shards, options.preflight, options.analyze, allow_mixed)
        beyond = [shard for shard in options.only if not 0 <= shard < state.shards]
        if beyond:
            raise UsageError(f"--shard {beyond[0]}: the run has shards 0 to {state.shards - 1}")
        embed = profile.stages["embed"]
        plan = plan_submission(state, options.parallel, options.only, embed.per_job, embed.array, embed.shards_per_task)
        plan = replace(plan, submit=tuple(as_one_chain(plan.submit, allow_mixed)))
        indices = [index for job in plan.submit for index in job.indices or ()]
        new_reference = len(state.problems) == state.shards and any(job.stage == "preflight" for job in plan.submit)
        avoid_gpus = not (allow_mixed or new_reference)
        profile, adapted = adapt_profile(run, profile, indices, options.more_memory, avoid_gpus)
        failed = _failures(run, indices)
        needs_engine = any(job.stage in ("preflight", "embed") for job in plan.submit)
        warning = refuse_engine(profile, config.request.engine, config.request.device) if needs_engine else ""
        stages = [job.stage for job in plan.submit]
        if options.dry_run:
            options.profile_check.warn(run, profile, stages)
            return SubmissionResult(state, plan, profile, adapted, failed, warning, dry_run=True)
        site = options.profile_check.require(run, profile, stages)
        leaving = {*plan.cancel, *plan.copies, *state.outdated}
        staying = [task for task in queue() if not leaving & {task.name, task.job}]
        check_limits(profile, plan.submit, staying, site)
        cancel([*plan.copies, *plan.cancel])
        if any(job.stage == "preflight" for job in plan.submit):
            _record_environment(run, config)
        if plan.submit:
            record_profile(run, profile)
        lines = submit(run, profile, plan.submit, options.why)
        return SubmissionResult(state, plan, profile, adapted, failed, warning, tuple(lines))


def _record_environment(run: RunFolder, config: RunConfig) -> None:
    """Record which packages submit the run, and from where. They may be newer now; preflight compares with them."""
    asked = config.asked | {"package": package_folder()}
    if (config.versions, config.asked) != (environment(), asked):
        write(run.config, msgspec.structs.replace(config, versions=environment(), asked=asked))


def _shard_count(run: RunFolder, config: RunConfig) -> int:
    """The number of shards that the request names; 0 if it names none, and then the plan has it."""
    if config.request.shards is not None:
        return config.request.shards
    if not run.plan.exists():
        raise UsageError(
            f"{run.path}: the request has no --shards, so prepare decides their number, but the jobs of embed are "
            f"submitted before that: type `{program()} prepare --resume {run.where}` first, or submit a run with a "
            "different name"
        )
    return 0


def _failures(run: RunFolder, shards: Collection[int]) -> tuple[str, ...]:
    """How the newest attempt at each shard failed: one line per cause."""
    by_cause: dict[str, list[int]] = {}
    for shard in sorted(shards):
        attempts = Attempts(run, "embed", shard).attempts()
        if attempts and attempts[-1].outcome == "failed":
            by_cause.setdefault(attempts[-1].why + ADVICE.get(attempts[-1].error_code, ""), []).append(shard)
    return tuple(f"shard{'s' * (len(failed) > 1)} {array_spec(failed)}: {why}" for why, failed in by_cause.items())


def last_submission(run: RunFolder) -> Submission:
    """The newest submission of embed; the newest line if there is none, since a submit may be killed before embed.

    Raises EmbedkitError if the run was never submitted.
    """
    record = Submissions(run)
    lines = record.read()
    if not lines:
        raise EmbedkitError(
            f"{run.path}: this run was never submitted to Slurm; submit it with "
            f"`{program()} submit --resume {run.where} --profile NAME`"
        )
    return record.last("embed") or lines[-1]
