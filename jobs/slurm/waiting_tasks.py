"""Keep the waiting tasks of an array away from a node.

A node on which every task stops within seconds is always free, so Slurm would start one waiting task after another
there, and all would fail.
"""

import re

from jobs.slurm.client import run_slurm


def exclude_from_waiting_tasks(array: str, node: str, *, others_fit: bool) -> bool:
    """Exclude a node from the tasks of an array that wait to start. Returns whether it did.

    It does nothing unless another node is known to fit (`others_fit`), or a task of the array runs on one. If every
    node were excluded, the array would wait for ever, and merge with it.

    Raises EmbedkitError if Slurm refuses or does not answer.
    """
    text = run_slurm("scontrol", "show", "job", "-o", array)
    waiting = parse_waiting(text)
    if not (others_fit or parse_running(text) - {node}):
        return False
    for task, excluded in waiting:
        run_slurm("scontrol", "update", f"JobId={task}", f"ExcNodeList={','.join([*excluded, node])}")
    return bool(waiting)


def parse_running(text: str) -> set[str]:
    """Read `scontrol show job -o` of an array: the nodes on which its tasks run."""
    lines = [dict(re.findall(r"(?:^| )(\w+)=(\S*)", line)) for line in text.splitlines()]
    return {fields.get("NodeList", "") for fields in lines if fields.get("JobState") == "RUNNING"}


def parse_waiting(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Read `scontrol show job -o` of an array: the names of its waiting tasks, each with the nodes that it excludes.

    Tasks that never started share a line and a name, `123_[5-9]`. One that was requeued has its own, `123_4`.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(?:^| )(\w+)=(\S*)", line))
        if fields.get("JobState") != "PENDING" or "ArrayTaskId" not in fields:
            continue
        indices = fields["ArrayTaskId"].partition("%")[0]
        name = f"{fields['ArrayJobId']}_{indices if indices.isdecimal() else f'[{indices}]'}"
        excluded = fields.get("ExcNodeList", "(null)")
        found.append((name, () if excluded in ("", "(null)") else (excluded,)))
    return found
