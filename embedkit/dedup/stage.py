"""The dedup stage: search near pairs, make groups at several thresholds, decide which rows stay, and write it all.

In order: all near pairs are searched once, and only groups are made of them; the groups at the threshold are decided
one by one; each removed row gets its pair. `dedup.json` is written last, so that a folder with it is whole.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import embedkit
from embedkit.analysis.merged import Merged, open_merged, require_merged
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.duplicates import (
    GroupCollector,
    Search,
    Thresholds,
    choose_tile_product,
    require_cosine,
    search_pairs,
    thresholds_from,
)
from embedkit.analysis.similarity.duplicates.search import needs_cells
from embedkit.analysis.similarity.duplicates.thresholds import THRESHOLDS
from embedkit.analysis.write_files import write_parquet, write_text
from embedkit.dedup.independent_set import Groups, Labels, Mask
from embedkit.dedup.one_per_group import paths_to, removed_pairs
from embedkit.dedup.options import DedupOptions, folder_name
from embedkit.dedup.preference import ranks
from embedkit.dedup.reading import as_text, chosen_to_read, with_differences
from embedkit.dedup.record import Dedup, DedupRequest, Level
from embedkit.dedup.tables import (
    Removals,
    by_source_frame,
    groups_frame,
    kept_frame,
    removed_frame,
    require_each_row_once,
)
from embedkit.documents import FORMAT, RunConfig, digest, read, write
from embedkit.documents.codec import file_record
from embedkit.log_progress import Steps, logged_step, no_progress
from embedkit.merged_run import default_view
from embedkit.out_folder import OutFiles, Request, place_of
from embedkit.run import DEDUPLICATING, RunFolder, folder_lock
from embedkit.storage import durable_mkdir, match_umask, run_lock

log = logging.getLogger(__name__)

READING = "removed.txt"
TABLES = tuple(f"{name}.parquet" for name in ("kept", "removed", "levels", "groups", "removed_by_source"))


@dataclass(frozen=True)
class Deduped:
    """A complete decision: its folder, its record, and the removed rows to read, with the words that differ."""

    folder: Path
    record: Dedup
    to_read: list[dict[str, object]]


@dataclass(frozen=True)
class _Decision:
    """stays: bool (n,). left_by_near, left_by_group: rows that stay by either rule."""

    stays: Mask
    removals: Removals
    left_by_near: int
    left_by_group: int


def dedup(run: RunFolder, options: DedupOptions, steps: Steps = no_progress) -> Deduped:
    """Decide which rows of a merged run stay, and write kept.parquet, removed.parquet and the files beside them.

    Raises:
        EmbedkitError: the run is not merged or damaged, or another process writes the same folder.
        UsageError: the options do not fit the run, the folder has other files, or a library of `embedkit[analysis]` is
            not installed.
    """
    require_cosine(options.threshold)
    optional_import("scipy.sparse.csgraph")  # before the work, not after it
    require_merged(run)
    usual = default_view(read(run.config, RunConfig).request.views)
    merged = open_merged(run, options.view or usual, options.sources)
    if needs_cells(int(merged.has_text.sum()), options.search, choose_tile_product()):
        optional_import("faiss")
    request = _request(merged, options)
    preferred = ranks(merged, options.keep)
    folder = place_of(options.out or run.dedups / folder_name(request, usual), run, run.dedups)
    match_umask(run.path)
    durable_mkdir(folder.parent)
    with run_lock(folder_lock(folder), DEDUPLICATING, run.path if folder.is_relative_to(run.path) else folder.parent):
        FILES.require_free(folder, _deciding(request))
        found, search = _search(merged, options, steps)
        labels = found.labels(options.threshold)
        groups = Groups(merged, labels, preferred, options.threshold, options.across_sources, options.block_rows)
        decision = _decide(merged, groups, found, options, steps)
        levels = search.with_recall(found.levels())
        return _write(folder, merged, request, decision, found, levels, search)


def _request(merged: Merged, options: DedupOptions) -> DedupRequest:
    return DedupRequest(
        success_sha256=digest(merged.success),
        view=merged.view,
        sources=tuple(sorted({part.lower() for part in options.sources})),
        threshold=options.threshold,
        keep=options.keep,
        across_sources=options.across_sources,
        one_per_group=options.one_per_group,
        differences=options.differences,
        version=embedkit.__version__,
    )


def _deciding(request: DedupRequest) -> Request:
    names = ("view", "sources", "threshold", "keep", "across_sources", "one_per_group")
    return {name: getattr(request, name) for name in names}


FILES = OutFiles("dedup.json", (*TABLES, READING), lambda path: _deciding(read(path, Dedup).request))


def _search(merged: Merged, options: DedupOptions, steps: Steps) -> tuple[GroupCollector, Search]:
    """Make groups at several thresholds of all near pairs."""
    values = thresholds_from(min(THRESHOLDS[0], options.threshold), (options.threshold,))
    thresholds = Thresholds(merged, values, options.across_sources)
    found = GroupCollector(merged, thresholds, options.threshold if options.one_per_group else None)
    with logged_step(log, steps, "compare rows", int(merged.has_text.sum())) as advance:
        search = search_pairs(merged, options.search, thresholds, found, found, advance)
    return found, search


def _decide(merged: Merged, groups: Groups, found: GroupCollector, options: DedupOptions, steps: Steps) -> _Decision:
    """Choose the rows that stay, and the pair of each other one."""
    with logged_step(log, steps, "decide groups", groups.rows) as advance:
        stays = groups.independent_set(advance)
    near = int(stays.sum())
    by_group = len(stays) - groups.rows + len(groups.best)
    if not options.one_per_group:
        with logged_step(log, steps, "find pairs", len(stays) - near) as advance:
            removed, pair, cosine = groups.nearest_kept(stays, advance)
        return _Decision(stays, Removals(removed, pair, cosine, pair), near, by_group)
    stays = np.ones(len(stays), bool)
    labels = found.labels(options.threshold)
    stays[np.flatnonzero(np.bincount(labels, minlength=1)[labels] > 1)] = False
    stays[groups.best] = True
    towards = paths_to(groups.best, found.forest(options.threshold), len(stays))
    removed, pair, cosine = removed_pairs(merged, stays, towards)
    best = np.empty(len(stays), np.int64)
    best[labels[groups.best]] = groups.best
    return _Decision(stays, Removals(removed, pair, cosine, best[labels[removed]]), near, by_group)


def _write(
    folder: Path,
    merged: Merged,
    request: DedupRequest,
    decision: _Decision,
    found: GroupCollector,
    levels: pl.DataFrame,
    search: Search,
) -> Deduped:
    """Write the files, the record last."""
    FILES.begin(folder)
    labels: dict[float, Labels] = {value: found.labels(value) for value in levels["threshold"].to_list()}
    kept = kept_frame(merged, decision.stays)
    removed = removed_frame(merged, labels[request.threshold], decision.removals)
    require_each_row_once(merged, kept, removed)
    to_read = with_differences(merged, chosen_to_read(removed, request.differences))
    frames = (kept, removed, levels, groups_frame(merged, labels), by_source_frame(removed))
    for name, frame in zip(TABLES, frames, strict=True):
        write_parquet(folder / name, frame)
    write_text(folder / READING, as_text(to_read, _head(merged, request, removed.height, len(to_read))))
    record = Dedup(
        format=FORMAT,
        run=merged.run.name,
        request=request,
        rows=merged.rows.height,
        empty=int((~merged.has_text).sum()),
        method=search.method,
        sampled_rows=search.sampled_rows,
        levels=tuple(Level(**line) for line in levels.iter_rows(named=True)),
        kept=kept.height,
        removed=removed.height,
        across_sources=int(removed["across_sources"].sum()),
        left_by_near=decision.left_by_near,
        left_by_group=decision.left_by_group,
        files=tuple(file_record(folder / name) for name in FILES.others),
    )
    write(folder / FILES.record, record)
    return Deduped(folder, record, to_read)


def _head(merged: Merged, request: DedupRequest, removed: int, shown: int) -> str:
    return (
        f"{shown:,} of the {removed:,} rows of {merged.run.name} (view {request.view}) that are removed at threshold "
        f"{request.threshold}, keep {request.keep}"
    )
