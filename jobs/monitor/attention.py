"""What waits, and what failed in a way that a person can fix: one line each, with what to do. Pure functions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from jobs.monitor.classify import State
from jobs.monitor.reasons import PLAIN, Meaning, explain, is_held, reasons_in
from jobs.monitor.schema import Overview, ShardView, StageView
from jobs.records import NODE_FAULTS
from jobs.slurm import Ending, array_spec, explain_exit, job_id

WAITING: tuple[State, ...] = ("held", "suspended", "completing", "configuring", "pending")
"""States of tasks in the queue that do not run, in the order in which they are shown."""
MOST_NAMED = 60
"""Longest list of shards in a line, in characters."""
MOST_NODES = 4
"""Most nodes with the same fault that a line describes; the others are only named."""
HOLDER = re.compile(r"process \d+ \([^)]*\)")
"""The process that holds the memory of a GPU, in the message of GpuHeld."""
IN_TURN = Meaning("wait", "their turn comes after other shards of their tasks", "")
"""Shards that wait in an array task that runs. `why` of each names the shards before it."""
MOST_JOBS = 4
"""Most tasks of one array that a command names one by one."""


@dataclass
class TaskGroup:
    """Tasks that are alike: their state, what it means, and the same action for all of them.

    Attributes:
        label: the word for their state.
        meaning: what it means and what to do; None if nothing need be said.
        shards: the shards among them.
        stages: the stages that are one job.
        jobs: the names of their jobs, `123`, `123_17`.
        nodes: where they are, or were.
        reasons: Slurm's reasons.
        node_fault: the error code of the failure, if a node is at fault; all tasks ran on that node then.
    """

    label: str
    meaning: Meaning | Ending | None
    shards: list[int] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    node_fault: str = ""

    def add(self, task: ShardView | StageView) -> None:
        """Add a task."""
        if isinstance(task, ShardView):
            self.shards.append(task.shard)
        else:
            self.stages.append(task.stage)
        jobs = task.jobs if isinstance(task, StageView) and task.jobs else (task.job,)
        self.jobs += [job for job in jobs if job and job not in self.jobs]
        if task.node:
            self.nodes.add(task.node)
        if task.reason:
            self.reasons.add(task.reason)

    @property
    def action(self) -> str:
        """What to do, with the names of jobs and nodes; "" if nothing."""
        if self.meaning is None:
            return ""
        return self.meaning.action.format(
            jobs=job_arguments(self.jobs), nodes=", ".join(sorted(self.nodes)) or "the node"
        )

    @property
    def sentence(self) -> str:
        """What it means; "" if nothing need be said."""
        nodes = ", ".join(sorted(self.nodes)) or "the node"
        return "" if self.meaning is None else self.meaning.sentence.format(nodes=nodes)


def groups(overview: Overview) -> list[TaskGroup]:
    """The tasks of a run that wait in the queue, or failed in a way that a person can fix, by what is to be done."""
    found: dict[tuple[str, ...], TaskGroup] = {}
    tasks: list[ShardView | StageView] = [*overview.shards, *overview.stages]
    for label in (*WAITING, "failed"):
        for task in tasks:
            if not _is_in(task, label):
                continue
            meaning: Meaning | Ending | None
            if label == "failed":
                meaning = _failure(task, overview.launcher_stages)
                if meaning is None or not meaning.action:
                    continue
            else:
                is_in_turn = label == "pending" and isinstance(task, ShardView) and bool(task.why)
                meaning = IN_TURN if is_in_turn else explain(task.slurm_state, task.reason)
                if meaning is None and isinstance(task, StageView):
                    continue  # its own line has its state and reason
            kind = task.error_code if isinstance(task, ShardView) else ""
            fault = kind if label == "failed" and kind in NODE_FAULTS else ""
            key = (label, kind or ("" if meaning is None else meaning.sentence), task.node if fault else "")
            found.setdefault(key, TaskGroup(label, meaning, node_fault=fault)).add(task)
    return list(found.values())


def _failure(task: ShardView | StageView, launcher_stages: Sequence[str]) -> Ending | None:
    """What to do about a failure. An error with a code of its own says it itself, at the end of a long message."""
    if isinstance(task, ShardView) and task.error_code:
        return Ending(sentence="", action=task.why.replace("{", "{{").replace("}", "}}"))
    has_launcher = (task.stage if isinstance(task, StageView) else "embed") in launcher_stages
    return explain_exit(task.slurm_state, task.exit_code, has_launcher) if task.exit_code else None


def _is_in(task: ShardView | StageView, label: str) -> bool:
    """Whether a task is in a state; embed counts as one task only as long as there is no plan."""
    if isinstance(task, ShardView):
        return task.state == label
    if task.stage == "embed" and is_held(task.slurm_state, task.reason) != (label == "held"):
        return False  # its jobs may be in several states, and it has the reason of one
    return label in task.tasks and (task.stage != "embed" or bool(task.job))


def group_lines(found: Sequence[TaskGroup], brief: bool) -> list[str]:
    """A line per group: how many are in which state, which, what it means, what to do.

    If several nodes have the same fault, the first has a line of its own, and one line has the others.

    Args:
        found: the groups.
        brief: only what to do, and one line for all that only wait.
    """
    waits = [group for group in found if brief and not _needs_person(group)]
    faults = {group.node_fault: _by_node(found, group.node_fault) for group in found if group.node_fault}
    lines = []
    for group in found:
        if not group.node_fault and group not in waits:
            lines.append(_line(group, brief))
        elif group.node_fault in faults:
            first, *others = faults.pop(group.node_fault)
            lines.append(_line(first, brief))
            lines += [_line_of_nodes(others)] if others else []
    return [*lines, f"wait: {', '.join(f'{_count(group)}{_reasons(group)}' for group in waits)}"] if waits else lines


def _needs_person(group: TaskGroup) -> bool:
    return isinstance(group.meaning, Ending) or (group.meaning is not None and group.meaning.kind != "wait")


def _by_node(found: Sequence[TaskGroup], fault: str) -> list[TaskGroup]:
    """The groups with this fault of a node, by the node: n2 before n10."""

    def order(group: TaskGroup) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", ",".join(group.nodes))
        return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]

    return sorted((group for group in found if group.node_fault == fault), key=order)


def _line_of_nodes(faulty: Sequence[TaskGroup]) -> str:
    """One line for the other nodes with a fault: their shards, and the process that is at fault if one is named."""
    nodes = []
    for group in faulty[:MOST_NODES]:
        holder = HOLDER.search(group.action)
        process = f": {holder[0]}" if holder else ""
        nodes.append(f"{', '.join(group.nodes) or '?'} ({_who(group)}){process}")
    rest = [", ".join(group.nodes) for group in faulty[MOST_NODES:]]
    more = [f"{len(rest)} more nodes: {', '.join(rest)}"] if rest else []
    return f"the same fault on {'; '.join(nodes + more)}"


def _line(group: TaskGroup, brief: bool) -> str:
    if brief:
        return f"{group.label} {_who(group)}: {group.action}"
    who = f"{_count(group)}{_reasons(group)}: {_who(group)}" if group.shards else f"{group.label}: {_who(group)}"
    said = "; ".join(text for text in (group.sentence, group.action) if text)
    return f"{who}: {said}" if said else who


def _reasons(group: TaskGroup) -> str:
    """The reasons, where no sentence explains them."""
    plain = {reason for one in group.reasons for reason in reasons_in(one)} <= set(PLAIN)
    reasons = group.reasons - {"None"} if plain or group.meaning is None else set()
    return f" ({', '.join(sorted(reasons))})" if reasons else ""


def _count(group: TaskGroup) -> str:
    return f"{len(group.shards) + len(group.stages)} {group.label}"


def _who(group: TaskGroup) -> str:
    names = list(group.stages)
    if group.shards:
        names.insert(0, f"shards {short_list(group.shards)}")
    return ", ".join(names)


def short_list(shards: Sequence[int]) -> str:
    """Ascending shards as a list that fits a line: `0-2,17, ...`."""
    spec = array_spec(shards)
    return spec if len(spec) <= MOST_NAMED else f"{spec[:MOST_NAMED].rpartition(',')[0]}, ..."


def job_arguments(jobs: Sequence[str]) -> str:
    """Jobs and array tasks as arguments of scontrol and scancel: `12_3 12_7 15`, or `'12_[0-63]'` if there are many."""
    arrays: dict[str, list[int]] = {}
    names: list[str] = []
    for job in jobs:
        index = job.partition("_")[2]
        if index.isdecimal():
            arrays.setdefault(job_id(job), []).append(int(index))
        else:
            names.append(job)
    for job, indices in arrays.items():
        if len(indices) > MOST_JOBS:
            names.append(f"'{job}_[{array_spec(sorted(set(indices)))}]'")
        else:
            names += [f"{job}_{index}" for index in indices]
    return " ".join(_with_ranges(names))


def _with_ranges(names: Sequence[str]) -> list[str]:
    """The names with more than MOST_JOBS jobs in a row as a range, which the shell expands: `{123..186}`."""
    numbers = sorted({int(name) for name in names if name.isdecimal()})
    shown: list[str] = []
    for _, run in groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        jobs = [job for _, job in run]
        shown += [f"{{{jobs[0]}..{jobs[-1]}}}"] if len(jobs) > MOST_JOBS else map(str, jobs)
    return shown + [name for name in names if not name.isdecimal()]
