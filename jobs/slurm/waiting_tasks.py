"""Keep the waiting tasks of an array away from a node.

A node on which every task stops within seconds is always free, so Slurm would start one waiting task after another
there, and all would fail.
"""

import re

from jobs.slurm.client import run_slurm


def exclude_from_waiting_tasks(array: str, node: str) -> bool:
    """Exclude a node from the tasks of an array that wait to start. Returns whether any wait.

    Raises EmbedkitError if Slurm refuses or does not answer.
    """
    waiting = parse_waiting(run_slurm("scontrol", "show", "job", "-o", array))
    if waiting is None:
        return False
    task, excluded = waiting
    run_slurm("scontrol", "update", f"JobId={task}", f"ExcNodeList={','.join([*excluded, node])}")
    return True


def parse_waiting(text: str) -> tuple[str, tuple[str, ...]] | None:
    """Read `scontrol show job -o` of an array: the name of its waiting tasks, and the nodes that they exclude.

    The name is `123_[5-9]`. Slurm shows all tasks that wait in one line, and each that has started in one of its own.
    None if no task waits.
    """
    for line in text.splitlines():
        fields = dict(re.findall(r"(?:^| )(\w+)=(\S*)", line))
        if fields.get("JobState") == "PENDING" and "ArrayTaskId" in fields:
            excluded = fields.get("ExcNodeList", "(null)")
            name = f"{fields.get('ArrayJobId', fields['JobId'])}_[{fields['ArrayTaskId'].partition('%')[0]}]"
            return name, () if excluded in ("", "(null)") else (excluded,)
    return None
