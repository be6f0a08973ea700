"""The tables of a decision: rows that stay, removed rows with their pairs, groups, and counts by pair of sources."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.dedup.independent_set import Doubles, Ids, Labels, Mask
from embedkit.errors import EmbedkitError

ROW = ("id", "row", "dataset_source", "num_tokens", "num_turns")
"""Columns that say which row it is."""


@dataclass(frozen=True)
class Removals:
    """The removed rows, as positions in `merged.rows`, by row: int64 (removed,), and cosines in float64.

    pair: a row near the removed one. kept: the row that stays instead; the pair itself unless one row per group stays.
    """

    removed: Ids
    pair: Ids
    cosine: Doubles
    kept: Ids


def kept_frame(merged: Merged, stays: Mask) -> pl.DataFrame:
    """The rows that stay, by id: ROW."""
    return merged.rows.select(ROW).filter(pl.Series(stays))


def removed_frame(merged: Merged, labels: Labels, found: Removals) -> pl.DataFrame:
    """The removed rows: ROW, group, pair_id, pair_row, pair_source, cosine, across_sources, kept_id.

    group: the lowest id of the group. cosine: of the row and its pair, float64. across_sources: whether they are of
    different sources. First come those across sources, then by falling cosine, then by id.
    """
    rows, ids = merged.rows, merged.ids
    pairs = rows[found.pair]
    frame = (
        rows[found.removed]
        .select(ROW)
        .with_columns(
            pl.Series("group", ids[labels[found.removed]]),
            pairs["id"].alias("pair_id"),
            pairs["row"].alias("pair_row"),
            pairs["dataset_source"].alias("pair_source"),
            pl.Series("cosine", found.cosine),
            (pl.col("dataset_source") != pairs["dataset_source"]).alias("across_sources"),
            pl.Series("kept_id", ids[found.kept]),
        )
    )
    return frame.sort("across_sources", "cosine", "id", descending=[True, True, False])


def groups_frame(merged: Merged, labels: Mapping[float, Labels]) -> pl.DataFrame:
    """Rows that are in a group at the lowest threshold, by id: id, row, dataset_source, and a column per threshold.

    The column has the lowest id of the row's group at the threshold, null if it is near no other row.
    """
    columns = {}
    for threshold, of in labels.items():
        is_grouped = np.bincount(of, minlength=1)[of] > 1
        columns[str(threshold)] = pl.select(
            pl.when(pl.Series(is_grouped)).then(pl.Series(merged.ids[of])).alias(str(threshold))
        ).to_series()
    frame = merged.rows.select("id", "row", "dataset_source").with_columns(**columns)
    return frame.filter(pl.col(str(min(labels))).is_not_null())


def by_source_frame(removed: pl.DataFrame) -> pl.DataFrame:
    """How many rows of each source are removed for a row of each source, most first: dataset_source, pair_source, rows.

    Only pairs of sources with a removed row are listed.
    """
    counted = removed.group_by("dataset_source", "pair_source").agg(pl.len().cast(pl.Int64).alias("rows"))
    return counted.sort("rows", "dataset_source", "pair_source", descending=[True, False, False])


def require_each_row_once(merged: Merged, kept: pl.DataFrame, removed: pl.DataFrame) -> None:
    """Raise EmbedkitError unless each chosen row is kept or removed, and the pair of each removed row is chosen, too.

    It would be an error of this program.
    """
    together = np.sort(np.concatenate([kept["id"].to_numpy(), removed["id"].to_numpy()]))
    if not np.array_equal(together, merged.ids):
        raise EmbedkitError("kept and removed rows are not all rows, each once; please report this, nothing is written")
    if not np.isin(removed["kept_id"].to_numpy(), kept["id"].to_numpy()).all():
        raise EmbedkitError("a row that stays instead of another is removed; please report this, nothing is written")
