"""Read what a report is made of: the run's folder, sacct once, squeue once."""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from embedkit.documents import JournalHeader, Plan, RunConfig, ShardManifest, Success, decode_line, digest, read
from embedkit.embed import JOURNAL, Journal, ShardStates, has_matrices, journals
from embedkit.engines import engine_facts
from embedkit.errors import EmbedkitError
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from jobs.profiles import Stage
from jobs.records import (
    ATTEMPTS_SUFFIX,
    Attempt,
    Attempts,
    LiveReader,
    LiveTask,
    Place,
    Submission,
    Submissions,
    clock_errors,
    launcher_stages,
    log_name,
    own_records,
    place_of,
    read_times,
    seconds_since_epoch,
    with_right_times,
)
from jobs.report.observations import LOCAL, AttemptFiles, AttemptObservations, Inputs
from jobs.slurm import JobRecord, has_slurm, history, job_id


def read_inputs(run: RunFolder) -> Inputs:
    """Read all that a report needs.

    Raises EmbedkitError if run_config.json, the plan or submissions.jsonl is damaged.
    """
    config = read(run.config, RunConfig)
    plan = read_plan(run, config) if run.plan.exists() else None
    submissions = Submissions(run).read()
    manifests = _manifests(run, plan) if plan is not None else {}
    attempts = read_attempts(run)
    success = _success(run, plan)
    jobs = {job_id(line.job) for line in submissions if line.job is not None}
    jobs |= {job_id(attempt.job) for lane in attempts.values() for attempt in lane}
    records = _records(jobs, submissions)
    now = time.time()
    every_attempt = [attempt for lane in attempts.values() for attempt in lane]
    clocks = clock_errors(every_attempt, submissions, records or (), now)
    attempts = {place: with_right_times(lane, clocks) for place, lane in attempts.items()}
    files = {
        shard: _attempt_files(run, shard, manifests.get(shard), clocks)
        for shard in range(len(plan.shards) if plan else 0)
    }
    observed = AttemptObservations(
        now=now,
        device=config.request.device,
        attempts=attempts,
        last_writes=_last_writes(run, attempts),
        files=files,
        local_stages=_local_stages(run, attempts, plan, success),
        submissions=submissions,
        records=records,
        live=_live(run, submissions),
        clock_errors=clocks,
        launcher_stages=launcher_stages(run, submissions),
    )
    requested_at = submissions[0].at if submissions else config.asked.get("at")
    return Inputs(
        run=_readable(str(run.path)),
        name=_readable(run.name),
        engine=engine_facts(config),
        requested_at=_seconds(requested_at),
        merged=success is not None,
        observed=observed,
        plan=plan,
        manifests=manifests,
        merge_timings=success.timings if success is not None else {},
    )


def read_attempts(run: RunFolder) -> dict[Place, Sequence[Attempt]]:
    """Read all attempts files, by the stage and shard in their names."""
    found: dict[Place, Sequence[Attempt]] = {}
    for path in sorted(run.logs.glob(f"*{ATTEMPTS_SUFFIX}")):
        place = place_of(path.name.removesuffix(ATTEMPTS_SUFFIX))
        if place is not None:
            found[place] = Attempts(run, *place).attempts()
    return found


def _readable(name: str) -> str:
    """A name that can be written as JSON: bytes that are not UTF-8 are replaced."""
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
    """The job and the restart in an attempt's name, `123_17-0-8a2f1706`."""
    found = re.fullmatch(r"(.+)-(\d+)-[0-9a-f]+", attempt)
    return (found[1], int(found[2])) if found is not None else (attempt, 0)


def _attempt_files(
    run: RunFolder, shard: int, manifest: ShardManifest | None, clocks: Mapping[str, float]
) -> list[AttemptFiles]:
    """What attempts left in a shard's folder, oldest first; once the shard is finished, of the last attempt alone.

    `clocks`: seconds by which the clocks of nodes are ahead.
    """
    folder = run.shard(shard)
    if manifest is not None:
        return [_finished(folder, manifest, clocks)]
    found = []
    for journal in journals(folder):
        job, restart = attempt_names(journal.header.attempt)
        chunks = journal.chunks if has_matrices(folder, journal) else ()
        files = AttemptFiles(
            job=job,
            restart=restart,
            node=journal.header.host,
            started=journal.header.started - clocks.get(journal.header.host, 0.0),
            ended=_last_chunk(journal) - clocks.get(journal.header.host, 0.0),
            finished=False,
            chunks={chunk.start: (chunk.tokens, chunk.seconds) for chunk in chunks},
        )
        found.append(files)
    return found


def _finished(folder: Path, manifest: ShardManifest, clocks: Mapping[str, float]) -> AttemptFiles:
    job, restart = attempt_names(manifest.attempt)
    # The journal begins after the engine has started and embedded the canary.
    begun = _journal_start(folder / f"{manifest.attempt}{JOURNAL}")
    ahead = clocks.get(manifest.host, 0.0)
    started = None if begun is None else begun - manifest.seconds.get("start", 0.0) - ahead
    worked = sum(manifest.seconds.values())
    ended = None if started is None else started + worked
    adopted = sum(chunk.seconds for chunk in manifest.chunks) - manifest.seconds.get("embed", 0.0)
    return AttemptFiles(
        job=job,
        restart=restart,
        node=manifest.host,
        started=started,
        ended=ended,
        finished=True,
        adopted_seconds=max(adopted, 0.0) if manifest.chunks_adopted else 0.0,
    )


def _journal_start(journal: Path) -> float | None:
    with suppress(OSError, EmbedkitError), journal.open("rb") as file:
        return decode_line(file.readline(), JournalHeader, journal).started
    return None


def _last_chunk(journal: Journal) -> float:
    """When an attempt had at least made its chunks, seconds since the epoch. A copied file has another time."""
    return journal.header.started + sum(chunk.seconds for chunk in journal.chunks)


def _last_writes(run: RunFolder, attempts: Mapping[Place, Sequence[Attempt]]) -> dict[tuple[Place, str, int], float]:
    """When attempts without an exit record last wrote a line with a time to their logs, seconds since the epoch."""
    found: dict[tuple[Place, str, int], float] = {}
    for place, lane in attempts.items():
        killed = [attempt for attempt in lane if attempt.exit_record is None]
        if not killed:
            continue
        # Not the log's own time, which a copy does not have.
        spans = seconds_logged(run.logs / f"{log_name(*place)}.log")
        for attempt in killed:
            key = (attempt.job, attempt.restart)
            if key in spans:
                found[place, *key] = seconds_since_epoch(attempt.started.at) + spans[key]
    return found


START_LINE = re.compile(r"^(\S+ \S+) INFO job (\S+) on \S+, start (\d+)$")
TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[,.]\d+ ")


def seconds_logged(log: Path) -> dict[tuple[str, int], float]:
    """Seconds from the first to the last line of each attempt in a log, by job and restart.

    A log has the local time of its node, so only the time between two lines is used.
    """
    spans: dict[tuple[str, int], list[datetime]] = defaultdict(list)
    attempt: tuple[str, int] | None = None
    with suppress(OSError), log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if begins := START_LINE.match(line):
                attempt = (begins[2], int(begins[3]))
            if attempt is not None and (stamp := TIME.match(line)):
                spans[attempt] = [*spans[attempt][:1], datetime.fromisoformat(stamp[1])]
    return {key: max((times[-1] - times[0]).total_seconds(), 0.0) for key, times in spans.items()}


def _local_stages(
    run: RunFolder, attempts: Mapping[Place, Sequence[Attempt]], plan: Plan | None, success: Success | None
) -> dict[Stage, tuple[float, float]]:
    """Start and end of prepare and merge, if they are done, have no attempts file, and wrote down their times."""
    done: dict[Stage, bool] = {"prepare": plan is not None, "merge": success is not None}
    found = {s: time for s, time in read_times(run).items() if done.get(s) and (s, None) not in attempts}
    if success is not None and "merge" in found:
        ended = found["merge"][1]
        found["merge"] = ended - sum(success.timings.values()), ended  # without the checks of the shards before it
    return found


def _records(jobs: Iterable[str], submissions: Sequence[Submission]) -> list[JobRecord] | None:
    numbers = [job for job in jobs if job != LOCAL and job.isdecimal()]
    records = history(numbers, steps=True) if numbers else None
    return None if records is None else own_records(records, submissions)


def _live(run: RunFolder, submissions: Sequence[Submission]) -> list[LiveTask] | None:
    """The run's tasks in the queue; None if Slurm does not answer, or the run is a different user's."""
    if not submissions or not has_slurm() or run.submissions.stat().st_uid != os.getuid():
        return None
    try:
        live = LiveReader(run).read()
    except EmbedkitError:
        return None
    return None if live.unanswered else list(live.tasks)
