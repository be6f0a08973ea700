"""Near-duplicates: pairs of rows whose cosine is above a threshold, within and across sources.

The search is exact, tile by tile, on a GPU or up to `exact_rows` rows. Above that it is approximate: faiss k-means cuts
the sphere into cells, and each row is compared with the rows of its nearest cells. An IVF-Flat index does the same.
Two differences matter at 2.3 million rows: here the vectors stay in the file instead of in memory, and all pairs of a
row are found, not only its first k. The share of pairs that the search finds is measured on a sample of rows.

The pairs are given to collectors as they are found: one counts and lists them, one makes groups at several thresholds.
"""

from embedkit.analysis.similarity.duplicates.find import DuplicateOptions, find_duplicates, require_cosine
from embedkit.analysis.similarity.duplicates.groups import GroupCollector
from embedkit.analysis.similarity.duplicates.pairs import Duplicates
from embedkit.analysis.similarity.duplicates.search import Method, Search, SearchOptions, search_pairs
from embedkit.analysis.similarity.duplicates.thresholds import Thresholds, thresholds_from
from embedkit.analysis.similarity.duplicates.tile_product import TileProduct, choose_tile_product

__all__ = [
    "DuplicateOptions",
    "Duplicates",
    "GroupCollector",
    "Method",
    "Search",
    "SearchOptions",
    "Thresholds",
    "TileProduct",
    "choose_tile_product",
    "find_duplicates",
    "require_cosine",
    "search_pairs",
    "thresholds_from",
]
