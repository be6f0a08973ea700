"""Adapt a profile to how earlier attempts failed: more memory, and without the nodes that failed."""

import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from embedkit.errors import CanaryMoved, GpuDiffers, GpuHeld
from embedkit.run import RunFolder
from jobs.monitor import says_out_of_memory
from jobs.profiles import Profile, Resources
from jobs.records import NODE_FAULTS, Attempt, Attempts, Submission, Submissions, own_records, seconds_since_epoch
from jobs.slurm import JobRecord, history, partition_nodes, signal_of

MORE_MEMORY = 1.5
HELD_SECONDS = 24 * 3600.0
"""How long a rerun stays away from a node on which another process held a GPU: that ends some time."""


def adapt_profile(
    run: RunFolder, profile: Profile, shards: Collection[int], more_memory: bool, avoid_gpus: bool = True
) -> tuple[Profile, tuple[str, ...]]:
    """Give embed more memory if shards ran out of it, and exclude nodes that failed or have a different GPU model.

    Args:
        run: the run.
        profile: the site's.
        shards: the shards that are to run again.
        more_memory: whether to raise the memory.
        avoid_gpus: whether to exclude nodes whose GPUs differ from those of the run's other shards. The preflight
            avoids them too.

    Returns:
        The adapted profile, and one line per change.
    """
    submissions = Submissions(run)
    jobs = submissions.jobs("embed")
    if not shards or not jobs:
        return profile, ()
    lines = submissions.read()
    ended = _by_shard(lines, own_records(history(jobs) or [], lines), shards)
    embed = profile.stages["embed"]
    adapted: list[str] = []
    out_of_memory = _out_of_memory(run, shards, ended) if more_memory else []
    mems = [line.mem for line in submissions.read() if line.mem and line.index_of.keys() & set(out_of_memory)]
    if out_of_memory and mems and embed.mem is not None and (mem := int(max(mems) * MORE_MEMORY)) > embed.mem:
        named = ", ".join(map(str, out_of_memory))
        adapted.append(f"{mem} MB of memory per task instead of {embed.mem}: shards {named} ran out of it")
        embed = replace(embed, mem=mem)
    elif out_of_memory and embed.mem is None:
        adapted.append(
            f"nothing for shards {', '.join(map(str, out_of_memory))}, which ran out of memory: the profile sets no "
            "mem, so the site decides how much a task gets. Set mem in [embed], or more cpus where memory follows them"
        )
    bad_nodes = sorted(
        {end.node for ends in ended.values() for end in ends if end.state in ("NODE_FAIL", "BOOT_FAIL") and end.node}
        | _nodes_with_moved_canary(run, shards)
    )
    if bad_nodes:
        adapted.append(f"without nodes {', '.join(bad_nodes)}, which failed")
        embed = _without(embed, bad_nodes)
    preflight = profile.stages["preflight"]
    held, line = _held_nodes(run, shards, bad_nodes, embed.partition)
    adapted += line
    embed, preflight = _without(embed, held), _without(preflight, held)
    other_gpus = sorted(_nodes_with_different_gpu(run, shards) - {*bad_nodes, *held}) if avoid_gpus else []
    if other_gpus:
        adapted.append(f"without nodes {', '.join(other_gpus)}, whose GPUs differ from those of the run's other shards")
        embed, preflight = _without(embed, other_gpus), _without(preflight, other_gpus)
    return replace(profile, stages={**profile.stages, "embed": embed, "preflight": preflight}), tuple(adapted)


def _held_nodes(
    run: RunFolder, shards: Collection[int], excluded: Collection[str], partition: str | None
) -> tuple[list[str], list[str]]:
    """Nodes to exclude because another process holds a GPU there, and what to say; none if no other node is left."""
    held = sorted(_nodes_with_held_gpu(run, shards) - set(excluded))
    if not held:
        return [], []
    named = ", ".join(held)
    nodes = partition_nodes(partition)
    if nodes is not None and nodes <= {*held, *excluded}:
        return [], [f"nodes {named} are not excluded, since no others are left: end the processes that hold GPUs there"]
    return held, [f"without nodes {named}, where another process held a GPU"]


def _without(resources: Resources, nodes: Collection[str]) -> Resources:
    """The same resources, with these nodes excluded as well."""
    if not nodes:
        return resources
    return replace(resources, exclude=",".join([*([resources.exclude] if resources.exclude else []), *nodes]))


def _by_shard(
    lines: Collection[Submission], records: Collection[JobRecord], shards: Collection[int]
) -> dict[int, list[JobRecord]]:
    """The accounting's records of each shard, oldest first."""
    groups = {(line.job, index): group for line in lines for index, group in line.groups.items()}
    found: dict[int, list[JobRecord]] = {}
    for record in records:
        for shard in groups.get((record.job, record.index), ()):
            if shard in shards:
                found.setdefault(shard, []).append(record)
    return found


def _nodes_with_moved_canary(run: RunFolder, shards: Collection[int]) -> set[str]:
    """Nodes on which the canary's vectors changed in the newest attempt at a shard: their results cannot be trusted."""
    newest = [attempts[-1] for shard in shards if (attempts := Attempts(run, "embed", shard).attempts())]
    return {attempt.node for attempt in newest if attempt.outcome == "failed" and _canary_moved(attempt)}


def _nodes_with_different_gpu(run: RunFolder, shards: Collection[int]) -> set[str]:
    """Nodes on which an attempt at a shard, or the newest preflight, found a GPU that differs from the run's.

    Attempts before the newest preflight do not count, because it may have changed which GPU is the run's.
    """
    since = run.preflight.stat().st_mtime if run.preflight.exists() else 0.0
    return _nodes_with(run, shards, GpuDiffers.code, since)


def _nodes_with_held_gpu(run: RunFolder, shards: Collection[int]) -> set[str]:
    """Nodes on which an attempt at a shard, or a preflight, found a GPU held by another process in the last hours."""
    return _nodes_with(run, shards, GpuHeld.code, time.time() - HELD_SECONDS)


def _nodes_with(run: RunFolder, shards: Collection[int], code: str, since: float) -> set[str]:
    """Nodes on which an attempt at a shard, or a preflight, that started since then ended with an error code."""
    attempts = [attempt for shard in shards for attempt in Attempts(run, "embed", shard).attempts()]
    attempts += Attempts(run, "preflight").attempts()
    return {
        attempt.node
        for attempt in attempts
        if attempt.error_code == code and seconds_since_epoch(attempt.started.at) >= int(since)
    }


def _canary_moved(attempt: Attempt) -> bool:
    """Whether an attempt failed because the canary's vectors changed. Attempts before 0.2.0 have no error code."""
    if attempt.error_code:
        return attempt.error_code == CanaryMoved.code
    return "canary's vectors moved" in attempt.why


def _out_of_memory(run: RunFolder, shards: Collection[int], ended: Mapping[int, list[JobRecord]]) -> list[int]:
    """Shards whose newest attempt ran out of memory, according to the accounting or the end of the log."""
    found = []
    log_names: dict[int, str] = {}
    for line in Submissions(run).read():
        log_names |= {shard: line.log_of(index) for shard, index in line.index_of.items()}
    for shard in sorted(shards):
        state = ended[shard][-1].state if shard in ended else ""
        if shard in ended and signal_of(ended[shard][-1].exit_code) in (signal.SIGXCPU, signal.SIGXFSZ):
            continue  # limits on CPU time and the size of files
        attempts = Attempts(run, "embed", shard).attempts()
        if attempts and ("CUDA" in attempts[-1].why or attempts[-1].error_code in NODE_FAULTS):
            continue  # the memory of a GPU
        log = run.logs / f"{log_names.get(shard, '')}.log"
        if state == "OUT_OF_MEMORY" or (state in ("", "FAILED") and says_out_of_memory(log)):
            found.append(shard)
    return found
