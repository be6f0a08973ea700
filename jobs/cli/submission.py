"""What `submit` and `rerun` share: options of the jobs, and the summary of what was submitted."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import click

from embedkit.documents import RunConfig
from embedkit.engines import engine_facts
from embedkit.run import RunFolder, program
from embedkit.terminal import quote
from embedkit.versions import environment
from jobs.cli.clusters import use_cluster_of
from jobs.cli.options import with_options
from jobs.output import print_lines, print_note
from jobs.profiles import Profile, load_profile, read_variables
from jobs.records import Submissions, changed_note, recorded_profile
from jobs.slurm import MOST_JOBS, array_spec, job_id, job_list
from jobs.submit import ChainJob, SubmissionResult, last_submission

log = logging.getLogger("embedkit")

R = TypeVar("R")
MOST_FAILURES = 10

JOB_OPTIONS = [
    click.option("--profile", "profile_name", metavar="NAME|PATH",
                 help="Site profile: a name in slurm_templates/ or the path of a TOML file."),
    click.option("--no-profile-check", is_flag=True, help="Submit without first comparing a profile that is new to the "
                 "run, or changed, with the cluster."),
    click.option("--preflight/--no-preflight", default=None, help="Run a short task that tests node and engine before "
                 "the shards.  [default: yes, except with --engine hash; in a rerun: as before]"),
    click.option("--analyze/--no-analyze", default=None, help="Run a job that analyzes the run after merge.  "
                 "[default: no; in a rerun: as before]"),
    click.option("--allow-mixed/--no-allow-mixed", default=None, help="Accept shards that different GPU models or "
                 "versions made.  [default: no; in a rerun: as before]"),
    click.option("--shards-per-task", type=click.IntRange(1, 1024), help="Shards that each worker of a task embeds one "
                 "after another, with one start of the engine.  [default: the profile's, else 1]"),
    click.option("--dry-run", is_flag=True, help="Show what would be submitted, and submit nothing."),
]  # fmt: skip


def job_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command the options of the jobs that it submits."""
    return with_options(JOB_OPTIONS, command)


def profile_again(run: RunFolder, typed: str | None) -> Profile:
    """The profile of the option --profile, else the recorded one; prints a note if its file has changed since.

    The environment fills keys that it leaves out, as in `with_environment`.

    Raises:
        UsageError: the profile is not valid or cannot be read.
        EmbedkitError: the run was never submitted, or its copy of the profile is damaged.
    """
    if typed is not None:
        return with_environment(load_profile(typed), run)
    before = last_submission(run)
    profile = recorded_profile(run, before)
    print_lines(*changed_note(before))
    return with_environment(profile, run)


def with_environment(profile: Profile, run: RunFolder | None = None) -> Profile:
    """The profile with the keys that variables such as SBATCH_ACCOUNT fill; prints a line for each.

    From here on Slurm's commands ask the profile's cluster.

    Args:
        profile: as its file has it.
        run: the run that is submitted again; it keeps the cluster and the variables of its last submission. None for
            a new run.

    Raises:
        UsageError: a variable names several clusters.
    """
    last = (Submissions(run).read() if run is not None else [])[-1:]
    recorded, cluster = (last[0].variables, last[0].clusters) if last else (None, None)
    found = read_variables(profile, os.environ, recorded, cluster)
    print_lines(*found.used)
    if found.ignored:
        log.warning("%s", found.ignored)
    use_cluster_of(found.profile)
    return found.profile


def print_submission(run: RunFolder, config: RunConfig, done: SubmissionResult) -> None:
    """Print what was submitted, or would be, and the next command."""
    state, plan = done.state, done.plan
    print_lines(f"run {run.path}", f"engine {engine_facts(config, environment()).engine_line}")
    if done.warning:
        print_lines(f"warning: {done.warning}")
    if state.planned:
        print_lines(f"{state.shards - len(state.problems)} of {state.shards} shards are finished")
    for note in state.notes:
        print_note(f"note: {note}")
    if state.live:
        busy = sorted(Counter((live.stage, live.task.state.lower()) for live in state.live).items())
        print_lines("already on the cluster: " + ", ".join(f"{n} {stage} {state}" for (stage, state), n in busy))
    print_lines(*(f"failed before: {line}" for line in done.failed[:MOST_FAILURES]))
    if len(done.failed) > MOST_FAILURES:
        print_lines(f"and {len(done.failed) - MOST_FAILURES} more causes; see logs/embed-*.log")
    print_lines(*(f"changed: {change}" for change in done.adapted))
    if any(job.allow_mixed for job in plan.submit):
        print_lines("shards of different GPU models or versions are accepted (--allow-mixed)")
    verb = "would cancel" if done.dry_run else "cancelled"
    if plan.copies:
        kept = sorted({state.copies[job_id(name)] for name in plan.copies}, key=int)
        print_lines(
            f"{verb}: {', '.join(plan.copies)} (second copies of {job_list(kept)}: one call of sbatch made both)"
        )
    if plan.cancel:
        print_lines(f"{verb}: {', '.join(plan.cancel)} (could never start, or replaced)")
    _print_jobs(run, done)


def _print_jobs(run: RunFolder, done: SubmissionResult) -> None:
    """Print one line per job, with its dependency, and the next command."""
    jobs: dict[str, list[str]] = {}
    for line in done.submitted:
        jobs.setdefault(line.stage, []).append(line.job or "")
    for job in done.plan.submit:
        ids = jobs.get(job.stage, [])
        many = f"{job.tasks} jobs: " if not job.as_array and job.tasks > 1 else ""
        begin = f"job{'s' * (len(ids) > 1)} {job_list(ids)}: " if ids else f"would submit {many}"
        print_lines(f"{begin}{_described(job)}{_waiting_for(job, jobs)}")
        if job.in_turn > 1 and job.indices:
            starts = sum(min(len(group), job.workers) for group in job.groups)
            often = "once" if starts == 1 else f"{starts} times"
            shards = f"{len(job.indices)} shards ({len(job.indices) - starts} fewer, 25 to 90 s each)"
            print_lines(f"shards_per_task = {job.in_turn}: the engine starts {often} for {shards}")
    if not done.plan.submit:
        print_lines("merged: nothing to do" if done.state.merged else "nothing to submit")
    elif done.submitted:
        print_lines(f"Next: {quote(program())} status {run.argument} --output-dir {quote(str(run.path.parent))}")


def _described(job: ChainJob) -> str:
    """A job by its stage and its shards."""
    if job.indices is None:
        return job.stage
    if job.as_array:
        return f"{job.stage} shards {job.array}"
    at_once = "" if job.parallel is None else f" ({job.parallel} at once)"
    return f"{job.stage} shards {array_spec(job.indices)}{at_once}"


def _waiting_for(job: ChainJob, jobs: Mapping[str, Sequence[str]]) -> str:
    """What a job waits for, as in sbatch's --dependency; many jobs of a stage as ranges of their ids.

    `jobs`: the ids of the submitted jobs, by stage.
    """
    kinds = (("afterok", job.after_ok), ("afterany", job.after_any))
    ids = {kind: [one for name in names for one in jobs.get(name, [name])] for kind, names in kinds}
    every = [one for found in ids.values() for one in found]
    if len(every) > MOST_JOBS:
        named = [one for one in every if not one.isdecimal()]
        return f" (after {', '.join([*named, job_list([one for one in every if one.isdecimal()])])})"
    text = ",".join(":".join((kind, *names)) for kind, names in ids.items() if names)
    return f" (after {text})" if text else ""
