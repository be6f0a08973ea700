"""Ask Slurm's accounting how jobs ended: one sacct call, text fields by name.

The fields are the same from Slurm 20.11 to 26.05; comments name the exceptions. tests/data/slurm has recordings.

Records arrive some seconds late, and may be purged or missing. They explain a failure; they decide nothing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from embedkit.errors import EmbedkitError
from jobs.gres import gpus_in_tres
from jobs.slurm.client import run_slurm, seconds_of
from jobs.slurm.states import is_active

FIELDS = (
    *("JobID", "State", "ExitCode", "NodeList", "Submit", "Eligible", "Start", "End"),
    *("AllocCPUS", "ReqMem", "AllocTRES", "TotalCPU", "MaxRSS"),
)


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One start of a job or array task in the accounting.

    Times are seconds since the epoch, None if unknown. `state` is the first word: `CANCELLED`, not `CANCELLED by
    1000`. Memory is in bytes. `memory_requested` is a request; `cpu_seconds` and `memory` were used, and are known only
    if the steps were read too. `gpus` is 0 where the site does not account for GPUs.
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
    memory_requested: int | None = None
    gpus: int = 0
    cpu_seconds: float | None = None
    memory: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether this start has ended; an unknown state counts as an end."""
        return not is_active(self.state)

    @property
    def name(self) -> str:
        """The name that scancel takes: `123`, `123_17`."""
        return self.job if self.index is None else f"{self.job}_{self.index}"


def history(jobs: Iterable[str], steps: bool = False) -> list[JobRecord] | None:
    """Every start of these jobs that the accounting knows, oldest first per task; None if there is no accounting.

    Args:
        jobs: ids of whole jobs or arrays, not of single tasks.
        steps: also read what the steps used, which takes more rows.
    """
    ids = ",".join(sorted(set(jobs), key=int))
    if not ids:
        return []
    rows = () if steps else ("-X",)
    try:
        return parse_history(run_slurm("sacct", *rows, "-n", "-P", "-D", "-j", ids, "-o", ",".join(FIELDS)))
    except EmbedkitError:
        return None


def parse_history(text: str) -> list[JobRecord]:
    """Read the output of sacct for FIELDS. Tasks that have not started, such as `123_[4-9]`, are left out."""
    records: list[JobRecord] = []
    for line in text.splitlines():
        if line.count("|") != len(FIELDS) - 1:
            continue
        row = dict(zip(FIELDS, line.split("|"), strict=True))
        job_id = re.fullmatch(r"(\d+)(?:_(\d+))?(\..+)?", row["JobID"])
        if job_id is None:
            continue
        index = None if job_id[2] is None else int(job_id[2])
        if job_id[3] is None and row["NodeList"] == "None assigned":
            continue  # cancelled before its start: 24.11 has a row for it, and 20.11 gives its end as its start
        if job_id[3] is None:
            records.append(_record(job_id[1], index, row))
        elif records and (records[-1].job, records[-1].index) == (job_id[1], index):
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
        memory_requested=_requested_bytes(row["ReqMem"], cpus),
        gpus=gpus_in_tres(row["AllocTRES"]),
        cpu_seconds=_seconds(row["TotalCPU"]) if row["MaxRSS"] else None,
        memory=bytes_of(row["MaxRSS"]),
    )


def _with_step(record: JobRecord, step: dict[str, str]) -> JobRecord:
    """Add what one step used: CPU time is a sum, memory is that of the largest step."""
    spent, memory = _seconds(step["TotalCPU"]), bytes_of(step["MaxRSS"])
    return replace(
        record,
        cpu_seconds=record.cpu_seconds if spent is None else (record.cpu_seconds or 0.0) + spent,
        memory=record.memory if memory is None else max(record.memory or 0, memory),
    )


def bytes_of(amount: str) -> int | None:
    """Bytes of memory as Slurm prints it: `4000M`, `1.5G`, `120K`; None if it is no amount."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", amount)
    return int(float(found[1]) * 1024 ** " KMGTP".index(found[2] or " ")) if found else None


def _requested_bytes(memory: str, cpus: int) -> int | None:
    """ReqMem in bytes. Before 21.08 it ends in `n` (per node) or `c` (per CPU)."""
    amount = bytes_of(memory.rstrip("nc"))
    return amount * cpus if amount is not None and memory.endswith("c") else amount


def _seconds(time: str) -> float | None:
    """Seconds of `[DD-[HH:]]MM:SS[.mmm]`."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)", time)
    if found is None:
        return None
    days, hours, minutes = (int(part or 0) for part in found.groups()[:3])
    return ((days * 24 + hours) * 60 + minutes) * 60 + float(found[4])
