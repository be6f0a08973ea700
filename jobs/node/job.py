"""`python -m jobs.node.job STAGE RUN`: the command of each Slurm job of a run.

The shard of embed is the array index, or --shard where each shard is a job of its own.
"""

import argparse
import sys
from pathlib import Path

from embedkit.job import enter_job
from embedkit.run import RunFolder
from jobs.node.slurm_job import SlurmJob
from jobs.profiles import STAGES
from jobs.records import group_of
from jobs.slurm import array_indices
from jobs.slurm_environment import array_index, job_of_this_process
from jobs.tasks import log_to_stderr


def main() -> None:
    """Run one job, as named by the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shard", type=int, help="the shard of embed in a job that is no array")
    parser.add_argument(
        "--shards",
        help="all shards of the array, cut into groups of --per-job; the array index is the first of a group. "
        "Without an array: one group",
    )
    parser.add_argument("--per-job", type=int, default=1)
    parser.add_argument("--in-turn", type=int, default=1, help="shards that each worker embeds, one after another")
    parser.add_argument("--allow-mixed", action="store_true", help="accept shards that different engines made")
    arguments = parser.parse_args()
    log_to_stderr()
    enter_job(job_of_this_process())
    run = RunFolder(arguments.run)
    shards = _shards(arguments) if arguments.stage == "embed" else ()
    if shards == () and arguments.stage == "embed":
        parser.error("embed needs a shard: start it with sbatch --array, or add --shard")
    job: SlurmJob
    if arguments.shards is not None and shards:
        from jobs.node.group_job import GroupJob  # imports submitit and rich, which a job of one shard does not need

        job = GroupJob(run, shards, arguments.per_job // arguments.in_turn, arguments.allow_mixed)
    else:
        job = SlurmJob(arguments.stage, run, arguments.allow_mixed, *shards)
    sys.exit(job.run())


def _shards(arguments: argparse.Namespace) -> tuple[int, ...]:
    """The shards of this task of embed: by the array index, or as named; none if neither is there."""
    index = array_index()
    if arguments.shards is not None:
        shards = array_indices(arguments.shards)
        return shards if index is None else group_of(index, shards, arguments.per_job)
    shard = arguments.shard if index is None else index
    return () if shard is None else (shard,)


if __name__ == "__main__":
    main()
