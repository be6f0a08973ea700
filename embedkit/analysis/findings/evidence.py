"""What the kinds of findings are computed from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.components.views import Views
from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors import RowNeighbors
from embedkit.analysis.texts import TextFacts

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evidence:
    """The evidence about the rows of one view. A kind whose evidence is None is skipped.

    facts: of the texts. neighbors: the nearest rows of every row. response: the view response, opened with the same
    sources, for the cosine between answers. unknown: unknown tokens of each row's text in this view, int32 (n,), by
    position. dropped: row, dataset_source, reason, token_count, as dropped_rows.parquet has them. views: think beside
    response. doubted: id, p_own (a probe's probability of the row's own source) and predicted (the likeliest source).
    near_duplicates: id_a, id_b, cosine.
    """

    facts: TextFacts
    neighbors: RowNeighbors | None = None
    response: Merged | None = None
    unknown: npt.NDArray[np.int32] | None = None
    dropped: pl.DataFrame | None = None
    views: Views | None = None
    doubted: pl.DataFrame | None = None
    near_duplicates: pl.DataFrame | None = None
