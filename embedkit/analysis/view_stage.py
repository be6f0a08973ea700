"""Everything that is computed for one view, and its files."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.by_source import pca_by_source
from embedkit.analysis.components.extremes import as_text, extremes
from embedkit.analysis.components.health import HealthCheck
from embedkit.analysis.components.pca import PCA, Block, project
from embedkit.analysis.groups import GroupOptions, NamedGroups, find_groups, groups_frame, name_groups
from embedkit.analysis.merged import Merged
from embedkit.analysis.options import Options
from embedkit.analysis.page.view_results import ViewResults
from embedkit.analysis.similarity.all_neighbors import (
    AllNeighborsOptions,
    RowNeighbors,
    neighbors_of_all,
    neighbors_table,
)
from embedkit.analysis.similarity.neighborhood import Neighborhood, find_neighborhood, rows_on_map, summary
from embedkit.analysis.space import PASSES, Space, SpaceOptions, describe_space
from embedkit.analysis.space import summary as space_summary
from embedkit.analysis.write_files import write_json, write_npz, write_parquet, write_text
from embedkit.log_progress import LogProgress
from embedkit.prepare import TEXT_COLUMNS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewAnalysis:
    """What was computed for one view: what the page shows, and what findings are made of.

    neighbors: the nearest rows of every row; groups: of similar rows; both None if they were not requested.
    """

    results: ViewResults
    neighbors: RowNeighbors | None
    space: Space
    groups: NamedGroups | None


def suffix_of(merged: Merged) -> str:
    """What the names of a view's files end in, before the dot: nothing for `combined`."""
    return "" if merged.view == "combined" else f"_{merged.view}"


def analyze_view(merged: Merged, folder: Path, options: Options) -> ViewAnalysis:
    """Compute everything for one view that needs no texts and write its files, except its health."""
    rows = int(merged.has_text.sum())
    progress = LogProgress(log, f"analyze moments ({merged.view})", rows, "rows")
    found, by_source = pca_by_source(merged, options.components, progress.add)
    progress = LogProgress(log, f"analyze scores ({merged.view})", rows, "rows")
    check = HealthCheck(merged)

    def visit(at: npt.NDArray[np.int64], block: Block) -> None:
        check.add(at, block)
        progress.add(len(block))

    scores = project(merged, found, visit)
    health = check.result(found, scores)
    log.info("analyze extremes (%s)", merged.view)
    ends = extremes(merged, scores, options.extremes)
    suffix = suffix_of(merged)
    write_npz(folder / f"pca{suffix}.npz", {name: np.asarray(value) for name, value in vars(found).items()})
    write_npz(folder / f"by_source{suffix}.npz", by_source.arrays())
    write_parquet(folder / f"by_source{suffix}.parquet", by_source.table)
    write_parquet(folder / f"pca{suffix}.parquet", _scores_frame(merged, scores))
    write_parquet(folder / f"pc_extremes{suffix}.parquet", ends)
    write_text(folder / f"pc_extremes{suffix}.txt", as_text(ends, merged.text_names))
    neighbors = _find_neighbors(merged, folder, options)
    neighborhood = _analyze_neighborhood(merged, neighbors, folder, options)
    space = _describe_space(merged, found, neighbors, folder, options)
    groups = _group(merged, folder, options) if options.groups else None
    without_nulls = ends.with_columns([pl.col(name).fill_null("") for name in {*TEXT_COLUMNS, *merged.text_names}])
    results = ViewResults(merged, found, scores, by_source, health, without_nulls, neighborhood)
    return ViewAnalysis(results, neighbors, space, groups)


def _analyze_neighborhood(
    merged: Merged, neighbors: RowNeighbors | None, folder: Path, options: Options
) -> Neighborhood:
    """Compute agreement of neighbours, map and near-duplicates, and write their files."""
    found = find_neighborhood(merged, options.map_rows, options.duplicates, options.seed, neighbors)
    suffix = suffix_of(merged)
    if found.umap_layout is not None:
        write_parquet(folder / f"map{suffix}.parquet", rows_on_map(merged, found.umap_layout))
    if found.duplicates is not None:
        write_parquet(folder / f"near_duplicates{suffix}.parquet", found.duplicates.pairs)
        write_parquet(folder / f"near_duplicates_by_source{suffix}.parquet", found.duplicates.by_source)
        write_parquet(folder / f"near_duplicate_levels{suffix}.parquet", found.duplicates.levels)
    write_parquet(folder / f"neighbors_by_source{suffix}.parquet", found.agreement.by_source)
    write_json(folder / f"near{suffix}.json", summary(found) | {"nearest_rows": _how_found(neighbors)})
    return found


def _how_found(neighbors: RowNeighbors | None) -> dict[str, Any] | None:
    """How the rows of neighbors.parquet were found, and the share of the nearest ones that were."""
    if neighbors is None:
        return None
    recall = {"recall": neighbors.recall, "sampled_rows": neighbors.sampled_rows}
    return {"k": neighbors.k, "method": neighbors.method} | recall


def _find_neighbors(merged: Merged, folder: Path, options: Options) -> RowNeighbors | None:
    """Find the nearest rows of every row if they are requested, and write their file."""
    if not options.neighbors:
        return None
    progress = LogProgress(log, f"analyze nearest rows ({merged.view})", int(merged.has_text.sum()), "rows")
    found = neighbors_of_all(merged, AllNeighborsOptions(k=options.neighbors, seed=options.seed), progress.add)
    write_parquet(folder / f"neighbors{suffix_of(merged)}.parquet", neighbors_table(merged, found))
    return found


def _describe_space(
    merged: Merged, found: PCA, neighbors: RowNeighbors | None, folder: Path, options: Options
) -> Space:
    """Compute the shape of the space, and write its files."""
    progress = LogProgress(
        log, f"analyze space ({merged.view})", PASSES * int(merged.has_text.sum()), "rows", is_even=False
    )
    space = describe_space(merged, found, neighbors, SpaceOptions(seed=options.seed), progress.add)
    suffix = suffix_of(merged)
    write_json(folder / f"space{suffix}.json", space_summary(space))
    write_parquet(folder / f"space_by_source{suffix}.parquet", space.by_source)
    write_parquet(folder / f"doubted{suffix}.parquet", space.doubted)
    return space


def _group(merged: Merged, folder: Path, options: Options) -> NamedGroups:
    """Find groups and their names, and write their files."""
    log.info("analyze groups (%s)", merged.view)
    progress = LogProgress(log, f"analyze groups ({merged.view})", int(merged.has_text.sum()), "rows")
    groups = find_groups(merged, GroupOptions(sample_rows=options.groups, seed=options.seed), progress.add)
    names = name_groups(merged, groups)
    suffix = suffix_of(merged)
    write_parquet(folder / f"groups{suffix}.parquet", groups_frame(merged, groups))
    write_json(folder / f"group_names{suffix}.json", names.as_dict())
    return names


def _scores_frame(merged: Merged, scores: npt.NDArray[np.float32]) -> pl.DataFrame:
    columns = [pl.Series(f"pc{pc + 1}", np.ascontiguousarray(scores[:, pc])) for pc in range(scores.shape[1])]
    frame = merged.rows.select("id", "row", "dataset_source", "num_tokens", "num_turns").with_columns(columns)
    return frame.filter(pl.Series(merged.has_text))
