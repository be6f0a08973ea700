"""The command `cancel`: end everything of a run that is queued or running."""

import click

from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from jobs.cli.clusters import use_cluster_of_run
from jobs.cli.options import run_argument
from jobs.output import print_lines, print_note
from jobs.slurm import job_list
from jobs.submit import cancel_run


@click.command()
@run_argument
def cancel(folder: RunFolder) -> None:
    """Cancel all queued and running jobs of a run.

    It also interrupts an `embedkit run` of it on this machine. Finished chunks are kept; `embedkit rerun RUN`
    continues from there.
    """
    use_cluster_of_run(folder)
    done = cancel_run(folder)
    for note in done.notes:
        print_note(f"note: {note}")
    if done.left:
        raise EmbedkitError(done.left)
    for stage, state, count in done.tasks:
        print_lines(f"cancelled: {count} {stage} {state}")
    if done.jobs:
        print_lines(f"jobs {job_list(done.jobs)}; running tasks drop their unfinished chunks and end within seconds")
    if done.process is not None:
        print_lines(f"interrupted: process {done.process}")
    if not done.jobs and done.process is None:
        print_lines("no job of this run is queued or running")
    else:
        print_lines(f"Finished work is kept. To continue: {folder.resume_command}")
