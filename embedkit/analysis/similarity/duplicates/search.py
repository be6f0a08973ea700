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
from embedkit.analysis.similarity.duplicates.groups import GroupCollector
from embedkit.analysis.similarity.duplicates.recall import GroupedCounter, SampleCounter, WithSample
from embedkit.analysis.similarity.duplicates.thresholds import Thresholds
from embedkit.analysis.similarity.duplicates.tile_product import TileProduct, TorchTileProduct, choose_tile_product
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
class SampledPairs:
    """Near pairs of the sampled rows at a threshold.

    exact: those that an exact search finds. found: those of them that the search found. grouped: those whose rows are
    in one group of the search, found or joined over other rows.
    """

    exact: int
    found: int
    grouped: int


@dataclass(frozen=True)
class Search:
    """How pairs were searched for.

    rows: number of rows compared. sampled_rows: those on which the recall was measured. sampled: their pairs by
    threshold; empty if the search was exact.
    """

    rows: int
    method: Method
    sampled_rows: int
    sampled: dict[float, SampledPairs]

    def pairs_at(self, threshold: float) -> int:
        """Pairs of the sampled rows at a threshold."""
        return self.sampled[threshold].exact if threshold in self.sampled else 0

    def recall_at(self, threshold: float) -> float | None:
        """Share of the sampled rows' pairs at a threshold that was found; None if the search was exact, or of none."""
        return self.sampled[threshold].found / self.pairs_at(threshold) if self.pairs_at(threshold) else None

    def grouped_at(self, threshold: float) -> float | None:
        """As `recall_at`, but the share of pairs whose rows are in one group.

        Cells miss most pairs of a template of many rows, and yet its rows are in one group.
        """
        return self.sampled[threshold].grouped / self.pairs_at(threshold) if self.pairs_at(threshold) else None

    def with_recall(self, levels: pl.DataFrame) -> pl.DataFrame:
        """Add the columns recall, as `grouped_at`, and sampled_pairs to a table of groups with a threshold per line."""
        thresholds = levels["threshold"].to_list()
        return levels.with_columns(
            pl.Series("recall", [self.grouped_at(one) for one in thresholds], pl.Float64),
            pl.Series("sampled_pairs", [self.pairs_at(one) for one in thresholds], pl.Int64),
        )


def needs_cells(rows: int, options: SearchOptions, product: TileProduct) -> bool:
    """Whether so many rows are searched by cells, which takes faiss, and not by comparing all pairs."""
    return rows > options.exact_rows and not isinstance(product, TorchTileProduct)


def search_pairs(
    merged: Merged,
    options: SearchOptions,
    thresholds: Thresholds,
    found: Collector,
    groups: GroupCollector,
    progress: Callable[[int], None] = lambda rows: None,
) -> Search:
    """Give all near pairs of the chosen rows with a text to a collector.

    Args:
        merged: the rows.
        options: settings of the search.
        thresholds: cosines at which its recall is measured.
        found: takes the pairs.
        groups: gets them, too: it is `found`, or is given them by it. The recall of its groups is measured.
        progress: called with the number of further rows whose comparisons are done.
    """
    ids = merged.ids[merged.has_text]
    product = choose_tile_product()
    tile_rows = options.tile_rows or product.tile_rows
    if not needs_cells(len(ids), options, product):
        compare_all(merged, ids, product, found, tile_rows, progress)
        return Search(len(ids), "exact", 0, {})
    sampled = np.sort(ids[np.argsort(row_hash(options.seed + 1, ids), kind="stable")[: options.sample]])
    of_cells = SampleCounter(merged, thresholds, sampled)
    cells = options.cells or int(np.ceil(2 * np.sqrt(len(ids))))
    near = nearest_cells(merged, ids, cells, options.probes, options.seed)
    compare_in_cells(merged, ids, near, product, WithSample(found, of_cells), tile_rows, progress)
    # The exact pairs of the sampled rows show how many pairs the cells miss.
    exact = GroupedCounter(merged, thresholds, sampled, groups)
    compare_sample(merged, sampled, product, exact, tile_rows)
    counts = zip(exact.counts.tolist(), of_cells.counts.tolist(), exact.grouped.tolist(), strict=True)
    pairs = (SampledPairs(*of_level) for of_level in counts)
    return Search(len(ids), "approximate", len(sampled), dict(zip(thresholds.values.tolist(), pairs, strict=True)))
