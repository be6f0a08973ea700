"""`embedkit run`: every stage on this machine, through the local queue."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.errors import EmbedkitError
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from jobs.local.progress import Display
from jobs.local.queue import Job, LocalQueue, Slot, remove_job_files, whole_machine
from jobs.tasks import embed_task, merge_task, prepare_task

if TYPE_CHECKING:
    from rich.console import Console


def run_stages(run: RunFolder, slots: Sequence[Slot], console: "Console") -> None:
    """prepare, embed and merge, each once what it needs is there.

    Every stage checks what an earlier start left and does only what is missing.

    Raises:
        EmbedkitError: a job failed; the others were finished first.
    """
    machine, gpus = LocalQueue(run, [whole_machine()]), LocalQueue(run, slots)
    with Display(run, console) as display:
        _run(run, machine, [Job("prepare", prepare_task, (run.path,))], display)
        plan = read_plan(run, read(run.config, RunConfig))
        embed = [Job(f"embed-{shard:05d}", embed_task, (run.path, shard)) for shard in range(len(plan.shards))]
        _run(run, gpus, embed, display)
        _run(run, machine, [Job("merge", merge_task, (run.path,))], display)
    remove_job_files(run)


def _run(run: RunFolder, queue: LocalQueue, jobs: list[Job], display: Display) -> None:
    failures = queue.run(jobs, display.update)
    if failures:
        lines = [f"{name} failed: {error}" for name, error in sorted(failures.items())]
        raise EmbedkitError("\n".join([*lines, f"what is done is kept; to continue: {run.resume_command}"]))
