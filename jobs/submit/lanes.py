"""embed without an array: one job per task, in lanes that keep to the number of shards at once.

`--array=0-39%8` limits how many tasks run at once. Single jobs have no such limit, so they queue in lanes: with eight
at once there are eight lanes, and each job waits until all jobs before it in its lane have ended, however they ended.
It waits for all of them and not only for the last one: if a person cancels a waiting job, those behind it still wait
for the one that runs. A requeued job keeps its id and has not ended, so it keeps its place.

A lane whose jobs have all ended takes none from the other lanes. Where the number at once is at least that of the jobs,
no job waits for another, and the site's own limit on running jobs applies.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from jobs.records import LiveTask
from jobs.submit.chain import ChainJob


def one_by_one(jobs: Sequence[ChainJob]) -> list[ChainJob]:
    """The calls of sbatch for the jobs of a chain, in order: embed without an array becomes one job per task."""
    return [one for job in jobs for one in (_in_lanes(job) if job.indices and not job.as_array else [job])]


def _in_lanes(job: ChainJob) -> list[ChainJob]:
    """Put each task of embed, as a job, behind all jobs of the lane that has the fewest."""
    most = job.tasks + len(job.lanes)
    lanes: list[list[str]] = [[] for _ in range(min(job.tasks_at_once or most, most))]
    for busy in sorted(job.lanes, key=len, reverse=True):
        lane = min(lanes, key=len)
        lane += [one for one in busy if one not in lane]  # an array is in several lanes
    found = []
    for group in job.groups:
        lane = min(lanes, key=len)
        found.append(replace(job, indices=group, after_any=(*job.after_any, *lane), lanes=()))
        lane.append(found[-1].name)
    return found


def lanes_of(embed: Iterable[LiveTask]) -> tuple[tuple[str, ...], ...]:
    """The ids of the jobs of embed on the cluster, by lane.

    Single jobs are in one lane if one waits for the other. An array of an earlier profile is in as many lanes as its
    tasks may fill at once; those are the lanes of the single jobs that wait for it, and further ones if need be.
    """
    embed = list(embed)
    widths = _widths(embed)
    after = {live.task.job: set(live.after) for live in embed if live.task.job not in widths}
    lanes: list[set[str]] = []
    for job, earlier in after.items():
        linked = {job} | (after.keys() & earlier)
        apart = [lane for lane in lanes if not lane & linked]
        lanes = [*apart, linked.union(*(lane for lane in lanes if lane & linked))]
    behind = [widths.keys() & set[str]().union(*(after[job] for job in lane)) for lane in lanes]
    for array, width in widths.items():
        alone = max(width - sum(array in arrays for arrays in behind), 0)
        behind, lanes = [*behind, *[{array}] * alone], [*lanes, *[set[str]()] * alone]
    return tuple(tuple(sorted(lane | arrays, key=int)) for lane, arrays in zip(lanes, behind, strict=True))


def _widths(embed: Iterable[LiveTask]) -> dict[str, int]:
    """How many tasks of each array run at once at most, by its id. squeue may show the whole array as one task."""
    tasks: dict[str, list[LiveTask]] = {}
    for live in embed:
        tasks.setdefault(live.task.job, []).append(live)
    arrays = {job: found for job, found in tasks.items() if found[0].task.index is not None or found[0].at_once > 1}
    return {
        job: found[0].at_once if found[0].task.index is None else min(found[0].at_once, len(found))
        for job, found in arrays.items()
    }
