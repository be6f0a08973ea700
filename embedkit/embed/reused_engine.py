"""Is this node's engine the one that made the copied vectors? Vectors of two engines must not be mixed silently."""

from collections.abc import Iterator

from embedkit.documents import EngineRecord, Plan, ReusedRun, RunConfig, named_fields, vector_fields
from embedkit.embed.same_engine import known_before_start, with_known
from embedkit.errors import EngineDiffers, GpuDiffers
from embedkit.run import program
from embedkit.terminal import command_line


def check_known_engine(config: RunConfig, plan: Plan | None = None) -> None:
    """Compare what is known of the engine before it starts. Raises EngineDiffers, or GpuDiffers, if no record can fit.

    plan: if it copies nothing, any engine may start. Before there is one, the engine must fit.
    """
    known = known_before_start(config.request)
    for folder, reused in _reused(config, plan):
        _require_fit(folder, reused, [with_known(record, known) for record in reused.accepted])


def check_engine(config: RunConfig, record: EngineRecord, plan: Plan | None = None) -> None:
    """Compare the engine that has started. Raises as check_known_engine."""
    for folder, reused in _reused(config, plan):
        _require_fit(folder, reused, [record] * len(reused.accepted))


def _reused(config: RunConfig, plan: Plan | None) -> Iterator[tuple[str, ReusedRun]]:
    """The reused runs by folder; none if nothing is copied from them."""
    if plan is None or plan.tokens_copied:
        yield from zip(config.locations.reuse, config.request.reuse, strict=True)


def _require_fit(folder: str, reused: ReusedRun, here: list[EngineRecord]) -> None:
    """Raise EngineDiffers unless this node has an engine that the reused run accepts.

    One is enough: those that made its vectors, and those that were certified, were all found to agree.

    here: what is known of this node's engine, to be compared with each accepted one.
    """
    differing = [vector_fields(one, record) for one, record in zip(here, reused.accepted, strict=True)]
    if not all(differing):
        return
    fields, one, record = min(zip(differing, here, reused.accepted, strict=True), key=lambda each: len(each[0]))
    kind = GpuDiffers if "gpu" in fields else EngineDiffers
    raise kind(
        f"this engine has {named_fields(one, fields)}; the vectors of {folder}, which this run copies, were made "
        f"with {named_fields(record, fields)}. Vectors of both would be mixed. To find out whether they agree, "
        f"type here: {command_line([program(), 'certify', folder, '--engine-now'])}. If it passes, start this run "
        "again with --reuse-across-engines; or start it without --reuse"
    )
