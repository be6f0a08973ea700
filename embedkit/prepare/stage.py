"""The prepare stage: choose rows, make the parts, then number the kept rows and cut the plan."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
from msgspec import structs

from embedkit.data import (
    Dataset,
    columns_of,
    open_dataset,
    read_sources,
    require_fetched,
    row_bytes,
    sample_rows,
)
from embedkit.documents import (
    FORMAT,
    D,
    DataIndex,
    EngineSettings,
    NewerFormat,
    PartManifest,
    Plan,
    PlanCurve,
    PlanPart,
    PlanShard,
    Reason,
    RunConfig,
    ShardManifest,
    digest,
    read,
    write,
)
from embedkit.errors import EmbedkitError
from embedkit.log_progress import LogProgress
from embedkit.model import require_same_model
from embedkit.prepare.cost import CostModel, model_cost, plan_curve
from embedkit.prepare.dropped_rows import write_dropped
from embedkit.prepare.find_copies import LookupsMissing, make_lookups
from embedkit.prepare.first_rows import describe, look_at_first_rows
from embedkit.prepare.gathered_rows import GatheredRows
from embedkit.prepare.part_borders import part_borders
from embedkit.prepare.plan import (
    CHUNK_TOKENS,
    compile_of,
    cut_shards,
    engine_settings,
    is_same_plan,
    read_plan,
    with_stored_costs,
)
from embedkit.prepare.same_data import require_same_data, require_same_index
from embedkit.prepare.warnings import plan_warnings
from embedkit.prepare.workers import make_parts
from embedkit.row_keys import remove_lookups
from embedkit.run import RunFolder
from embedkit.storage import available_cpus, durable_mkdir, remove_temporaries, remove_trials, run_lock

log = logging.getLogger(__name__)

ROW_WORK = 64
"""What a row takes whatever its length, as bytes."""


def prepare(run: RunFolder, workers: int | None = None) -> Plan:
    """Make `extracted_data.parquet/`, `dropped_rows.parquet` and `plan.json`, or finish an interrupted prepare.

    Existing parts are read completely. Sound parts are kept, the others are made again.

    Args:
        run: a run folder with its `run_config.json`.
        workers: number of processes; None for one per CPU that this process may use.

    Raises:
        EmbedkitError: the data changed since the run was created, settings are open, a row cannot be read, or no row
            was kept.
    """
    config = read(run.config, RunConfig)
    if config.undecided:
        raise EmbedkitError(
            f"{run.config}: {', '.join(config.undecided)} not decided yet: type {run.resume_command}, or submit it"
        )
    require_fetched(run, config)
    require_same_model(run, config)
    for folder in (run.parts, run.extracted):
        durable_mkdir(folder)
    with run_lock(run.prepare_lock, "preparing this run", run.path):
        try:
            return _prepare(run, config, workers or available_cpus())
        finally:  # they may be large, and a resume makes them again
            remove_lookups(run.lookups)


def _prepare(run: RunFolder, config: RunConfig, workers: int) -> Plan:
    dataset = open_checked(run, config)
    gathered = _gather(run, config, dataset, workers)
    remove_temporaries(run.parts)
    for file in (run.dropped, run.plan):
        remove_temporaries(run.path, f"{file.name}.*")
    remove_trials(run.path, run.config.name)  # the run exists, so who still makes it is refused
    for line in describe(config, look_at_first_rows(config)):
        log.info("%s", line)
    # Number the kept rows, cut the plan, and write it or compare it with the one on disk.
    request = config.request
    cost = model_cost(Path(config.locations.model), request.device, request.engine, config.curve)
    earlier = None if _readable(run.plan, Plan) is None else read_plan(run, config)
    plan = make_plan(run, config, dataset.rows, gathered, cost, earlier)
    if earlier is None:
        plan = plan_of_shards(run, plan, lambda: _of_earlier_version(plan, config, gathered, cost))
        write(run.plan, plan)
    elif is_same_plan(earlier, plan):
        plan = earlier
    else:
        raise EmbedkitError(
            f"{run.plan}: not the plan that this request and data give. If it was edited, remove it: a resume makes it "
            "again, and shards that fit it are kept. If another version of embedkit made it, continue with that version"
        )
    return plan


def _gather(run: RunFolder, config: RunConfig, dataset: Dataset, workers: int) -> GatheredRows:
    """Choose the rows, cut them into parts, and make those that are missing. Returns what the plan needs of them."""
    rows = choose_rows(dataset, config)
    index = _write_index(run, config, dataset, rows)
    log.info("%d of %d rows chosen, in %d parts", len(rows), dataset.rows, len(index.part_borders) - 1)
    return _make_parts(run, config, dataset, rows, index, workers)


def _make_parts(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    index: DataIndex,
    workers: int,
) -> GatheredRows:
    """Gather all parts, with the missing ones made. The tables of the reused runs are made only if any is."""
    remove_lookups(run.lookups)
    if not all(run.part_manifest(part).exists() for part in range(len(index.part_borders) - 1)):
        _make_lookups(run, config)
    try:
        gathered = _ensure_parts(run, config, dataset, rows, index, workers)
    except LookupsMissing:  # no manifest is missing, but a part is damaged
        _make_lookups(run, config)
        gathered = _ensure_parts(run, config, dataset, rows, index, workers)
    remove_lookups(run.lookups)
    return gathered


def _make_lookups(run: RunFolder, config: RunConfig) -> None:
    if config.request.reuse:
        log.info("reading the vectors and keys of %s", ", ".join(config.locations.reused_names))
        make_lookups(run, config)


def _ensure_parts(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    index: DataIndex,
    workers: int,
) -> GatheredRows:
    """Gather all parts, with the missing ones made. Raises LookupsMissing if that takes tables of reused runs."""
    borders = np.array(index.part_borders)
    work = np.add.reduceat(_bytes_of(dataset, rows), borders[:-1], dtype=np.float64) + ROW_WORK * np.diff(borders)
    progress = LogProgress(log, "prepare", len(rows), "rows", work=float(work.sum()))
    gathered = GatheredRows(len(rows), len(config.request.views))
    for part in make_parts(run, config, dataset, rows, index, workers):
        gathered.add(part)
        progress.add(part.manifest.stop - part.manifest.start, float(work[part.manifest.part]))
    return gathered


def plan_of_shards(run: RunFolder, plan: Plan, of_earlier_version: Callable[[], Plan]) -> Plan:
    """The plan to write: with stored costs, or as earlier versions wrote it if a shard was embedded for that one."""
    wanted, stored = _planned(run, plan), with_stored_costs(plan)
    if wanted in (None, digest(stored)):
        return stored
    earlier = of_earlier_version()
    others = (plan, with_stored_costs(earlier), earlier)
    return next((other for other in others if digest(other) == wanted), stored)


def _planned(run: RunFolder, plan: Plan) -> str | None:
    """The digest of the plan that the first embedded shard was embedded for; None if there is none."""
    manifests = (_readable(run.shard_manifest(shard), ShardManifest) for shard in range(len(plan.shards)))
    return next((manifest.plan_sha256 for manifest in manifests if manifest is not None), None)


def _of_earlier_version(plan: Plan, config: RunConfig, gathered: GatheredRows, cost: CostModel) -> Plan:
    """The plan as versions cut it that knew no curve of an eager engine."""
    if config.curve is not None or plan.curve is None:
        return plan
    shards, _ = _equal_shards(config, gathered, cost, ())
    return structs.replace(plan, shards=shards, curve=None)


def _readable(path: Path, kind: type[D]) -> D | None:
    """Read a document that can be made again; None if it is missing or damaged."""
    try:
        return read(path, kind)
    except NewerFormat:
        raise
    except EmbedkitError as error:
        if path.exists():
            log.warning("made again: %s", error)
        return None


def open_checked(run: RunFolder, config: RunConfig) -> Dataset:
    """Open the run's data files. Raises EmbedkitError naming those that are missing or have changed."""
    require_same_data(run, config)
    paths = [Path(path) for path in config.locations.data]
    return open_dataset(paths, columns_of(config.request), config.request.path_columns)


def choose_rows(dataset: Dataset, config: RunConfig) -> npt.NDArray[np.int64]:
    """The requested rows, ascending, int64 (n,)."""
    if config.request.sample_size is None:
        return np.arange(dataset.rows)
    return sample_rows(read_sources(dataset), config.request.sample_size, config.request.random_seed)


def _bytes_of(dataset: Dataset, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Uncompressed bytes of each of these rows, float32 (n,)."""
    sizes = row_bytes(dataset)
    return sizes if len(rows) == dataset.rows else sizes[rows]


def _write_index(run: RunFolder, config: RunConfig, dataset: Dataset, rows: npt.NDArray[np.int64]) -> DataIndex:
    """Write `parts/index.json`, or check that the data still give the same one."""
    sizes = _bytes_of(dataset, rows)
    index = DataIndex(
        format=FORMAT,
        request_sha256=digest(config.request),
        jsonl_sha256=tuple(file.sha256 for file in dataset.files),
        rows=dataset.rows,
        rows_chosen=len(rows),
        part_borders=part_borders(sizes),
        row_keys=True,
    )
    if not len(rows):
        raise EmbedkitError("the data set is empty: " + ", ".join(str(file.path) for file in dataset.files))
    there = _readable(run.data_index, DataIndex)
    if there is None:
        index = _as_begun(run, index, part_borders(sizes, even=True))
        write(run.data_index, index)
        return index
    if there.request_sha256 != index.request_sha256:
        raise EmbedkitError(
            f"{run.config}: not the request that this run was prepared for; was it edited, or copied here? Put it "
            "back, or start a new run"
        )
    index = structs.replace(index, row_keys=there.row_keys)
    if there.part_borders != index.part_borders:  # earlier versions cut parts in another way
        index = structs.replace(index, part_borders=part_borders(sizes, even=True))
    require_same_index(run, config, dataset, there, index)
    return index


def _as_begun(run: RunFolder, index: DataIndex, even: tuple[int, ...]) -> DataIndex:
    """The index for which the parts of a run without a readable index were made, perhaps by an earlier version.

    Earlier versions cut parts at the borders `even`, and parts of the first ones have no keys.
    """
    versions = [
        structs.replace(index, part_borders=borders, row_keys=has_keys)
        for borders in (index.part_borders, even)
        for has_keys in (True, False)
    ]
    parts = (_readable(path, PartManifest) for path in sorted(run.parts.glob("part-*.json")))
    made_for = {part.index_sha256 for part in parts if part is not None}
    plan = _readable(run.plan, Plan)
    if plan is not None and not made_for:
        has_keys = any(part.row_keys is not None for part in plan.parts)
        borders = even if len(plan.parts) == len(even) - 1 else index.part_borders
        return structs.replace(index, part_borders=borders, row_keys=has_keys)
    return next((version for version in versions if digest(version) in made_for), index)


def make_plan(
    run: RunFolder,
    config: RunConfig,
    rows: int,
    gathered: GatheredRows,
    cost: CostModel,
    earlier: Plan | None = None,
) -> Plan:
    """Number the kept rows and cut them into shards. Also writes `dropped_rows.parquet`.

    Args:
        run: the run, with all its parts.
        config: the run's configuration.
        rows: number of rows of the data set.
        gathered: all parts.
        cost: predicts the cost of a row.
        earlier: the run's plan if there is one. It decides where costs that are rounded otherwise would cut otherwise.

    Raises EmbedkitError if no row was kept.
    """
    manifests = gathered.manifests
    rows_chosen = sum(manifest.stop - manifest.start for manifest in manifests)
    rows_kept = sum(manifest.kept for manifest in manifests)
    dropped_rows = write_dropped(run.dropped, gathered.dropped)
    reasons = sorted({reason for manifest in manifests for reason in manifest.dropped}, key=get_args(Reason).index)
    dropped: dict[Reason, int] = {reason: sum(m.dropped.get(reason, 0) for m in manifests) for reason in reasons}
    warnings = _warnings(config, manifests, dropped, gathered.texts)
    if not rows_kept:
        raise EmbedkitError("\n".join((f"all {rows_chosen} rows were dropped; see {run.dropped}", *warnings)))
    shards, settings, curve = _cut(config, gathered, cost, earlier)
    return Plan(
        format=FORMAT,
        request_sha256=digest(config.request),
        rows=rows,
        rows_chosen=rows_chosen,
        rows_kept=rows_kept,
        dropped=dropped,
        dropped_rows=dropped_rows,
        tokens=gathered.tokens,
        parts=_plan_parts(manifests),
        shards=shards,
        order="longest_first",
        settings=settings,
        warnings=warnings,
        tokens_copied=gathered.tokens_copied,
        curve=curve,
    )


def _cut(
    config: RunConfig, gathered: GatheredRows, cost: CostModel, earlier: Plan | None
) -> tuple[tuple[PlanShard, ...], EngineSettings, PlanCurve | None]:
    """Cut the kept rows into shards of equal cost, and decide how their tasks set up the engine. As for make_plan.

    An engine that is not compiled has a curve of its own: then the rows are cut again, into as many shards.
    """
    request = config.request
    before = earlier.shards if earlier else ()
    shards, copies = _equal_shards(config, gathered, cost, before)
    seconds = sum(shard.cost_seconds for shard in shards) / len(shards)
    settings = engine_settings(request, seconds, earlier.settings if earlier else None, copies)
    of_earlier_version = earlier is not None and earlier.curve is None and earlier.settings.eager
    compile_ = compile_of(settings, config.curve)
    if request.device == "cuda" and compile_ != cost.compile and not of_earlier_version:
        cost = replace(cost, compile=compile_)
        shards, _ = _equal_shards(config, gathered, cost, before, len(shards))
    return shards, settings, plan_curve(cost)


def _equal_shards(
    config: RunConfig,
    gathered: GatheredRows,
    cost: CostModel,
    before: tuple[PlanShard, ...],
    count: int | None = None,
) -> tuple[tuple[PlanShard, ...], bool]:
    """Cut the kept rows into shards of equal cost, and say whether any text is copied.

    before: the shards of an earlier plan. count: number of shards; None for what the request says.
    """
    tokens, copied = gathered.kept_rows
    shards = count or config.request.shards
    chunk_tokens = CHUNK_TOKENS[config.request.device]
    return cut_shards(tokens, cost, shards, config.num_gpus, chunk_tokens, before, copied), bool(copied.any())


def _plan_parts(manifests: list[PartManifest]) -> tuple[PlanPart, ...]:
    """What the plan says of each part. The ids of kept rows count through all parts."""
    first_ids = np.cumsum([0, *(manifest.kept for manifest in manifests)]).tolist()
    return tuple(
        PlanPart(
            file=manifest.extracted,
            first_id=first_id,
            rows=manifest.kept,
            row_keys=manifest.row_keys,
            copies=manifest.copies,
        )
        for manifest, first_id in zip(manifests, first_ids[:-1], strict=True)
    )


def _warnings(
    config: RunConfig, manifests: list[PartManifest], dropped: dict[Reason, int], texts: npt.NDArray[np.int64]
) -> tuple[str, ...]:
    """Warnings about the rows; none for a run of an earlier version, whose plan had none."""
    request = config.request
    if request.chat_format == "plain":
        return ()
    found = plan_warnings(manifests, dropped, request.views, texts, lambda: look_at_first_rows(config))
    for warning in found:
        log.warning("%s", warning)
    return found
