"""Whether the vectors of a merged run may be copied into a run of another request."""

from embedkit.certificates import Certified
from embedkit.changes import file_changes, show_changes
from embedkit.documents import EngineRecord, Request, ReusedRun
from embedkit.errors import UsageError
from embedkit.row_keys.earlier_run import EarlierRun, success_digest
from embedkit.row_keys.key_files import key_records
from embedkit.row_keys.vector_engines import require_one_engine, vector_engines


def check_reusable(earlier: EarlierRun, request: Request) -> None:
    """Check what decides whether the same token ids have the same vectors in both, except the engine's version.

    Raises:
        UsageError: they would not.
        EmbedkitError: the run has no row keys.
    """
    there, run = earlier.config.request, earlier.run
    if changes := file_changes("model file", there.model_files, request.model_files):
        raise UsageError(f"--reuse {run.name}: its model is not this one (there -> here):\n{show_changes(changes)}")
    for name in ("engine", "device", "dtype", "store"):
        one, other = getattr(there, name), getattr(request, name)
        if one != other:
            raise UsageError(f"--reuse {run.name}: its {name} is {one}, here it is {other}; type --{name} {one}")
    if not set(there.views) & set(request.views):
        raise UsageError(f"--reuse {run.name}: it has no view of this run; it has {', '.join(there.views)}")
    if len(earlier.success.engines) > 1 and earlier.success.mixed_engines_allowed:
        raise UsageError(f"--reuse {run.name}: its shards were made by different engines (--allow-mixed)")
    key_records(run, earlier.plan)


def reusable(earlier: EarlierRun, request: Request, across_engines: bool = False) -> ReusedRun:
    """What a request says of a run that it reuses.

    across_engines: whether passed certificates count: those of the run, and those by which it has vectors of two
        engines.

    Raises:
        UsageError: the same token ids would not have the same vectors in both.
        EmbedkitError: the run has no row keys.
    """
    check_reusable(earlier, request)
    engines = vector_engines(earlier)
    others: list[EngineRecord] = []
    if across_engines:
        certified = Certified.of_run(earlier.run)
        others = [other for engine in engines for other in certified.same_as(engine)]
    else:
        require_one_engine(earlier.run.name, engines)
    return ReusedRun(
        success_sha256=success_digest(earlier.success),
        eager=earlier.plan.settings.eager,
        engines=engines,
        certified=tuple(other for other in dict.fromkeys(others) if other not in engines),
    )
