"""Rows of different texts that have the same vector, so that the model cannot tell them apart: one finding per vector.

Their token ids are the same. Unknown characters all have one id, and some normalizers remove case, accents or white
space. A GPU may compute the same ids in another batch to other digits, so there some rows may be missed. Strength: the
number of different texts.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.findings.kind import Context, Finding, Found, require
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.all_neighbors import RowNeighbors

SAME_COSINE = 1 - 1e-6
"""Smallest cosine of two rows with the same vector: rounding in float32 changes it less, any token more."""


def find_same_vector(context: Context) -> Found:
    """The vectors that most texts have."""
    neighbors = require(context.evidence.neighbors, "the neighbours of all rows were not computed")
    rows = pl.DataFrame(
        {
            "vector": _vector_labels(neighbors),
            "position": neighbors.positions,
            "text": context.evidence.facts.text_key[neighbors.positions],
        }
    )
    groups = (
        rows.filter(pl.col("text").n_unique().over("vector") > 1)
        .unique(["vector", "text"], keep="first", maintain_order=True)
        .group_by("vector")
        .agg(members=pl.col("position").sort(), texts=pl.len(), first=pl.col("position").min())
        .sort("texts", "first", descending=[True, False])
    )
    order = -np.arange(groups.height, dtype=np.float64)
    chosen = context.select(groups["first"].to_numpy(), order, collapse=False)
    findings = []
    for members in groups["members"][chosen].to_list():
        reason = f"{len(members):,} different texts have this vector, so the model cannot tell them apart"
        compared = tuple(members[1 : 1 + context.options.compared])
        findings.append(Finding(members[0], float(len(members)), reason, compared))
    return Found(tuple(findings), groups.height)


def _vector_labels(neighbors: RowNeighbors) -> npt.NDArray[np.int32]:
    """A label of each row of `neighbors.positions`, int32 (n,): rows with the same vector have the same."""
    rows = len(neighbors.positions)
    row, column = np.nonzero(neighbors.cosines >= SAME_COSINE)  # False for NaN
    edges = optional_import("scipy.sparse").coo_array(
        (np.ones(len(row), np.int8), (row, neighbors.neighbors[row, column])), shape=(rows, rows)
    )
    connected_components = optional_import("scipy.sparse.csgraph").connected_components
    labels: npt.NDArray[np.int32] = connected_components(edges, directed=False)[1]
    return labels
