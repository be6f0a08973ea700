"""Ask squeue which tasks are queued or running.

A site may put a wrapper around squeue that prints a banner, drops options or cuts lines. So each line begins and ends
with a word of embedkit. Output without such a line is an error, not an empty queue.
"""

import os
import re

from jobs.slurm.client import ARRAY, Task, array_indices, run_slurm, seconds_of, unreadable

QUEUE_FORMAT = "embedkit|%F|%K|%T|%r|%N|%a|%q|%S|%k|name=%j|folder=%Z|submitted=%V|command=%o|user=%U|embedkit"
"""Array id, index, state, reason, nodes, account, QOS, start (expected start if pending), comment, name, working
folder, time of submission, script, the user's number. The word at both ends shows which lines are ours and complete.
"""
HEADING = re.compile(r"embedkit\|[A-Z_]+\|")
"""squeue's heading, which is there even if the queue is empty: it shows that squeue used the format."""
TASK = re.compile(
    r"embedkit\|(\d+)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|(.*?)"
    r"\|name=(.*?)\|folder=(.*?)\|submitted=([^|\n]*)(?:\|command=(.*?))?\|user=(\d*)\|embedkit",
    re.DOTALL,
)
NOISE = re.compile(r"\s*(CLUSTER: .*)?")
"""Lines of squeue without a task that are not worth a word: empty ones, and the heading of a cluster."""


def queue() -> list[Task]:
    """All tasks of this user that are queued or running.

    Not with `-r` (one line per task): Slurm 22.05 then leaves out the last task of `0-34:2`.

    Raises EmbedkitError if squeue does not answer, or in a format that was not requested.
    """
    # -a: jobs of hidden partitions too
    return parse_queue(run_slurm("squeue", "-a", "-u", str(os.getuid()), "-o", QUEUE_FORMAT))


def parse_queue(text: str) -> list[Task]:
    """Read the output of squeue in QUEUE_FORMAT; waiting tasks of an array share a line (`2-9%2`).

    Tasks of other users are left out, and so are lines of a banner. Raises EmbedkitError if text is there and no line
    has the format, or if a line is cut short.
    """
    before, *lines = re.split(r"^[ \t]*(?=embedkit\|)", text, flags=re.MULTILINE)
    foreign = [line for line in before.splitlines() if not NOISE.fullmatch(line)]
    if not lines and foreign:
        raise unreadable("squeue", foreign[0])
    tasks = []
    for line in lines:
        found = TASK.match(line)
        if found is None:
            if HEADING.match(line):
                continue
            raise unreadable("squeue", line.splitlines()[0])
        job, index, state, reason, node, account, qos, start, comment, name, folder, submitted, command, user = (
            found.groups()
        )
        if user not in ("", str(os.getuid())):
            continue  # this squeue does not heed -u
        indices = array_indices(index) if ARRAY.fullmatch(index) else (None,)
        begin, queued = seconds_of(start), seconds_of(submitted)
        tasks += [
            Task(job, number, state, reason, node, comment, account, qos, begin, name, folder, queued, command or "")
            for number in indices
        ]
    return tasks
