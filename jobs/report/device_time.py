"""How the device time of a shard was spent."""

from collections.abc import Iterable, Sequence

from embedkit.documents import ShardManifest
from jobs.report.observations import AttemptFiles, Inputs
from jobs.report.schema import AttemptReport, Spent
from jobs.report.sums import total


def kept_chunks(inputs: Inputs, shard: int) -> dict[int, tuple[int, float]]:
    """Tokens and seconds of the shard's chunks that are kept, by first id."""
    manifest = inputs.manifests.get(shard)
    if manifest is not None:
        return {chunk.start: (chunk.tokens, chunk.seconds) for chunk in manifest.chunks}
    return _union(inputs.observed.files.get(shard, ()))


def _union(files: Iterable[AttemptFiles]) -> dict[int, tuple[int, float]]:
    return {start: chunk for left in files for start, chunk in left.chunks.items()}


def has_unknown_attempts(manifest: ShardManifest | None, attempts: Sequence[AttemptReport]) -> bool:
    """Whether chunks were adopted from attempts of which nothing is known: as a rule, attempts outside Slurm."""
    return manifest is not None and bool(manifest.chunks_adopted) and len(attempts) < 2


def spent_on(inputs: Inputs, shard: int, attempts: Sequence[AttemptReport]) -> Spent | None:
    """How a shard's device time was spent; None if it is unknown, or attempts are missing."""
    manifest = inputs.manifests.get(shard)
    device = total(attempt.device_seconds for attempt in attempts)
    embedded = sum((seconds for _, seconds in kept_chunks(inputs, shard).values()), 0.0)
    # More embedding than attempts: some are missing. Times of events are whole seconds, hence the tolerance.
    too_much = device is not None and embedded > 1.02 * device + 2.0 * len(attempts)
    if device is None or too_much or has_unknown_attempts(manifest, attempts):
        return None
    left = device

    def take(seconds: float) -> float:
        nonlocal left
        taken = min(max(seconds, 0.0), left)
        left -= taken
        return taken

    lost = total(attempt.device_seconds for attempt in attempts if attempt.is_lost) or 0.0
    phases = {} if manifest is None else manifest.seconds
    return Spent(
        embedded=take(embedded),
        lost=take(lost - _kept_of_lost(inputs, shard, attempts)),
        starting=take(phases.get("start", 0.0)),
        waiting=take(phases.get("wait", 0.0)),
        checking=take(sum(phases.get(phase, 0.0) for phase in ("canary", "adopt", "write"))),
        other=left,
    )


def _kept_of_lost(inputs: Inputs, shard: int, attempts: Sequence[AttemptReport]) -> float:
    """Seconds of the kept chunks that were made by attempts which did not finish."""
    manifest = inputs.manifests.get(shard)
    if manifest is not None:
        return max(sum(chunk.seconds for chunk in manifest.chunks) - manifest.seconds.get("embed", 0.0), 0.0)
    not_lost = {(attempt.job, attempt.restart) for attempt in attempts if not attempt.is_lost}
    files = inputs.observed.files.get(shard, ())
    return sum(s for _, s in _union(left for left in files if (left.job, left.restart) not in not_lost).values())


def add_up(parts: Sequence[Spent]) -> Spent | None:
    """The sum of several shards' device time; None if there are none."""
    if not parts:
        return None
    names = Spent.__struct_fields__
    return Spent(**{name: sum(getattr(part, name) for part in parts) for name in names})
