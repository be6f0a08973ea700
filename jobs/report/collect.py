"""Reading what a report is made of: the run's folder, one question to the accounting, one to the queue."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from embedkit.documents.codec import decode_line, digest, read
from embedkit.documents.schema import JournalHeader, Plan, RunConfig, ShardManifest, Success
from embedkit.embed.shard_file import JOURNAL, MATRIX, PARTIAL, read_journal
from embedkit.embed.shard_state import ShardStates
from embedkit.errors import EmbedkitError
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from jobs.profiles.schema import STAGES, Stage
from jobs.records.attempts import Attempts, Start
from jobs.records.log_names import log_name
from jobs.records.submissions import LiveTask, Submission, Submissions, seconds_since_epoch
from jobs.report.attempts import LOCAL, Evidence, Place, Trace
from jobs.report.compute import Inputs
from jobs.slurm.accounting import JobRecord, history
from jobs.slurm.client import has_slurm, job_id, queue

ATTEMPTS = ".attempts.jsonl"


def read_inputs(run: RunFolder) -> Inputs:
    """All that a report needs. Raises EmbedkitError if run_config.json, plan or submissions.jsonl is damaged."""
    config = read(run.config, RunConfig)
    plan = read_plan(run, config) if run.plan.exists() else None
    submissions = Submissions(run).read()
    manifests = _manifests(run, plan) if plan is not None else {}
    starts = read_starts(run)
    traces = {shard: _traces(run, shard, manifests.get(shard)) for shard in range(len(plan.shards) if plan else 0)}
    success = _success(run, plan)
    jobs = {job_id(line.job) for line in submissions if line.job is not None}
    jobs |= {job_id(start.first.job) for lane in starts.values() for start in lane}
    evidence = Evidence(
        now=time.time(),
        device=config.request.device,
        starts=starts,
        last_signs=_last_signs(run, starts),
        traces=traces,
        local_stages=_local_stages(run, starts, success),
        submissions=submissions,
        records=_records(jobs),
        live=_live(run, submissions),
    )
    asked = submissions[0].at if submissions else config.asked.get("at")
    return Inputs(
        run=_readable(str(run.path)),
        name=_readable(run.name),
        engine=config.request.engine,
        asked=_seconds(asked),
        merged=success is not None,
        evidence=evidence,
        plan=plan,
        manifests=manifests,
        merge_timings=success.timings if success is not None else {},
    )


def read_starts(run: RunFolder) -> dict[Place, Sequence[Start]]:
    """The lines of every job that kept any, by stage and shard, as the files' names say."""
    found: dict[Place, Sequence[Start]] = {}
    for path in sorted(run.logs.glob(f"*{ATTEMPTS}")):
        place = place_of(path.name.removesuffix(ATTEMPTS))
        if place is not None:
            found[place] = Attempts(run, *place).starts()
    return found


def place_of(name: str) -> Place | None:
    """The stage and shard of a log's name; None if it is none of ours."""
    stage, dash, number = name.partition("-")
    known = {str(known): known for known in STAGES}
    if stage not in known or bool(dash) != number.isdecimal():
        return None
    return known[stage], int(number) if number else None


def _readable(name: str) -> str:
    """A name whose bytes may be no UTF-8, so that it can be written in JSON."""
    return os.fsencode(name).decode(errors="replace")


def _seconds(at: str | None) -> float | None:
    with suppress(ValueError):
        return None if at is None else datetime.fromisoformat(at).timestamp()
    return None


def _manifests(run: RunFolder, plan: Plan) -> dict[int, ShardManifest]:
    """The manifests that count, by shard."""
    manifests, _ = ShardStates(run, plan).read_all("sizes")
    return {manifest.shard: manifest for manifest in manifests}


def _success(run: RunFolder, plan: Plan | None) -> Success | None:
    with suppress(EmbedkitError):
        success = read(run.success, Success)
        if plan is not None and success.plan_sha256 == digest(plan):
            return success
    return None


def attempt_names(attempt: str) -> tuple[str, int]:
    """Job and restart of an attempt's name, `123_17-0-8a2f1706`."""
    found = re.fullmatch(r"(.+)-(\d+)-[0-9a-f]+", attempt)
    return (found[1], int(found[2])) if found is not None else (attempt, 0)


def _traces(run: RunFolder, shard: int, manifest: ShardManifest | None) -> list[Trace]:
    """What attempts left in a shard's folder, oldest first; the one that finished knows its phases."""
    folder = run.shard(shard)
    if manifest is not None:
        return [_finished(folder, manifest)]
    traces = []
    for path in sorted(folder.glob(f"*{JOURNAL}")):
        journal = read_journal(path)
        if journal is not None:
            job, restart = attempt_names(journal.header.attempt)
            trace = Trace(
                job=job,
                restart=restart,
                node=journal.header.host,
                started=journal.header.started,
                ended=_newest(folder.glob(f"{journal.header.attempt}.*")),
                finished=False,
                chunks={chunk.start: (chunk.tokens, chunk.seconds) for chunk in journal.chunks},
            )
            traces.append(trace)
    return sorted(traces, key=lambda trace: trace.started or 0.0)


def _finished(folder: Path, manifest: ShardManifest) -> Trace:
    job, restart = attempt_names(manifest.attempt)
    # The journal begins once the engine is up and has sung.
    began = _began(folder / f"{manifest.attempt}{JOURNAL}")
    started = None if began is None else began - manifest.seconds.get("start", 0.0)
    worked = sum(manifest.seconds.values())
    ended = _newest([folder / "manifest.json"]) if started is None else started + worked
    if started is None and ended is not None:
        started = ended - worked
    adopted = sum(chunk.seconds for chunk in manifest.chunks) - manifest.seconds.get("embed", 0.0)
    return Trace(
        job=job,
        restart=restart,
        node=manifest.host,
        started=started,
        ended=ended,
        finished=True,
        adopted_seconds=max(adopted, 0.0) if manifest.chunks_adopted else 0.0,
    )


def _began(journal: Path) -> float | None:
    with suppress(OSError, EmbedkitError), journal.open("rb") as file:
        return decode_line(file.readline(), JournalHeader, journal).started
    return None


def _newest(paths: Iterable[Path]) -> float | None:
    """When the newest of some files was written; None if there are none."""
    times = []
    for path in paths:
        if path.name.endswith((JOURNAL, MATRIX, PARTIAL, ".json", ".log")):
            with suppress(OSError):
                times.append(path.stat().st_mtime)
    return max(times, default=None)


def _last_signs(run: RunFolder, starts: Mapping[Place, Sequence[Start]]) -> dict[tuple[Place, str, int], float]:
    """When starts without a last word last wrote to their logs."""
    signs: dict[tuple[Place, str, int], float] = {}
    for place, lane in starts.items():
        silent = [start for start in lane if start.last is None]
        if not silent:
            continue
        path = run.logs / f"{log_name(*place)}.log"
        if silent[-1] is lane[-1] and (written := _newest([path])) is not None:
            signs[place, silent[-1].first.job, silent[-1].first.restart] = written
        passed = seconds_logged(path) if silent[:-1] or silent[-1] is not lane[-1] else {}
        for start in silent:
            key = (start.first.job, start.first.restart)
            if key in passed:
                sign = seconds_since_epoch(start.first.at) + passed[key]
                signs[place, *key] = max(sign, signs.get((place, *key), sign))
    return signs


START_LINE = re.compile(r"^(\S+ \S+) INFO job (\S+) on \S+, start (\d+)$")
TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[,.]\d+ ")


def seconds_logged(log: Path) -> dict[tuple[str, int], float]:
    """From the first to the last line of each start in a log, by job and restart.

    A log has the node's local time, so only what passed between two lines is taken from it.
    """
    spans: dict[tuple[str, int], list[datetime]] = defaultdict(list)
    now: tuple[str, int] | None = None
    with suppress(OSError), log.open(errors="replace") as lines:
        for line in lines:
            if begins := START_LINE.match(line):
                now = (begins[2], int(begins[3]))
            if now is not None and (said := TIME.match(line)):
                spans[now] = [*spans[now][:1], datetime.fromisoformat(said[1])]
    return {key: max((times[-1] - times[0]).total_seconds(), 0.0) for key, times in spans.items()}


def _local_stages(
    run: RunFolder, starts: Mapping[Place, Sequence[Start]], success: Success | None
) -> dict[Stage, tuple[float, float]]:
    """First and last sign of prepare and merge where no job kept lines of them."""
    found: dict[Stage, tuple[float, float]] = {}
    began, planned = _newest([run.data_index]), _newest([run.plan])
    if ("prepare", None) not in starts and began is not None and planned is not None:
        found["prepare"] = (min(began, planned), planned)
    merged = _newest([run.success])
    if ("merge", None) not in starts and success is not None and merged is not None:
        found["merge"] = (merged - sum(success.timings.values()), merged)
    return found


def _records(jobs: Iterable[str]) -> list[JobRecord] | None:
    numbers = [job for job in jobs if job != LOCAL and job.isdecimal()]
    return history(numbers, steps=True) if numbers else None


def _live(run: RunFolder, submissions: Sequence[Submission]) -> list[LiveTask] | None:
    """What of this run is queued or running; None where Slurm cannot say: it is asked for one's own jobs only."""
    if not submissions or not has_slurm() or run.submissions.stat().st_uid != os.getuid():
        return None
    try:
        return Submissions(run).live(queue())
    except EmbedkitError:
        return None
