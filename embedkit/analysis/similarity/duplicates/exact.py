"""Exact comparison: all rows with all rows, or a sample with all rows."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates.collector import Collector
from embedkit.analysis.similarity.duplicates.tile_product import Floats, Ids, TileProduct
from embedkit.analysis.similarity.neighbors import read_ahead

PAIRS = 1 << 18
"""Pairs that are added together. Of a template, a tile has sixty-four times as many: 16 bytes each, and a cosine."""


def tiles(ids: Ids, rows: int) -> Iterator[slice]:
    """Slices of `rows` ids each that together cover all ids."""
    return (slice(start, start + rows) for start in range(0, len(ids), rows))


def compare_all(
    merged: Merged,
    ids: Ids,
    product: TileProduct,
    found: Collector,
    tile_rows: int,
    progress: Callable[[int], None],
) -> None:
    """Compare all pairs: keep a stripe of rows in memory and read all later rows past it, then take the next stripe.

    progress gets the share of the comparisons that are done, as rows: the first rows have the most.
    """
    stripe_rows = product.stripe_rows(merged.dim, tile_rows)
    pairs, done = len(ids) * (len(ids) + tile_rows) // 2, 0
    reported = 0
    for stripe in tiles(ids, stripe_rows):
        held_ids = ids[stripe]
        held = [(held_ids[tile], product.put(merged.vectors(held_ids[tile]))) for tile in tiles(held_ids, tile_rows)]
        rest = ids[stripe.start :]
        for tile in tiles(rest, tile_rows):
            other_ids = rest[tile]
            others = product.put(merged.vectors(other_ids))
            for row_ids, rows in held:
                if row_ids[0] > other_ids[-1]:
                    break  # these two tiles are compared the other way round
                is_once = bool(row_ids[-1] < other_ids[0])
                needless = partial(found.needless, row_ids, other_ids, is_once)
                _add_later(row_ids, other_ids, product.above(rows, others, found.min_cosine, needless), found)
                done += len(row_ids) * len(other_ids)
            merged.matrix.release(int(other_ids[0]), int(other_ids[-1]) + 1)
            now = min(len(ids) * done // pairs, len(ids))
            progress(now - reported)
            reported = now
    progress(len(ids) - reported)


def _add_later(ids: Ids, others: Ids, near: tuple[Ids, Ids, Floats], found: Collector) -> None:
    """Add the pairs of a tile whose second id is the larger one. near: as `TileProduct.above` returns it."""
    i, j, scores = near
    for pairs in tiles(i, PAIRS):
        a, b = ids[i[pairs]], others[j[pairs]]
        once = a < b
        found.add(a[once], b[once], scores[pairs][once])


def compare_sample(merged: Merged, sampled: Ids, product: TileProduct, found: Collector, tile_rows: int) -> None:
    """Compare the sampled rows with all rows."""
    rows = product.put(merged.vectors(sampled))
    for ids, vectors in read_ahead(merged, tile_rows):
        i, j, scores = product.above(rows, product.put(vectors), found.min_cosine)
        a, b = sampled[i], ids[j]
        # A pair of two sampled rows appears twice; keep the one with a < b.
        once = (a < b) | ((a > b) & ~np.isin(b, sampled))
        found.add(a[once], b[once], scores[once])
