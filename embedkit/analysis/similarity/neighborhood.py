"""The neighbourhood of the rows in one view: agreement of neighbours with sources, UMAP layout, near-duplicates."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.agreement import Agreement, source_agreement
from embedkit.analysis.similarity.all_neighbors import RowNeighbors
from embedkit.analysis.similarity.duplicates import DuplicateOptions, Duplicates, find_duplicates
from embedkit.analysis.similarity.map_quality import MapQuality, map_quality
from embedkit.analysis.similarity.umap import UmapLayout, UmapOptions, expected_seconds, make_umap_layout
from embedkit.log_progress import LogProgress

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Neighborhood:
    """Everything about near rows in one view.

    umap_layout, quality (of the layout) and duplicates are None if they were not requested.
    """

    agreement: Agreement
    umap_layout: UmapLayout | None
    quality: MapQuality | None
    duplicates: Duplicates | None


def find_neighborhood(
    merged: Merged, map_rows: int, threshold: float, seed: int = 0, neighbors: RowNeighbors | None = None
) -> Neighborhood:
    """Compute the neighbourhood of one view.

    map_rows: rows on which UMAP is fitted, 0 for no layout. threshold: smallest cosine of near-duplicates, 0 for none.
    neighbors: the nearest rows of every row, if they are known; else the layout finds them.
    """
    rows = int(merged.has_text.sum())
    log.info("analyze neighbours (%s)", merged.view)
    agreement = source_agreement(merged, seed=seed)
    umap_layout = quality = duplicates = None
    if map_rows:
        umap_layout, quality = _make_map(merged, map_rows, seed, neighbors, agreement)
    if threshold:
        progress = LogProgress(log, f"analyze near-duplicates ({merged.view})", rows, "rows")
        duplicates = find_duplicates(merged, DuplicateOptions(threshold, seed=seed), progress.add)
    return Neighborhood(agreement, umap_layout, quality, duplicates)


def _make_map(
    merged: Merged, map_rows: int, seed: int, neighbors: RowNeighbors | None, agreement: Agreement
) -> tuple[UmapLayout, MapQuality]:
    """Lay out the rows, and measure how many of their nearest rows the layout keeps."""
    rows = int(merged.has_text.sum())
    log.info(
        "analyze map (%s): UMAP is fitted on %s of %s rows; the map takes about %s of one core",
        merged.view,
        f"{min(map_rows, rows):,}",
        f"{rows:,}",
        _in_minutes(expected_seconds(rows, map_rows)),
    )
    layout = make_umap_layout(merged, UmapOptions(map_rows, seed), neighbors)
    quality = map_quality(merged, layout, agreement)
    log.info(
        "analyze map (%s): of a row's %d nearest rows, %.0f %% are near it on the map",
        merged.view,
        quality.k,
        100 * quality.kept,
    )
    return layout, quality


def rows_on_map(merged: Merged, umap_layout: UmapLayout) -> pl.DataFrame:
    """The layout joined to its rows, by id: id, row, dataset_source, num_tokens, num_turns, x, y, placed."""
    rows = merged.rows.select("id", "row", "dataset_source", "num_tokens", "num_turns")[umap_layout.positions]
    x, y = (pl.Series(name, np.ascontiguousarray(umap_layout.xy[:, at])) for at, name in enumerate("xy"))
    return rows.with_columns(x, y, pl.Series("placed", umap_layout.placed))


def summary(found: Neighborhood) -> dict[str, Any]:
    """All settings and numbers for near.json, without arrays and frames."""
    parts: dict[str, Any] = {
        "neighbors": found.agreement,
        "map": found.umap_layout,
        "near_duplicates": found.duplicates,
    }
    plain: dict[str, Any] = {
        part: {name: value for name, value in asdict(one).items() if not isinstance(value, np.ndarray | pl.DataFrame)}
        for part, one in parts.items()
        if one is not None
    }
    if found.quality is not None:
        plain["map"]["quality"] = asdict(found.quality)
    plain["neighbors"]["sampled"] = len(found.agreement.positions)
    if found.duplicates is not None:
        plain["near_duplicate_levels"] = found.duplicates.levels.to_dicts()
    if found.umap_layout is not None:
        layout = found.umap_layout
        plain["map"] |= {"rows": len(layout.positions), "placed": int(layout.placed.sum())}
    return plain


def _in_minutes(seconds: float) -> str:
    minutes = max(round(seconds / 60), 1)
    return "a minute" if minutes == 1 else f"{minutes} minutes"
