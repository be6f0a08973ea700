"""The report of a run: what it cost and how it went. Every number is a pure function of what was read.

A number that is unknown is None. A sum covers what is known and is None if nothing is; `notes` says what is missing.
"""

from collections import defaultdict

import msgspec

from jobs.profiles import STAGES
from jobs.report.attempts import attempts_of, unit_of
from jobs.report.device_time import add_up
from jobs.report.notes import accounting_of, notes_of
from jobs.report.observations import Inputs
from jobs.report.schema import AttemptReport, Report
from jobs.report.shards import shard_report
from jobs.report.stages import is_shown, stage_report
from jobs.report.sums import ratio, total


def make_report(inputs: Inputs) -> Report:
    """Compute the report of a run from all that was read of it."""
    observed = inputs.observed
    attempts = attempts_of(observed)
    of_shard: dict[int, list[AttemptReport]] = defaultdict(list)
    for attempt in attempts:
        if attempt.shard is not None:
            of_shard[attempt.shard].append(attempt)
    count = len(inputs.plan.shards) if inputs.plan is not None else 0
    queued = {shard for live in observed.live or () if not live.task.never_starts for shard in live.shards}
    shards = tuple(shard_report(inputs, shard, of_shard[shard], queued) for shard in range(count))
    stages = tuple(stage_report(stage, attempts, inputs, shards) for stage in STAGES if is_shown(stage, attempts))
    done = [shard for shard in shards if shard.state == "finished" and shard.predicted_seconds]
    predicted = total(shard.predicted_seconds for shard in done)
    spent = add_up([shard.spent for shard in shards if shard.spent is not None])
    embedded = total(shard.embedded_seconds for shard in shards)
    tokens_done = sum(shard.tokens_done for shard in shards)
    started = min((t for t in [inputs.requested_at, *(a.started for a in attempts)] if t is not None), default=None)
    last_end = max((a.ended for a in attempts if a.ended is not None), default=None)
    ended = last_end if inputs.merged else None
    return Report(
        **msgspec.structs.asdict(inputs.engine),
        run=inputs.run,
        name=inputs.name,
        made=observed.now,
        merged=inputs.merged,
        unit=unit_of(observed),
        accounting=accounting_of(observed, attempts),
        requested_at=inputs.requested_at,
        ended=ended,
        elapsed_seconds=None if started is None else max((observed.now if ended is None else ended) - started, 0.0),
        shards_finished=sum(shard.state == "finished" for shard in shards),
        tokens=inputs.plan.tokens_to_embed if inputs.plan is not None else None,
        tokens_done=tokens_done,
        tokens_per_second=ratio(tokens_done, embedded),
        device_seconds=total(attempt.device_seconds for attempt in attempts),
        embedded_seconds=embedded,
        embedded_share=None if spent is None else ratio(spent.embedded, spent.total),
        spent=spent,
        predicted_seconds=total(shard.predicted_seconds for shard in shards),
        cost_ratio=ratio(total(shard.embedded_seconds for shard in done), predicted),
        device_ratio=ratio(total(shard.device_seconds for shard in done), predicted),
        stages=stages,
        shards=shards,
        attempts=tuple(attempts),
        notes=tuple(notes_of(inputs, attempts, shards)),
    )
