"""Run Slurm's commands: the queue, the state of a job, cancelling, the cluster's settings.

Only text output with named fields is read; it is the same from Slurm 20.11 to 26.05 (recorded in tests/data/slurm).
Unknown states are kept as they are. Slurm explains why work is missing; only manifests say what is finished.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from embedkit.errors import EmbedkitError
from jobs.slurm.chosen_cluster import addressed, where
from jobs.slurm.commands import start_command
from jobs.slurm.states import QUEUED, UNKNOWN

TIMEOUT_SECONDS = 60
MOST_JOBS = 6
"""A message names so many jobs one by one."""
QUERY_INTERVAL_SECONDS = 5.0
"""Seconds between queries of a command that waits or refreshes: Slurm has other users."""
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER")
"""Where the cluster is. All other variables of a surrounding job would leak into the jobs."""
SLURM_VARIABLES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "SUBMITIT_")
OUTPUT_VARIABLES = ("SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_", "SLURM_TIME_FORMAT", "SLURM_CLUSTERS")
"""Variables that change what these commands print or do, such as SCANCEL_INTERACTIVE."""


@dataclass(frozen=True)
class Task:
    """A job, or one task of an array, that is queued or running.

    `start` is when it started, or is expected to start while it is pending: seconds since the epoch, None if unknown.
    `submitted` is when it was submitted. `job_name` and `folder`, its working folder, identify it where a site changes
    comments. `command` is the path of its script.
    """

    job: str
    index: int | None
    state: str
    reason: str
    node: str
    comment: str
    account: str = ""
    qos: str = ""
    start: float | None = None
    job_name: str = ""
    folder: str = ""
    submitted: float | None = None
    command: str = ""

    @property
    def name(self) -> str:
        """The name that scancel takes: `123`, `123_17`."""
        return self.job if self.index is None else f"{self.job}_{self.index}"

    @property
    def is_pending(self) -> bool:
        """Whether it has no node yet. A configuring task has one, which may be starting up."""
        return self.state in QUEUED

    @property
    def never_starts(self) -> bool:
        """Whether it waits for a dependency that can no longer be satisfied."""
        return self.is_pending and self.reason == "DependencyNeverSatisfied"


def has_slurm() -> bool:
    """Whether Slurm's commands are on this machine."""
    return shutil.which("squeue") is not None


def require_slurm() -> None:
    """Raise EmbedkitError if there is no Slurm here."""
    if shutil.which("sbatch") is None:
        raise EmbedkitError(
            "there is no Slurm here (no sbatch in PATH); type this on a login node of a cluster, or use `embedkit run`"
        )


def run_slurm(*command: str) -> str:
    """Run one of Slurm's commands; returns its output without colours, times in UTC.

    Raises EmbedkitError with its message.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith(OUTPUT_VARIABLES)}
    try:
        # 0: array indices are not shortened
        done = start_command(addressed(command), TIMEOUT_SECONDS, plain | {"TZ": "UTC", "SLURM_BITSTR_LEN": "0"})
    except FileNotFoundError:
        raise EmbedkitError(f"there is no Slurm here (no {command[0]} in PATH)") from None
    except subprocess.TimeoutExpired:
        raise EmbedkitError(f"{command[0]} did not answer in {TIMEOUT_SECONDS} s{where()}; try again later") from None
    if done.returncode:
        message = plain_text(done.stderr).strip() or plain_text(done.stdout).strip() or f"exit code {done.returncode}"
        raise EmbedkitError(f"{command[0]} failed: {message}{where()}")
    return plain_text(done.stdout)


def plain_text(text: str) -> str:
    """Text without colours, titles of windows and Windows line ends."""
    return re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)", "", text).replace("\r", "")


def unreadable(command: str, line: str) -> EmbedkitError:
    """The error for output that is not what the command prints; `line`: the first line of it."""
    return EmbedkitError(
        f"{command} printed something that is not its answer: {line.strip()[:100]!r}. A wrapper or an alias may have "
        f"changed {command}'s output: `type -a {command}` shows which program that is; put Slurm's own first in PATH"
    )


@contextmanager
def own_environment() -> Iterator[None]:
    """Hide the variables of a surrounding job, and the Hub's token, from the jobs that are submitted."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if (name.startswith(SLURM_VARIABLES) and name not in KEPT) or name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?")
"""The indices of an array as Slurm writes them; a longer list may be cut, `1-9,...`."""


def seconds_of(time: str) -> float | None:
    """Seconds since the epoch of a time as Slurm prints it in UTC; None for `Unknown`, `None`, `N/A`."""
    try:
        return datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def state_of(task: str) -> tuple[str, str]:
    """State and reason of one job or array task, named as in `123` or `123_17`.

    ("", "") if Slurm no longer knows it, ("UNKNOWN", "") if Slurm does not answer.
    """
    try:
        text = show_job(task)
    except EmbedkitError as error:
        return ("" if is_unknown_job(str(error)) else UNKNOWN), ""
    state, reason = parse_state(text)
    return (state, reason) if state or is_unknown_job(text) else (UNKNOWN, "")


def show_job(task: str) -> str:
    """What `scontrol show job -o` prints of one job or array task. Raises EmbedkitError with its message."""
    return run_slurm("scontrol", "show", "job", "-o", task)


def is_unknown_job(message: str) -> bool:
    """Whether scontrol says that it knows no such job: it has never been, or it ended and was forgotten."""
    return re.search(r"invalid job ?id|no such job|job .*not found", message, re.IGNORECASE) is not None


def parse_state(text: str) -> tuple[str, str]:
    """State and reason in `scontrol show job -o`; for an array with pending tasks, those of the pending tasks."""
    state, reason = re.search(r"\bJobState=(\S+)", text), re.search(r"\bReason=(\S+)", text)
    return (state[1] if state else ""), (reason[1] if reason else "")


def cancel(tasks: Sequence[str]) -> None:
    """Cancel jobs or array tasks. A task that has already ended is no error."""
    if tasks:
        run_slurm("scancel", *tasks)


def configuration() -> dict[str, str]:
    """The cluster's settings, by name."""
    return parse_configuration(run_slurm("scontrol", "show", "config"))


def parse_configuration(text: str) -> dict[str, str]:
    """Read `scontrol show config`."""
    found = re.findall(r"^(\w+)\s*= (.*?)\s*$", text, flags=re.MULTILINE)
    return dict(found)


def job_id(job: str) -> str:
    """The id of the job or array that a task belongs to: `123` of `123_17`."""
    return job.partition("_")[0]


def job_list(jobs: Sequence[str]) -> str:
    """Ids of jobs for a message: `101, 102, 107` as they are, more than MOST_JOBS as ascending ranges `101-140`."""
    if len(jobs) <= MOST_JOBS:
        return ", ".join(jobs)
    return array_spec(sorted(map(int, jobs))).replace(",", ", ")


def array_spec(indices: Sequence[int]) -> str:
    """Write ascending indices as an array specification: `0-2,17`."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def array_indices(spec: str) -> tuple[int, ...]:
    """The indices of an array specification, `0-2,17` or `0-34:2`; a limit `%N` at its end is ignored."""
    indices: list[int] = []
    for run in spec.partition("%")[0].split(","):
        ends, _, step = run.partition(":")
        first, _, last = ends.partition("-")
        indices += range(int(first), int(last or first) + 1, int(step or 1))
    return tuple(indices)
