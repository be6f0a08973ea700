"""The nearest rows of every row, by cosine.

The search is exact on a GPU or up to `exact_rows` rows. Above that it is approximate: faiss k-means cuts the sphere
into cells, and each row is compared with the members of its nearest cells, as an IVF-Flat index does. The vectors stay
in the file. The share of neighbours that the search finds is measured on a sample of rows.
"""

from embedkit.analysis.similarity.all_neighbors.find import AllNeighborsOptions, RowNeighbors, neighbors_of_all
from embedkit.analysis.similarity.all_neighbors.table import nearest_of, neighbors_table

__all__ = ["AllNeighborsOptions", "RowNeighbors", "nearest_of", "neighbors_of_all", "neighbors_table"]
