"""Read the state of a run: finished work, problems of shards, queued and running tasks."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from embedkit.documents import Plan, RunConfig, ShardManifest, Success, read
from embedkit.embed import DIFFERENT_ENGINE, ShardStates, refuse_mixed, rejected_shards
from embedkit.errors import EmbedkitError, UsageError
from embedkit.merge import is_merge_of
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from jobs.profiles import Stage
from jobs.records import Attempts, LiveReader, LiveTask, LiveTasks, Submissions, copies_note
from jobs.slurm import chosen_cluster, configuration, has_slurm, history, job_list, on_cluster

SECOND_LOOK_SECONDS = 6.0
"""A task that is being requeued is neither queued nor running for about five seconds."""


@dataclass(frozen=True)
class SubmissionState:
    """A run at one moment.

    `problems`: for each shard without a valid manifest, the reason. `repeat_failures`: the shards among them that
    failed the same way repeatedly, each with that failure. `merge_dependencies`: ids of the jobs that the newest merge
    waits for. `analyze_wanted`: an analysis is requested, and none was made since the merge. `outdated`: names of tasks
    that squeue still shows and that have ended. `copies`: ids of jobs that are second copies, each with that of the job
    that counts. `notes`: what is odd about Slurm's answers.
    """

    shards: int
    planned: bool
    merged: bool
    preflight_wanted: bool
    problems: Mapping[int, str]
    repeat_failures: Mapping[int, str] = field(default_factory=dict)
    live: tuple[LiveTask, ...] = ()
    merge_dependencies: frozenset[str] = frozenset()
    analyze_wanted: bool = False
    outdated: tuple[str, ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def live_of(self, stage: Stage) -> list[LiveTask]:
        """Tasks of a stage that are running, or queued and able to start."""
        return [live for live in self.live if live.stage == stage and not live.task.never_starts]

    @property
    def embedding(self) -> frozenset[int]:
        """The shards that tasks embed, or will as soon as they start."""
        return frozenset(shard for live in self.live_of("embed") for shard in live.shards)


def default_preflight(run: RunFolder, config: RunConfig) -> bool:
    """Whether to run a preflight where the command line does not say: as with the last embed that was submitted.

    A first submission runs one, except for the hash engine. An embed that was submitted without one, because
    preflight.json existed, needs none again.
    """
    lines = Submissions(run).read()
    preflights = {line.job for line in lines if line.stage == "preflight" and line.job is not None}
    embeds = [line for line in lines if line.stage == "embed"]
    if embeds:
        return bool(preflights & set(embeds[-1].dependency_ids))
    return bool(preflights) or config.request.engine != "hash"


def default_analyze(run: RunFolder) -> bool:
    """Whether to analyze where the command line does not say: as with the last merge that was submitted."""
    lines = [line.stage for line in Submissions(run).read() if line.stage in ("merge", "analyze")]
    return lines[-1:] == ["analyze"]


def default_allow_mixed(run: RunFolder) -> bool:
    """Whether to accept shards of different engines where the command line does not say: as in the last submission."""
    lines = [line for line in Submissions(run).read() if line.what == "submitted"]
    return bool(lines) and lines[-1].allow_mixed


def choose_allow_mixed(run: RunFolder, config: RunConfig, typed: bool | None) -> bool:
    """Whether to accept shards of different engines: as typed, or the default.

    Raises UsageError if the run must be exact.
    """
    allow_mixed = default_allow_mixed(run) if typed is None else typed
    refuse_mixed(config.request, allow_mixed)
    return allow_mixed


def read_state(
    run: RunFolder,
    config: RunConfig,
    shards: int,
    preflight: bool | None = None,
    analyze: bool | None = None,
    allow_mixed: bool = False,
) -> SubmissionState:
    """Read the state of a run. Reads again after some seconds if an unfinished shard is neither queued nor running.

    Args:
        run: the run.
        config: its configuration.
        shards: the number of shards if there is no plan yet.
        preflight: run a preflight before the shards; None for default_preflight, unless a preflight succeeded or a
            shard is finished.
        analyze: analyze the run after its merge; None for default_analyze.
        allow_mixed: shards that merge rejected for their different engine alone are finished.
    """
    state = _read_once(run, config, shards, preflight, analyze, allow_mixed)
    if not (set(state.problems) - state.embedding and Submissions(run).read()):
        return state
    time.sleep(SECOND_LOOK_SECONDS)
    return _read_once(run, config, shards, preflight, analyze, allow_mixed)


def _read_once(
    run: RunFolder, config: RunConfig, shards: int, preflight: bool | None, analyze: bool | None, allow_mixed: bool
) -> SubmissionState:
    submissions = Submissions(run)
    slurm = known_live(run)  # before the manifests: a task that ends in between has written its own
    plan = read_plan(run, config) if run.plan.exists() else None
    manifests, problems = _manifests(run, plan, shards, allow_mixed)
    last_merge = submissions.last("merge")
    if preflight is None:
        preflight = not manifests and not run.preflight.exists() and default_preflight(run, config)
    merged = plan is not None and not problems and _is_merged(run, plan, manifests)
    return SubmissionState(
        shards=shards if plan is None else len(plan.shards),
        planned=plan is not None,
        merged=merged,
        preflight_wanted=preflight,
        problems=problems,
        repeat_failures=_repeat_failures(run, submissions, problems),
        live=slurm.tasks,
        merge_dependencies=frozenset(last_merge.dependency_ids if last_merge is not None else ()),
        analyze_wanted=(default_analyze(run) if analyze is None else analyze) and not (merged and run.is_analyzed()),
        outdated=slurm.outdated,
        copies=slurm.copies,
        notes=_notes(slurm),
    )


def _notes(slurm: LiveTasks) -> tuple[str, ...]:
    """Notes on Slurm's answers. Second copies that wait are cancelled; those that have started are only named."""
    started = {live.task.job for live in slurm.tasks if not live.task.is_pending}
    notes = (slurm.outdated_note, copies_note({job: kept for job, kept in slurm.copies.items() if job in started}))
    return tuple(note for note in notes if note)


def _repeat_failures(run: RunFolder, submissions: Submissions, shards: Collection[int]) -> dict[int, str]:
    """The shards that failed again and again in the same way, each with the reason."""

    @cache
    def final_states() -> dict[str, str]:
        """The state in which each task of embed ended; empty without accounting."""
        return {record.name: record.state for record in history(submissions.jobs("embed")) or [] if record.is_over}

    reasons = {shard: Attempts(run, "embed", shard).repeat_failure(final_states) for shard in shards}
    return {shard: why for shard, why in reasons.items() if why is not None}


def _manifests(
    run: RunFolder, plan: Plan | None, shards: int, allow_mixed: bool
) -> tuple[list[ShardManifest], dict[int, str]]:
    """The manifests that count, and why each other shard has none. Compares files' sizes and reads no vectors."""
    if plan is None:
        return [], dict.fromkeys(range(shards), "not prepared")
    rejected = rejected_shards(run)
    if allow_mixed:
        rejected = {sha256: shard for sha256, shard in rejected.items() if shard.what != DIFFERENT_ENGINE}
    return ShardStates(run, plan, rejected).read_all("sizes")


def _is_merged(run: RunFolder, plan: Plan, manifests: list[ShardManifest]) -> bool:
    try:
        return is_merge_of(read(run.success, Success), plan, manifests)
    except EmbedkitError:
        return False


def known_live(run: RunFolder) -> LiveTasks:
    """The queued and running tasks of a run.

    Raises EmbedkitError if Slurm does not answer, or a task may run about which it does not answer.
    """
    live = LiveReader(run).read()
    if live.doubt:
        raise EmbedkitError(
            f"{run.path}: {live.doubt}. Nothing was submitted; try again when Slurm answers. If they may be ended: "
            f"{run.command('cancel')}"
        )
    return live


def refuse_if_active(run: RunFolder) -> None:
    """Raise UsageError if jobs of the run are queued or running on the cluster, if there is one here."""
    lines = Submissions(run).read()
    if not lines or not has_slurm():
        return
    with on_cluster(lines[-1].clusters, f"the last submission of {run.path}"):
        live = known_live(run).tasks
    if live:
        jobs = _by_stage(live)
        raise UsageError(
            f"{run.path} is active on the cluster: jobs {jobs}. Wait for it, watch it with "
            f"`{run.command('status')}`, or cancel these jobs first"
        )


def _by_stage(live: Sequence[LiveTask]) -> str:
    """The ids of jobs for a message, by stage: `101 (prepare), 102 (embed)`."""
    jobs: dict[Stage, set[str]] = {}
    for one in live:
        jobs.setdefault(one.stage, set()).add(one.task.job)
    return ", ".join(f"{job_list(sorted(ids, key=int))} ({stage})" for stage, ids in jobs.items())


def refuse_if_elsewhere(run: RunFolder) -> None:
    """Raise UsageError if jobs of the run are queued or running on a cluster other than the chosen one."""
    lines = Submissions(run).read()
    if not lines or lines[-1].clusters == chosen_cluster():
        return
    with on_cluster(""):
        own = configuration().get("ClusterName", "")
    if (lines[-1].clusters or own) == (chosen_cluster() or own):
        return
    try:
        refuse_if_active(run)
    except UsageError as error:
        there, here = lines[-1].clusters or own, chosen_cluster() or own
        raise UsageError(
            f"the jobs of this run are on cluster {there}, and these would go to {here}. {error}"
        ) from None
