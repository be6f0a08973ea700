"""The report of one stage."""

from collections.abc import Sequence

from jobs.profiles import Stage
from jobs.report.observations import Inputs
from jobs.report.schema import AttemptReport, ShardReport, StageReport
from jobs.report.sums import cpus_used, largest, total

ALWAYS: tuple[Stage, ...] = ("prepare", "embed", "merge")
"""The stages that every run has."""


def is_shown(stage: Stage, attempts: Sequence[AttemptReport]) -> bool:
    """Whether a report includes a stage: every run has it, or there was an attempt at it."""
    return stage in ALWAYS or any(attempt.stage == stage for attempt in attempts)


def stage_report(
    stage: Stage, all_attempts: Sequence[AttemptReport], inputs: Inputs, shards: Sequence[ShardReport]
) -> StageReport:
    """The report of one stage, from all attempts of the run and the reports of its shards."""
    attempts = [attempt for attempt in all_attempts if attempt.stage == stage]
    started = min((a.started for a in attempts if a.started is not None), default=None)
    ended = max((a.ended for a in attempts if a.ended is not None), default=None)
    phases: dict[str, float] = {}
    if stage == "embed":
        for shard in shards:
            for phase, seconds in shard.seconds.items():
                phases[phase] = phases.get(phase, 0.0) + seconds
    elif stage == "merge":
        phases = dict(inputs.merge_timings)
    return StageReport(
        stage=stage,
        attempts=len(attempts),
        attempts_lost=sum(attempt.is_lost for attempt in attempts),
        attempts_at_least=any(shard.attempts_at_least for shard in shards) and stage == "embed",
        started=started,
        ended=ended,
        elapsed_seconds=None if started is None or ended is None else max(ended - started, 0.0),
        wall_seconds=total(attempt.wall_seconds for attempt in attempts),
        queue_seconds=total(attempt.queue_seconds for attempt in attempts),
        queue_longest=largest(attempt.queue_seconds for attempt in attempts),
        device_seconds=total(attempt.device_seconds for attempt in attempts),
        lost_wall_seconds=total(a.wall_seconds if a.is_lost else 0.0 for a in attempts),
        cpus_requested=largest(attempt.cpus_requested for attempt in attempts),
        cpus_used=cpus_used(attempts),
        memory_requested=largest(attempt.memory_requested for attempt in attempts),
        memory_peak=largest(attempt.memory_peak for attempt in attempts),
        seconds=phases,
    )
