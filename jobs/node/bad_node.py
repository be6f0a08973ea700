"""Keep the waiting tasks of embed off this node, because its GPU would fail them too."""

import logging

from embedkit.errors import EmbedkitError
from embedkit.job import current_job
from embedkit.run import RunFolder
from jobs.records import Submissions
from jobs.slurm import exclude_from_waiting_tasks, job_id
from jobs.slurm_environment import array_index

log = logging.getLogger("embedkit")


def keep_waiting_tasks_off_this_node(run: RunFolder) -> None:
    """Exclude this node from the tasks of embed that have not started. Logs the result; raises nothing."""
    job = current_job()
    is_shard_finished = any(run.shard(0).parent.glob("*/manifest.json"))
    try:
        jobs = [job_id(job.name)] if array_index() is not None else _jobs_of_embed(run)
        if exclude_from_waiting_tasks(jobs, job.node, others_fit=is_shard_finished):
            log.info("the waiting tasks of embed will not start on %s", job.node)
    except EmbedkitError as error:
        log.warning("the waiting tasks of embed may still start on %s: %s", job.node, error)


def _jobs_of_embed(run: RunFolder) -> list[str]:
    """The ids of the newest job of each shard, where each task is a job. Some may have ended.

    Not from squeue: in a container only scontrol can be asked.
    """
    lines = [line for line in Submissions(run).read() if line.stage == "embed" and line.what == "submitted"]
    newest = {shard: line.job for line in lines if line.job is not None for shard in line.index_of}
    return list(dict.fromkeys(newest.values()))
