"""Which engines made the vectors of a merged run: those of its shards, and those that made what it copied."""

from collections.abc import Sequence

from embedkit.documents import EngineRecord, ReusedRun, ShardManifest, named_fields, read, vector_fields
from embedkit.errors import UsageError
from embedkit.row_keys.earlier_run import EarlierRun


def vector_engines(earlier: EarlierRun) -> tuple[EngineRecord, ...]:
    """The engines that made the vectors of a merged run, those of its shards first.

    Each agrees with the others, or merge would have refused the shards, and the tasks to copy.
    Raises EmbedkitError naming a shard's manifest that is missing or damaged, if vectors were copied.
    """
    engines = [*earlier.success.engines, *(engine for reused in _copied_from(earlier) for engine in reused.engines)]
    return tuple(dict.fromkeys(engines))


def _copied_from(earlier: EarlierRun) -> list[ReusedRun]:
    """The runs from which an earlier run copied vectors."""
    if not earlier.plan.tokens_copied:
        return []
    shards = range(len(earlier.plan.shards))
    used = {name for shard in shards for name in read(earlier.run.shard_manifest(shard), ShardManifest).copied}
    return [reused for reused in earlier.config.request.reuse if reused.success_sha256 in used]


def require_one_engine(name: str, engines: Sequence[EngineRecord]) -> None:
    """Raise UsageError if some of a run's vectors were made by an engine that differs from that of its first shard."""
    first = engines[0]
    for other in engines[1:]:
        if fields := vector_fields(first, other):
            raise UsageError(
                f"--reuse {name}: some of its vectors were made with {named_fields(first, fields)}, others with "
                f"{named_fields(other, fields)}, in its shards or in a run from which it copied. It has both because a "
                "certificate says that they agree. To accept that for this run, too, add --reuse-across-engines"
            )
