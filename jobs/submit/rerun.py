"""Submitting a run to Slurm, for the first time or again: what is left to do, as the run folder and the queue say."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import msgspec

from embedkit.documents.codec import write
from embedkit.documents.schema import RunConfig
from embedkit.errors import CanaryMoved, EmbedkitError, UsageError
from embedkit.run import RunFolder
from embedkit.storage.lock import run_lock
from embedkit.versions import environment, package_folder
from jobs.monitor.logs import says_out_of_memory
from jobs.profiles.values import Profile
from jobs.records.attempts import Attempt, Attempts
from jobs.records.submissions import Submission, Submissions
from jobs.slurm.accounting import JobRecord, history
from jobs.slurm.client import array_spec, cancel, queue, require_slurm
from jobs.submit.limits import check_limits
from jobs.submit.sbatch import submit
from jobs.submit.state import SubmissionPlan, SubmissionState, plan_submission, read_state

MORE_MEMORY = 1.5


@dataclass(frozen=True)
class Resubmission:
    """What was, or would be, done: the state before, the decision, the profile as it was adapted and why.

    `failed` has a line for each way in which shards that are run again failed.
    """

    state: SubmissionState
    decision: SubmissionPlan
    profile: Profile
    adapted: tuple[str, ...]
    failed: tuple[str, ...]
    submitted: tuple[Submission, ...] = ()


def submit_missing(
    run: RunFolder,
    config: RunConfig,
    profile: Profile,
    parallel: int,
    why: str,
    only: Collection[int] = (),
    more_memory: bool = True,
    dry_run: bool = False,
    preflight: bool | None = None,
    analyze: bool | None = None,
) -> Resubmission:
    """Cancel what waits in vain, and submit what is neither whole nor queued nor running, with all that follows it.

    Args:
        run: the run.
        config: its configuration.
        profile: the site's.
        parallel: how many tasks of embed may run at once.
        why: why it is submitted, for `submissions.jsonl`.
        only: shards to run, also those that failed the same way again and again; all that need it if empty.
        more_memory: whether shards that ran out of memory get more by themselves.
        dry_run: look and plan_submission only.
        preflight: whether there is to be one before shards; None as it was the last time.
        analyze: whether the run is to be analyzed once it is merged; None as it was the last time.

    Raises:
        UsageError: a limit of the cluster or the account is too small; a shard that does not exist.
        EmbedkitError: another command submits this run right now; Slurm does not answer or refuses.
    """
    require_slurm()
    if "\\" in str(run.path) or not str(run.path).isprintable():
        raise UsageError(f"{str(run.path)!a}: Slurm takes no path with a backslash or an invisible character")
    with run_lock(run.path / "submit.lease", "submitting this run"):
        state = read_state(run, config, _planned_shards(run, config), preflight, analyze)
        beyond = [shard for shard in only if not 0 <= shard < state.shards]
        if beyond:
            raise UsageError(f"--shard {beyond[0]}: the run has shards 0 to {state.shards - 1}")
        decision = plan_submission(state, parallel, only, profile.stages["embed"].gpus_per_job)
        indices = [index for job in decision.submit for index in job.indices or ()]
        profile, adapted = _adapt(run, profile, indices, more_memory)
        failed = _failures(run, indices)
        if dry_run:
            return Resubmission(state, decision, profile, adapted, failed)
        check_limits(profile, decision.submit, [task for task in queue() if task.name not in decision.cancel])
        cancel(decision.cancel)
        if any(job.stage == "preflight" for job in decision.submit):
            _note_environment(run, config)
        lines = submit(run, profile, decision.submit, why)
        return Resubmission(state, decision, profile, adapted, failed, tuple(lines))


def _note_environment(run: RunFolder, config: RunConfig) -> None:
    """Record which packages submit the run, and from where, for preflight to compare with: they may be newer now."""
    asked = config.asked | {"package": package_folder()}
    if (config.versions, config.asked) != (environment(), asked):
        write(run.config, msgspec.structs.replace(config, versions=environment(), asked=asked))


def _planned_shards(run: RunFolder, config: RunConfig) -> int:
    if config.request.shards is not None:
        return config.request.shards
    if not run.plan.exists():
        raise UsageError(
            f"{run.path}: this run was asked for without --shards, which prepare decides; an array's size must be "
            f"known before: type `embedkit prepare --resume --run-name {run.name}` first, or submit a run of another "
            "name"
        )
    return 0


def _failures(run: RunFolder, shards: Collection[int]) -> tuple[str, ...]:
    """How the newest attempt at each of these shards failed, shards that failed the same way in one line."""
    ways: dict[str, list[int]] = {}
    for shard in sorted(shards):
        attempts = Attempts(run, "embed", shard).attempts()
        if attempts and attempts[-1].outcome == "failed":
            ways.setdefault(attempts[-1].why, []).append(shard)
    return tuple(f"shard{'s' * (len(failed) > 1)} {array_spec(failed)}: {why}" for why, failed in ways.items())


def _adapt(
    run: RunFolder, profile: Profile, shards: Collection[int], more_memory: bool
) -> tuple[Profile, tuple[str, ...]]:
    """The profile with more memory where it ran out, without the nodes that failed; and what was changed."""
    before = Submissions(run)
    jobs = before.jobs("embed")
    if not shards or not jobs:
        return profile, ()
    ended = _by_shard(before.read(), history(jobs) or [], shards)
    embed = profile.stages["embed"]
    adapted: list[str] = []
    short = _short_of_memory(run, shards, ended) if more_memory else []
    mems = [line.mem for line in before.read() if line.mem and line.index_of.keys() & set(short)]
    if short and mems and embed.mem is not None and (mem := int(max(mems) * MORE_MEMORY)) > embed.mem:
        named = ", ".join(map(str, short))
        adapted.append(f"{mem} MB of memory a task instead of {embed.mem}: shards {named} ran out of it")
        embed = replace(embed, mem=mem)
    lost = sorted(
        {end.node for ends in ended.values() for end in ends if end.state in ("NODE_FAIL", "BOOT_FAIL") and end.node}
        | _not_to_be_trusted(run, shards)
    )
    if lost:
        adapted.append(f"without nodes {', '.join(lost)}, which failed")
        embed = replace(embed, exclude=",".join([*([embed.exclude] if embed.exclude else []), *lost]))
    return replace(profile, stages={**profile.stages, "embed": embed}), tuple(adapted)


def _by_shard(
    lines: Collection[Submission], records: Collection[JobRecord], shards: Collection[int]
) -> dict[int, list[JobRecord]]:
    """What the accounting has of each of these shards, oldest first."""
    groups = {(line.job, index): group for line in lines for index, group in line.groups.items()}
    found: dict[int, list[JobRecord]] = {}
    for record in records:
        for shard in groups.get((record.job, record.index or 0), ()):
            if shard in shards:
                found.setdefault(shard, []).append(record)
    return found


def _not_to_be_trusted(run: RunFolder, shards: Collection[int]) -> set[str]:
    """Nodes on which the canary's vectors changed in the newest attempt at a shard."""
    newest = [attempts[-1] for shard in shards if (attempts := Attempts(run, "embed", shard).attempts())]
    return {attempt.node for attempt in newest if attempt.outcome == "failed" and _canary_moved(attempt)}


def _canary_moved(attempt: Attempt) -> bool:
    """Whether an attempt failed because the canary's vectors changed; attempts before 0.2.0 have no error code."""
    if attempt.error_code:
        return attempt.error_code == CanaryMoved.code
    return "canary's vectors moved" in attempt.why


def _short_of_memory(run: RunFolder, shards: Collection[int], ended: Mapping[int, list[JobRecord]]) -> list[int]:
    """Shards whose newest start ended for its memory, as the accounting or the end of its log says."""
    short = []
    written_by_slurm: dict[int, str] = {}
    for line in Submissions(run).read():
        written_by_slurm |= {shard: line.log_of(index) for shard, index in line.index_of.items()}
    for shard in sorted(shards):
        state = ended[shard][-1].state if shard in ended else ""
        log = run.logs / f"{written_by_slurm.get(shard, '')}.log"
        if state == "OUT_OF_MEMORY" or (state in ("", "FAILED") and says_out_of_memory(log)):
            short.append(shard)
    return short


def last_profile(run: RunFolder) -> tuple[str, int | None]:
    """The profile that the run was last submitted with, and how many tasks at once; raises if it never was."""
    record = Submissions(run)
    lines = record.read()
    if not lines:
        raise EmbedkitError(
            f"{run.path}: nothing of it was submitted to Slurm; "
            f"`embedkit submit --resume --run-name {run.name} --profile NAME` does that"
        )
    line = record.last("embed") or lines[-1]  # a submit that was killed may not have come to embed
    limit = line.array.partition("%")[2]
    return line.profile, int(limit) * line.per_job if limit else None
