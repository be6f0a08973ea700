"""The search for near-duplicates: exact where that is fast enough, else approximate with its recall measured."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.cells import compare_in_cells, nearest_cells
from embedkit.analysis.similarity.duplicates.exact import compare_all, compare_sample
from embedkit.analysis.similarity.duplicates.pairs import Duplicates, PairCollector
from embedkit.analysis.similarity.duplicates.tile_product import TorchTileProduct, choose_tile_product
from embedkit.data import row_hash
from embedkit.errors import UsageError

EXACT_ROWS = 200_000
"""Most rows for which a CPU compares all pairs. Time grows with the square of the rows."""
TILE_ROWS = 4096
"""Rows of one side of a tile: 64 MB of float32 cosines."""


@dataclass(frozen=True)
class DuplicateOptions:
    """Settings of the search for near-duplicates.

    threshold: smallest cosine of a pair, above 0 and at most 1. max_pairs: pairs to list, those with the largest
    cosines; all pairs are counted. exact_rows: up to so many rows a CPU compares all pairs; a GPU always does. cells:
    number of cells of the approximate search; None for twice the square root of the rows. probes: cells in which each
    row is compared. sample: rows on which the recall of the approximate search is measured. seed: of k-means and of
    that sample; the same seed gives the same result on the same machine with the same number of threads. tile_rows:
    rows of one side of a tile; it sets the memory, and never changes the result of the exact search.
    """

    threshold: float = 0.95
    max_pairs: int = 100_000
    exact_rows: int = EXACT_ROWS
    cells: int | None = None
    probes: int = 8
    sample: int = 1000
    seed: int = 0
    tile_rows: int = TILE_ROWS


def find_duplicates(
    merged: Merged, options: DuplicateOptions | None = None, progress: Callable[[int], None] = lambda rows: None
) -> Duplicates:
    """Find, count and list near-duplicates among the chosen rows with a text.

    Args:
        merged: the rows.
        options: settings of the search; the defaults if None.
        progress: called with the number of further rows whose comparisons are done.

    Raises:
        UsageError: the threshold is not a cosine above 0.
    """
    options = options or DuplicateOptions()
    if not 0 < options.threshold <= 1:
        raise UsageError(f"threshold {options.threshold}: expected a cosine above 0 and at most 1")
    ids = merged.ids[merged.has_text]
    found = PairCollector(merged, options.threshold, options.max_pairs)
    product = choose_tile_product()
    if len(ids) <= options.exact_rows or isinstance(product, TorchTileProduct):
        compare_all(merged, ids, product, found, options.tile_rows, progress)
        return found.result(len(ids), "exact")
    sampled = np.sort(ids[np.argsort(row_hash(options.seed + 1, ids), kind="stable")[: options.sample]])
    found.count_pairs_of(sampled)
    cells = options.cells or int(np.ceil(2 * np.sqrt(len(ids))))
    near = nearest_cells(merged, ids, cells, options.probes, options.seed)
    compare_in_cells(merged, ids, near, product, found, options.tile_rows, progress)
    # The exact pairs of the sampled rows show how many pairs the cells miss.
    exact = PairCollector(merged, options.threshold, 0)
    compare_sample(merged, sampled, product, exact, options.tile_rows)
    recall = found.sampled_pairs / exact.total if exact.total else None
    return found.result(len(ids), "approximate", recall, len(sampled), exact.total)
