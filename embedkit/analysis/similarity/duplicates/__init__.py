"""Near-duplicates: pairs of rows whose cosine is above a threshold, within and across sources.

The search is exact, tile by tile, on a GPU or up to `exact_rows` rows. Above that it is approximate: faiss k-means cuts
the sphere into cells, and each row is compared with the rows of its nearest cells. An IVF-Flat index does the same.
Two differences matter at 2.3 million rows: here the vectors stay in the file instead of in memory, and all pairs of a
row are found, not only its first k. The share of pairs that the search finds is measured on a sample of rows.
"""

from embedkit.analysis.similarity.duplicates.find import DuplicateOptions, find_duplicates
from embedkit.analysis.similarity.duplicates.pairs import Duplicates

__all__ = ["DuplicateOptions", "Duplicates", "find_duplicates"]
