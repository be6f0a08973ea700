"""What a report does not know, and that GPU models are mixed, in words for people."""

from collections.abc import Iterable, Sequence
from typing import Literal

from jobs.monitor import mixed_gpus_note
from jobs.records import clock_notes
from jobs.report.observations import LOCAL, AttemptObservations, Inputs
from jobs.report.schema import AttemptReport, ShardReport


def notes_of(inputs: Inputs, attempts: Sequence[AttemptReport], shards: Sequence[ShardReport]) -> Iterable[str]:
    """What is not known of a run and why, and whether its GPU models are mixed, one note per line."""
    observed = inputs.observed
    submitted = [attempt for attempt in attempts if attempt.job != LOCAL]
    if inputs.plan is None:
        yield "not prepared yet: there are no shards"
    yield from clock_notes(observed.clock_errors)
    yield from mixed_gpus_note((shard, manifest.engine.gpu) for shard, manifest in sorted(inputs.manifests.items()))
    if submitted and observed.records is None:
        yield "no accounting: of a killed task, only what it had written before is known"
    elif submitted and accounting_of(observed, attempts) == "partial":
        yield "the accounting lacks some attempts (purged, or some seconds late): their numbers come from files"
    local = [attempt for attempt in attempts if attempt.job == LOCAL]
    if local:
        yield "jobs that ran on this machine without Slurm have no record of CPUs, memory or earlier attempts"
    guessed = sum(attempt.ended_at_least for attempt in attempts)
    if guessed:
        yield f"{guessed} attempts ended without an exit record: their end is known only as a lower bound (>=)"
    unknown = sum(attempt.outcome == "unknown" for attempt in attempts)
    if unknown:
        yield f"it is not known whether {unknown} attempts still run: Slurm was not queried, or did not answer"
    missing = [shard.shard for shard in shards if shard.attempts_at_least]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        named = ", ".join(map(str, missing[:3]))
        yield f"earlier attempts at shards {named}{more} left chunks but no times: their cost is not included"
    untimed = [s.shard for s in shards if s.spent is None and s.embedded_seconds and not s.attempts_at_least]
    if untimed:
        longer = "embedded for longer than their known attempts took"
        yield f"{len(untimed)} shards {longer}: no share for shard {untimed[0]}"


def accounting_of(
    observed: AttemptObservations, attempts: Sequence[AttemptReport]
) -> Literal["complete", "partial", "none"]:
    """Whether the accounting answered, and has a record of every attempt on the cluster."""
    if observed.records is None or not any(attempt.job != LOCAL for attempt in attempts):
        return "none"
    names = {(attempt.job, attempt.restart) for attempt in attempts if attempt.job != LOCAL}
    known = sum(record.started is not None for record in observed.records)
    return "complete" if known >= len(names) else "partial"
