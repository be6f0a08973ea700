"""`embedkit run`: every stage on this machine, through the local queue."""

from collections.abc import Mapping, Sequence
from functools import partial

from rich.console import Console

from embedkit.documents import RunConfig, read
from embedkit.errors import EmbedkitError
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from jobs.local.pickles import remove_job_files
from jobs.local.progress import Display
from jobs.local.queue import Job, LocalQueue, Slot, whole_machine
from jobs.records import log_name
from jobs.tasks import embed_task, merge_task, prepare_task


def run_stages(run: RunFolder, slots: Sequence[Slot], console: Console, allow_mixed: bool = False) -> None:
    """Run prepare, then embed, then merge, with progress on the console.

    Every stage keeps what an earlier attempt finished and does only the rest.

    Args:
        run: the run.
        slots: where shards are embedded, one at a time per slot. A slot's worker starts the engine once and takes
            shard after shard.
        console: for the progress.
        allow_mixed: accept shards that different engines made.

    Raises:
        EmbedkitError: a job failed. The stage's remaining jobs were run first.
    """
    machine, gpus = LocalQueue(run, [whole_machine()]), LocalQueue(run, slots)
    with Display(run, console) as display:
        _require(run, machine.run([Job("prepare", prepare_task, (run.path,))], display.update))
        plan = read_plan(run, read(run.config, RunConfig))
        shards = {log_name("embed", shard): shard for shard in range(len(plan.shards))}
        embed = partial(embed_task, run.path, allow_mixed=allow_mixed)
        _require(run, gpus.share(embed, shards, display.update))
        _require(run, machine.run([Job("merge", merge_task, (run.path, allow_mixed))], display.update))
    remove_job_files(run)


def _require(run: RunFolder, failures: Mapping[str, str]) -> None:
    """Raise EmbedkitError if jobs have failed: their errors by name."""
    if failures:
        lines = [f"{name} failed: {error}" for name, error in sorted(failures.items())]
        raise EmbedkitError("\n".join([*lines, f"finished work is kept; to continue: {run.resume_command}"]))
