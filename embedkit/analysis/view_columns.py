"""The columns of one view on the page, from what was computed for it and from what the user adds."""

from collections.abc import Sequence

import numpy as np

from embedkit.analysis.added_columns import AddedColumn
from embedkit.analysis.components.views import Views
from embedkit.analysis.groups import NamedGroups
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.columns import CategoryColumn, Column, NumberColumn
from embedkit.analysis.page.group_tree import COLUMN as GROUP_COLUMN
from embedkit.analysis.similarity.all_neighbors import RowNeighbors
from embedkit.analysis.view_stage import ViewAnalysis


def columns_of_view(analyzed: ViewAnalysis, views: Views | None, added: Sequence[AddedColumn]) -> list[Column]:
    """All columns besides tokens and turns, of all rows by position in `merged.rows`.

    views: think beside response, if both were analyzed.
    """
    merged = analyzed.results.merged
    found: list[Column] = []
    if analyzed.groups is not None:
        found.append(_group(merged, analyzed.groups))
    if analyzed.neighbors is not None and analyzed.neighbors.k:
        found.append(_distance(merged, analyzed.neighbors))
    if views is not None:
        found.append(_agreement(merged, views))
    return [*found, *(column.of_rows(merged.rows["row"].to_numpy()) for column in added)]


def _group(merged: Merged, found: NamedGroups) -> CategoryColumn:
    codes = np.full(merged.rows.height, -1, np.int32)
    codes[found.groups.positions] = found.groups.fine
    return CategoryColumn(GROUP_COLUMN, "group", codes, [summary.name for summary in found.summaries["fine"]])


def _distance(merged: Merged, neighbors: RowNeighbors) -> NumberColumn:
    numbers = np.full(merged.rows.height, np.nan)
    numbers[neighbors.positions] = np.maximum(1 - neighbors.cosines[:, 0].astype(np.float64), 0)
    return NumberColumn("distance", "distance to the nearest row (1 - cosine)", numbers)


def _agreement(merged: Merged, views: Views) -> NumberColumn:
    numbers = np.full(merged.rows.height, np.nan)
    ids = views.rows["id"].to_numpy()
    at = np.searchsorted(merged.ids, ids)
    is_here = merged.ids[np.minimum(at, max(len(merged.ids) - 1, 0))] == ids
    numbers[at[is_here]] = views.rows["cosine"].to_numpy()[is_here]
    return NumberColumn("agreement", "think beside response (cosine)", numbers)
