"""Where a run stands: what is whole in its folder, what Slurm has queued or running, and so what is left to submit.

The deciding is a pure function of that; asking it again after it was followed gives nothing to do.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from embedkit.documents.codec import digest, read
from embedkit.documents.schema import Plan, RunConfig, ShardManifest, Success
from embedkit.embed.manifests import read_manifests, rejected_shards
from embedkit.errors import EmbedkitError, UsageError
from embedkit.merge.stage import is_merge_of
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from jobs.profiles.schema import Stage
from jobs.records.attempts import Attempts
from jobs.records.submissions import LiveTask, Submissions
from jobs.slurm.client import has_slurm, queue
from jobs.submit.chain import ChainJob

SECOND_LOOK_SECONDS = 6.0
"""For about five seconds a task that is being requeued is neither queued nor running."""


@dataclass(frozen=True)
class SubmissionState:
    """A run at one moment.

    `problems`: why each shard without a manifest that counts has none. `repeat_failures`: those of them that failed
    the same way again and again. `waits_for`: ids that the newest merge waits for. `analyze_wanted`: the run is to
    be analyzed, and was not since it was merged.
    """

    shards: int
    planned: bool
    merged: bool
    preflight_wanted: bool
    problems: Mapping[int, str]
    repeat_failures: Mapping[int, str] = field(default_factory=dict)
    live: tuple[LiveTask, ...] = ()
    waits_for: frozenset[str] = frozenset()
    analyze_wanted: bool = False

    def live_of(self, stage: Stage) -> list[LiveTask]:
        """Tasks of a stage that are running, or queued for something that can happen."""
        return [task for task in self.live if task.stage == stage and not task.task.never_starts]


@dataclass(frozen=True)
class SubmissionPlan:
    """What to cancel, by the names that scancel takes, and what to submit then."""

    cancel: tuple[str, ...] = ()
    submit: tuple[ChainJob, ...] = ()


def plan_submission(
    state: SubmissionState, parallel: int, only: Collection[int] = (), per_job: int = 1
) -> SubmissionPlan:
    """What is left to submit, so that the run gets merged.

    Args:
        state: where the run stands.
        parallel: how many shards may be embedded at once.
        only: shards to run, also if they are repeat_failures; all that need it if empty.
        per_job: how many shards a task embeds side by side.
    """
    cancel = {task.task.name for task in state.live if task.task.never_starts}
    preparing = _ids(state.live_of("prepare"))
    running_embed, merging = state.live_of("embed"), state.live_of("merge")
    jobs: list[ChainJob] = []
    if not state.planned and not preparing:
        # Whatever waits for an earlier prepare waits for nothing.
        cancel |= {task.task.name for task in (*running_embed, *merging)}
        running_embed, merging = [], []
        jobs.append(ChainJob("prepare"))
        preparing = ("prepare",)
    embedding = {shard for task in running_embed for shard in task.shards}
    wanted = only or [shard for shard in state.problems if shard not in state.repeat_failures]
    missing = tuple(sorted(shard for shard in wanted if shard in state.problems and shard not in embedding))
    if missing:
        before = () if state.planned else preparing
        if state.preflight_wanted:
            trying = _ids(state.live_of("preflight"))
            jobs += [] if trying else [ChainJob("preflight")]
            before += trying or ("preflight",)
        jobs.append(ChainJob("embed", after_ok=before, indices=missing, parallel=parallel, per_job=per_job))
    still = _ids(running_embed)
    # One that has begun waits for nothing any more.
    following = [task for task in merging if task.task.state == "PENDING"] if still else merging
    covered = bool(following) and not missing and set(still) <= state.waits_for
    if not covered and (missing or still or not (state.merged or state.problems)):
        cancel |= {task.task.name for task in merging if task.task.state == "PENDING"}
        ending = _ids([task for task in merging if task.task.state != "PENDING"])
        jobs.append(ChainJob("merge", after_any=(*(("embed",) if missing else ()), *still, *ending)))
        merging = []
    analyzing = state.live_of("analyze")
    stages = {job.stage for job in jobs}
    if stages & {"prepare", "merge"}:  # what waits for an earlier merge would never start
        cancel |= {task.task.name for task in analyzing if task.task.state == "PENDING"}
    if state.analyze_wanted and ("merge" in stages or (not analyzing and (merging or state.merged))):
        jobs.append(ChainJob("analyze", after_ok=("merge",) if "merge" in stages else _ids(merging)))
    return SubmissionPlan(tuple(sorted(cancel)), tuple(jobs))


def _ids(tasks: Collection[LiveTask]) -> tuple[str, ...]:
    return tuple(sorted({task.task.job for task in tasks}))


def had_preflight(run: RunFolder, config: RunConfig) -> bool:
    """Whether a preflight is the run's way: as it was when embed was submitted last; by default, but for hash.

    An embed that was submitted later, once there was a preflight.json, needed none, and needs none again.
    """
    lines = Submissions(run).read()
    tries = {line.job for line in lines if line.stage == "preflight" and line.job is not None}
    embeds = [line for line in lines if line.stage == "embed"]
    if embeds:
        return bool(tries & set(embeds[-1].waits_for))
    return bool(tries) or config.request.engine != "hash"


def had_analyze(run: RunFolder) -> bool:
    """Whether the run was to be analyzed when merge was submitted last."""
    lines = [line.stage for line in Submissions(run).read() if line.stage in ("merge", "analyze")]
    return lines[-1:] == ["analyze"]


def read_state(
    run: RunFolder, config: RunConfig, shards: int, preflight: bool | None = None, analyze: bool | None = None
) -> SubmissionState:
    """Read where a run stands; twice, some seconds apart, if a shard is missing that is not queued or running.

    Args:
        run: the run.
        config: its configuration.
        shards: how many there will be, where prepare has not said so yet.
        preflight: whether there is to be one before shards; None for the run's way, unless one went well or a
            shard is whole.
        analyze: whether the run is to be analyzed once it is merged; None for the run's way.
    """
    state = _read_once(run, config, shards, preflight, analyze)
    lost = set(state.problems) - {task.task.index for task in state.live_of("embed")}
    if not (lost and Submissions(run).read()):
        return state
    time.sleep(SECOND_LOOK_SECONDS)
    return _read_once(run, config, shards, preflight, analyze)


def _read_once(
    run: RunFolder, config: RunConfig, shards: int, preflight: bool | None, analyze: bool | None
) -> SubmissionState:
    submissions = Submissions(run)
    live = tuple(submissions.live(queue()))  # before the manifests: a task that ends in between has left its own
    plan = read_plan(run, config) if run.plan.exists() else None
    manifests, problems = _manifests(run, plan, shards)
    last_merge = submissions.last("merge")
    if preflight is None:
        preflight = not manifests and not run.preflight.exists() and had_preflight(run, config)
    merged = plan is not None and not problems and _is_merged(run, plan, manifests)
    return SubmissionState(
        shards=shards if plan is None else len(plan.shards),
        planned=plan is not None,
        merged=merged,
        preflight_wanted=preflight,
        problems=problems,
        repeat_failures={
            shard: why for shard in problems if (why := Attempts(run, "embed", shard).repeat_failure()) is not None
        },
        live=live,
        waits_for=frozenset(last_merge.waits_for if last_merge is not None else ()),
        analyze_wanted=(had_analyze(run) if analyze is None else analyze) and not (merged and run.is_analyzed()),
    )


def _manifests(run: RunFolder, plan: Plan | None, shards: int) -> tuple[list[ShardManifest], dict[int, str]]:
    """The manifests that hold, as far as it shows without reading the data, and what is wrong with the others."""
    if plan is None:
        return [], dict.fromkeys(range(shards), "not prepared")
    manifests, problems = read_manifests(run, plan)
    rejected = rejected_shards(run)
    for manifest in manifests:
        refused = rejected.get(digest(manifest))
        problem = refused.what if refused is not None else _size_problem(run, manifest)
        if problem is not None:
            problems[manifest.shard] = problem
    return [manifest for manifest in manifests if manifest.shard not in problems], problems


def _size_problem(run: RunFolder, manifest: ShardManifest) -> str | None:
    for matrix in manifest.matrices.values():
        path = run.shard(manifest.shard) / matrix.file.name
        if not path.is_file() or path.stat().st_size != matrix.file.bytes:
            return f"{path}: missing, or of another size than was written"
    return None


def _is_merged(run: RunFolder, plan: Plan, manifests: list[ShardManifest]) -> bool:
    if not run.success.exists():
        return False
    try:
        return is_merge_of(read(run.success, Success), plan, manifests)
    except EmbedkitError:
        return False


def refuse_if_active(run: RunFolder) -> None:
    """Raise UsageError if jobs of the run are queued or running on the cluster, if there is one here."""
    if not run.submissions.exists() or not has_slurm():
        return
    live = Submissions(run).live(queue())
    if live:
        jobs = sorted({f"{task.task.job} ({task.stage})" for task in live})
        raise UsageError(
            f"{run.path} is alive on the cluster: jobs {', '.join(jobs)}. Wait for it, see after it with "
            f"`embedkit status {run.name}`, or cancel those jobs first"
        )
