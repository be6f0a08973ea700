"""Plan which jobs a run still needs: a pure function of its state.

Once the plan is carried out, planning again gives nothing to do.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from jobs.records import LiveTask
from jobs.submit.chain import ChainJob
from jobs.submit.lanes import lanes_of
from jobs.submit.state import SubmissionState


@dataclass(frozen=True)
class SubmissionPlan:
    """What to cancel first, by the names that scancel takes, and what to submit then.

    `copies`: what to cancel because it is a second copy of a job, and has not started.
    """

    cancel: tuple[str, ...] = ()
    submit: tuple[ChainJob, ...] = ()
    copies: tuple[str, ...] = ()


def plan_submission(
    state: SubmissionState,
    parallel: int,
    only: Collection[int] = (),
    per_job: int = 1,
    as_array: bool = True,
    in_turn: int = 1,
) -> SubmissionPlan:
    """Plan the jobs that are missing until the run is merged.

    Args:
        state: the run now.
        parallel: how many shards may be embedded at once.
        only: shards to run, even if they are repeat_failures; empty for all with problems that are not.
        per_job: how many shards a task embeds.
        as_array: embed is a job array; else one job per task, which queue behind those that are on the cluster.
        in_turn: how many of its shards each worker of a task embeds, one after another.
    """
    state, copies = _without_copies(state)
    cancel = {live.task.name for live in state.live if live.task.never_starts}
    jobs: list[ChainJob] = []
    embeds, merges, embedding = state.live_of("embed"), state.live_of("merge"), state.embedding
    # prepare, unless it is done or active.
    preparing = _ids(state.live_of("prepare"))
    if not state.planned and not preparing:
        # What waits for an earlier prepare could never start.
        cancel |= {live.task.name for live in (*embeds, *merges)}
        embeds, merges, embedding = [], [], frozenset()
        jobs.append(ChainJob("prepare"))
        preparing = ("prepare",)
    # embed, for the shards that no active task embeds, and preflight before it.
    wanted = only or [shard for shard in state.problems if shard not in state.repeat_failures]
    missing = tuple(sorted(shard for shard in wanted if shard in state.problems and shard not in embedding))
    if missing:
        before = () if state.planned else preparing
        if state.preflight_wanted:
            preflights = _ids(state.live_of("preflight"))
            jobs += [] if preflights else [ChainJob("preflight")]
            before += preflights or ("preflight",)
        embed = ChainJob("embed", after_ok=before, indices=missing, parallel=parallel, per_job=per_job)
        embed = replace(embed, in_turn=in_turn)
        jobs.append(embed if as_array else replace(embed, as_array=False, lanes=lanes_of(embeds)))
    # merge, unless an active merge follows everything that embeds. One that has started came too early for that.
    active = _ids(embeds)
    following = [live for live in merges if live.task.is_pending] if active else merges
    covered = bool(following) and not missing and set(active) <= state.merge_dependencies
    if not covered and (missing or active or not (state.merged or state.problems)):
        cancel |= {live.task.name for live in merges if live.task.is_pending}
        started = _ids([live for live in merges if not live.task.is_pending])
        jobs.append(ChainJob("merge", after_any=(*(("embed",) if missing else ()), *active, *started)))
        merges = []
    # analyze, after the new merge or an active one.
    analyzing = state.live_of("analyze")
    stages = {job.stage for job in jobs}
    if stages & {"prepare", "merge"}:  # an analysis of an earlier merge would never start
        cancel |= {live.task.name for live in analyzing if live.task.is_pending}
    if state.analyze_wanted and ("merge" in stages or (not analyzing and (merges or state.merged))):
        jobs.append(ChainJob("analyze", after_ok=("merge",) if "merge" in stages else _ids(merges)))
    return SubmissionPlan(tuple(sorted(cancel)), tuple(jobs), copies)


def _without_copies(state: SubmissionState) -> tuple[SubmissionState, tuple[str, ...]]:
    """The state without second copies that wait, and their names: a whole job if no task of it has started."""
    waiting = [live for live in state.live if live.task.job in state.copies and live.task.is_pending]
    left = tuple(live for live in state.live if live.task.job not in state.copies or not live.task.is_pending)
    started = {live.task.job for live in left}
    names = {live.task.name if live.task.job in started else live.task.job for live in waiting}
    return replace(state, live=left), tuple(sorted(names))


def _ids(tasks: Collection[LiveTask]) -> tuple[str, ...]:
    return tuple(sorted({live.task.job for live in tasks}))
