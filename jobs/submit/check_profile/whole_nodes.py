"""Check that tasks use all GPUs of a node: where jobs get whole nodes, and where several tasks share one."""

from collections.abc import Iterator, Sequence

from jobs.profiles import Resources, Stage
from jobs.slurm import Node, Partition
from jobs.submit.check_profile.finding import Finding, note, ok, refused


def check_whole_nodes(
    stage: Stage, resources: Resources, partition: Partition, eligible: Sequence[Node]
) -> Iterator[Finding]:
    """Check that a task which gets a whole node uses all of its GPUs. Only embed is refused."""
    waste = idle_gpus(resources, partition, eligible)
    if waste is not None:
        requested = f"gpus = {resources.gpu_count}"
        level = refused if stage == "embed" else note
        yield level("exclusive", requested=requested, actual=waste, key="gpus_per_job", fix=fix_idle_gpus(eligible))
    elif resources.exclusive or partition.exclusive:
        yield ok("exclusive", actual=f"tasks get whole nodes of {partition.name}")


def check_node_is_filled(resources: Resources, partition: Partition, eligible: Sequence[Node]) -> Iterator[Finding]:
    """Check that the CPUs and the memory of a node are enough for as many tasks as its GPUs are."""
    if not resources.gpu_count or resources.exclusive or partition.exclusive or resources.mem == 0:
        return
    node = max(eligible, key=lambda one: one.gpu_count)
    tasks = node.gpu_count // resources.gpu_count
    for key, per_task, total in (("cpus", resources.cpus or 1, node.cpus), ("mem", resources.mem or 0, node.memory)):
        if tasks > 1 and per_task and total is not None and 0 < total // per_task < tasks:
            actual = f"a node of {node.gpu_count} GPUs has {total}, enough for {total // per_task} tasks"
            fix = f"{total // tasks} lets {tasks} tasks share the node"
            yield note(key, requested=str(per_task), actual=actual, key=key, fix=fix)


def idle_gpus(resources: Resources, partition: Partition, nodes: Sequence[Node]) -> str | None:
    """Say how many GPUs a task would leave idle because it gets a whole node; None if it leaves none."""
    if not resources.gpu_count or not (resources.exclusive or partition.exclusive):
        return None
    counts = sorted({node.gpu_count for node in nodes if node.gpu_count})
    if not counts or counts[0] <= resources.gpu_count:
        return None
    whole = f"partition {partition.name} gives" if partition.exclusive else "exclusive = true takes"
    gpus = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"nodes have {gpus} GPUs and {whole} whole nodes, so {counts[0] - resources.gpu_count} of {counts[0]} GPUs "
        f"would idle in every task of {resources.gpu_count}"
    )


def fix_idle_gpus(nodes: Sequence[Node]) -> str:
    """The setting with which a task uses all GPUs of a node."""
    gpus = min((node.gpu_count for node in nodes if node.gpu_count), default=1)
    setting = f"gpus_per_job = {gpus} with gpus = {gpus} gives one task {gpus} workers"
    return f"{setting}; or request a partition of shared nodes"
