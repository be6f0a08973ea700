"""The search for pairs: exact where that is fast enough, else approximate with its recall measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.cells import compare_in_cells, nearest_cells
from embedkit.analysis.similarity.duplicates.collector import Collector
from embedkit.analysis.similarity.duplicates.exact import compare_all, compare_sample
from embedkit.analysis.similarity.duplicates.recall import SampleCounter, WithSample
from embedkit.analysis.similarity.duplicates.thresholds import Thresholds
from embedkit.analysis.similarity.duplicates.tile_product import TorchTileProduct, choose_tile_product
from embedkit.data import row_hash

Method = Literal["exact", "approximate"]
EXACT_ROWS = 200_000
"""Most rows for which a CPU compares all pairs. Time grows with the square of the rows."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How pairs are searched for.

    exact_rows: up to so many rows a CPU compares all pairs; a GPU always does. cells: number of cells of the
    approximate search; None for twice the square root of the rows. probes: cells in which each row is compared. sample:
    rows on which the recall of the approximate search is measured. seed: of k-means and of that sample; the same seed
    gives the same result on the same machine with the same number of threads. tile_rows: rows of one side of a tile,
    None for what suits the machine; it sets the memory, and never changes the result of the exact search.
    """

    exact_rows: int = EXACT_ROWS
    cells: int | None = None
    probes: int = 8
    sample: int = 1000
    seed: int = 0
    tile_rows: int | None = None


@dataclass(frozen=True)
class Search:
    """How pairs were searched for.

    rows: number of rows compared. sampled_rows: those on which the recall was measured. sampled_pairs: by threshold,
    pairs of these rows that an exact search finds, and those of them that this search found; empty if it was exact.
    """

    rows: int
    method: Method
    sampled_rows: int
    sampled_pairs: dict[float, tuple[int, int]]

    def pairs_at(self, threshold: float) -> int:
        """Pairs of the sampled rows at a threshold."""
        return self.sampled_pairs.get(threshold, (0, 0))[0]

    def recall_at(self, threshold: float) -> float | None:
        """Share of the sampled rows' pairs at a threshold that was found; None if the search was exact, or of none."""
        exact, found = self.sampled_pairs.get(threshold, (0, 0))
        return found / exact if exact else None

    def with_recall(self, levels: pl.DataFrame) -> pl.DataFrame:
        """Add the columns recall and sampled_pairs to a table with a threshold per line."""
        thresholds = levels["threshold"].to_list()
        return levels.with_columns(
            pl.Series("recall", [self.recall_at(one) for one in thresholds], pl.Float64),
            pl.Series("sampled_pairs", [self.pairs_at(one) for one in thresholds], pl.Int64),
        )


def search_pairs(
    merged: Merged,
    options: SearchOptions,
    thresholds: Thresholds,
    found: Collector,
    progress: Callable[[int], None] = lambda rows: None,
) -> Search:
    """Give all near pairs of the chosen rows with a text to a collector.

    Args:
        merged: the rows.
        options: settings of the search.
        thresholds: cosines at which its recall is measured.
        found: takes the pairs.
        progress: called with the number of further rows whose comparisons are done.
    """
    ids = merged.ids[merged.has_text]
    product = choose_tile_product()
    tile_rows = options.tile_rows or product.tile_rows
    if len(ids) <= options.exact_rows or isinstance(product, TorchTileProduct):
        compare_all(merged, ids, product, found, tile_rows, progress)
        return Search(len(ids), "exact", 0, {})
    sampled = np.sort(ids[np.argsort(row_hash(options.seed + 1, ids), kind="stable")[: options.sample]])
    of_cells, exact = (SampleCounter(merged, thresholds, sampled) for _ in range(2))
    cells = options.cells or int(np.ceil(2 * np.sqrt(len(ids))))
    near = nearest_cells(merged, ids, cells, options.probes, options.seed)
    compare_in_cells(merged, ids, near, product, WithSample(found, of_cells), tile_rows, progress)
    # The exact pairs of the sampled rows show how many pairs the cells miss.
    compare_sample(merged, sampled, product, exact, tile_rows)
    counts = zip(exact.counts.tolist(), of_cells.counts.tolist(), strict=True)
    return Search(len(ids), "approximate", len(sampled), dict(zip(thresholds.values.tolist(), counts, strict=True)))
