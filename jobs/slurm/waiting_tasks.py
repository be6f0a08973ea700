"""Keep waiting tasks of embed away from a node.

A node on which every task stops within seconds is always free, so Slurm would start one waiting task after another
there, and all would fail.
"""

import re
from collections.abc import Sequence

from embedkit.errors import EmbedkitError
from jobs.slurm.client import is_unknown_job, run_slurm


def exclude_from_waiting_tasks(jobs: Sequence[str], node: str, *, others_fit: bool) -> bool:
    """Exclude a node from the tasks that wait to start. Returns whether it did.

    It does nothing unless another node is known to fit (`others_fit`), or one of the tasks runs on one. If every
    node were excluded, the tasks would wait for ever, and merge with them.

    Args:
        jobs: the array, or all jobs of embed where each task is one.
        node: the node to exclude.
        others_fit: whether another node is known to fit.

    Raises:
        EmbedkitError: Slurm refuses or does not answer.
    """
    text = "".join(_shown(job) for job in jobs)
    waiting = parse_waiting(text)
    if not (others_fit or parse_running(text) - {node}):
        return False
    for task, excluded in waiting:
        run_slurm("scontrol", "update", f"JobId={task}", f"ExcNodeList={','.join([*excluded, node])}")
    return bool(waiting)


def _shown(job: str) -> str:
    """The lines of `scontrol show job`; none for a job that has ended and that Slurm no longer knows."""
    try:
        return run_slurm("scontrol", "show", "job", "-o", job)
    except EmbedkitError as error:
        if is_unknown_job(str(error)):
            return ""
        raise


def parse_running(text: str) -> set[str]:
    """Read `scontrol show job -o`: the nodes on which these tasks run."""
    lines = [dict(re.findall(r"(?:^| )(\w+)=(\S*)", line)) for line in text.splitlines()]
    return {fields.get("NodeList", "") for fields in lines if fields.get("JobState") == "RUNNING"}


def parse_waiting(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Read `scontrol show job -o`: the names of the waiting tasks, each with the nodes that it excludes.

    Tasks of an array that never started share a line and a name, `123_[5-9]`. One that was requeued has its own,
    `123_4`, and a job that is no array is `123`.
    """
    found: list[tuple[str, tuple[str, ...]]] = []
    for line in text.splitlines():
        fields = dict(re.findall(r"(?:^| )(\w+)=(\S*)", line))
        if fields.get("JobState") != "PENDING":
            continue
        indices = fields.get("ArrayTaskId", "").partition("%")[0]
        name = (
            f"{fields['ArrayJobId']}_{indices if indices.isdecimal() else f'[{indices}]'}"
            if indices
            else fields["JobId"]
        )
        excluded = fields.get("ExcNodeList", "(null)")
        found.append((name, () if excluded in ("", "(null)") else (excluded,)))
    return found
