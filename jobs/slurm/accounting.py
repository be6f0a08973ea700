"""Asking Slurm's accounting what became of jobs: one sacct call, text fields by name.

They are the same from 20.11 to 26.05, as tests/data/slurm has them, but for what is said where they are read.

What sacct says lags some seconds, may be purged, or is not there at all: it explains, and decides nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from embedkit.errors import EmbedkitError
from jobs.slurm.client import ask, seconds_of

FIELDS = (
    *("JobID", "State", "ExitCode", "NodeList", "Submit", "Eligible", "Start", "End"),
    *("AllocCPUS", "ReqMem", "AllocTRES", "TotalCPU", "MaxRSS"),
)


ALIVE = (
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "RESIZING",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
)
"""States of a start that is not over."""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One start of a job or array task, as the accounting has it. Times are seconds since the epoch, None if unknown.

    `state` is the first word: `CANCELLED`, not `CANCELLED by 1000`. Memory is in bytes. `cpu_seconds` and `memory`,
    what was used, are known only if steps were asked for; `gpus` is 0 where the site does not account for them.
    """

    job: str
    index: int | None
    state: str
    exit_code: str = ""
    node: str = ""
    submitted: float | None = None
    eligible: float | None = None
    started: float | None = None
    ended: float | None = None
    cpus: int = 0
    memory_asked: int | None = None
    gpus: int = 0
    cpu_seconds: float | None = None
    memory: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether this start has ended; a state that is not known here is taken for an end."""
        return self.state not in ALIVE

    @property
    def name(self) -> str:
        """As people and scancel name it: `123`, `123_17`."""
        return self.job if self.index is None else f"{self.job}_{self.index}"


def history(jobs: Iterable[str], steps: bool = False) -> list[JobRecord] | None:
    """Every start of these jobs that the accounting knows, a task's oldest first; None if there is no accounting.

    Args:
        jobs: ids, not those of single tasks.
        steps: read what their steps used, too; more rows to read.
    """
    ids = ",".join(sorted(set(jobs), key=int))
    if not ids:
        return []
    which = () if steps else ("-X",)
    try:
        return parse_history(ask("sacct", *which, "-n", "-P", "-D", "-j", ids, "-o", ",".join(FIELDS)))
    except EmbedkitError:
        return None


def parse_history(text: str) -> list[JobRecord]:
    """Read what sacct prints for FIELDS; what has not started, such as `123_[4-9]`, is left out."""
    records: list[JobRecord] = []
    for line in text.splitlines():
        if line.count("|") != len(FIELDS) - 1:
            continue
        row = dict(zip(FIELDS, line.split("|"), strict=True))
        found = re.fullmatch(r"(\d+)(?:_(\d+))?(\..+)?", row["JobID"])
        if found is None:
            continue
        index = None if found[2] is None else int(found[2])
        if found[3] is None and row["NodeList"] == "None assigned":
            continue  # 24.11 has a row for each task that was cancelled before; 20.11 says it started when it ended
        if found[3] is None:
            records.append(_record(found[1], index, row))
        elif records and (records[-1].job, records[-1].index) == (found[1], index):
            records[-1] = _with_step(records[-1], row)
    return records


def _record(job: str, index: int | None, row: dict[str, str]) -> JobRecord:
    cpus = int(row["AllocCPUS"]) if row["AllocCPUS"].isdecimal() else 0
    return JobRecord(
        job=job,
        index=index,
        state=(row["State"].split() or [""])[0],
        exit_code=row["ExitCode"],
        node=row["NodeList"],
        submitted=seconds_of(row["Submit"]),
        eligible=seconds_of(row["Eligible"]),
        started=seconds_of(row["Start"]),
        ended=seconds_of(row["End"]),
        cpus=cpus,
        memory_asked=_asked(row["ReqMem"], cpus),
        gpus=_gpus(row["AllocTRES"]),
        cpu_seconds=_duration(row["TotalCPU"]) if row["MaxRSS"] else None,
        memory=bytes_of(row["MaxRSS"]),
    )


def _with_step(record: JobRecord, step: dict[str, str]) -> JobRecord:
    """The record with what one more of its steps used: CPU time adds up, memory is the largest step's."""
    spent, memory = _duration(step["TotalCPU"]), bytes_of(step["MaxRSS"])
    return replace(
        record,
        cpu_seconds=record.cpu_seconds if spent is None else (record.cpu_seconds or 0.0) + spent,
        memory=record.memory if memory is None else max(record.memory or 0, memory),
    )


def bytes_of(amount: str) -> int | None:
    """Bytes of an amount of memory as Slurm prints it: `4000M`, `1.5G`, `120K`; None if it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", amount)
    return int(float(found[1]) * 1024 ** " KMGTP".index(found[2] or " ")) if found else None


def _asked(memory: str, cpus: int) -> int | None:
    """ReqMem in bytes; before 21.08 it ends in `n`, for a node, or in `c`, for a CPU."""
    amount = bytes_of(memory.rstrip("nc"))
    return amount * cpus if amount is not None and memory.endswith("c") else amount


def _gpus(tres: str) -> int:
    """GPUs in AllocTRES: `billing=8,cpu=8,gres/gpu=1,gres/gpu:h100=1,mem=64G,node=1`."""
    counts = re.findall(r"\bgres/gpu(:[^=,]+)?=(\d+)", tres)
    untyped = [int(count) for kind, count in counts if not kind]
    return untyped[0] if untyped else sum(int(count) for _, count in counts)


def _duration(time: str) -> float | None:
    """Seconds of `[DD-[HH:]]MM:SS[.mmm]`."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", time)
    if found is None:
        return None
    days, hours, minutes = (int(part or 0) for part in found.groups()[:3])
    return ((days * 24 + hours) * 60 + minutes) * 60 + float(found[4])
