"""Everything about the shape of the space of one view, in one call."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from embedkit.analysis.components.pca import PCA
from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.all_neighbors import RowNeighbors
from embedkit.analysis.space.dimension import IntrinsicDimension, intrinsic_dimension
from embedkit.analysis.space.isotropy import isotropy_by_length
from embedkit.analysis.space.separability import (
    BY_SOURCE_SCHEMA,
    DOUBTED_SCHEMA,
    Separability,
    separability,
)
from embedkit.analysis.space.spectrum import Spectrum, describe_spectrum

PASSES = 3
"""How often every row is read."""
LISTED_CONFUSIONS = 20
"""Pairs of sources in the summary."""


@dataclass(frozen=True)
class SpaceOptions:
    """Settings.

    sample: rows that train the probe. doubted_rows: most rows to list of each source. seed: of the sample and folds.
    """

    sample: int = 20_000
    doubted_rows: int = 100
    seed: int = 0


@dataclass(frozen=True)
class Space:
    """The shape of the space.

    dimension: None unless two or more neighbours of each row are known. deciles: as `isotropy_by_length`. separability:
    None with fewer than two sources. by_source: one line per source with a text, by name: dataset_source, rows, recall,
    silhouette, confused_with, confused_share, as in Separability; null if the source was not probed. doubted: as in
    Separability.
    """

    dimension: IntrinsicDimension | None
    spectrum: Spectrum
    deciles: pl.DataFrame
    separability: Separability | None
    by_source: pl.DataFrame
    doubted: pl.DataFrame


def describe_space(
    merged: Merged,
    pca: PCA,
    neighbors: RowNeighbors | None,
    options: SpaceOptions | None = None,
    progress: Callable[[int], None] = lambda rows: None,
) -> Space:
    """Describe the space of the chosen rows with a text.

    Args:
        merged: the rows.
        pca: their principal components, with the whole spectrum.
        neighbors: their nearest rows, two or more of each; None leaves the dimension out.
        options: settings; the defaults if None.
        progress: called with the rows of each block that is done. Every row is read PASSES times.

    Raises:
        UsageError: the PCA was computed without the whole spectrum.
    """
    options = options or SpaceOptions()
    deciles = isotropy_by_length(merged, pca, progress)
    found = separability(merged, options.sample, options.doubted_rows, options.seed, progress)
    return Space(
        dimension=None if neighbors is None or neighbors.k < 2 else intrinsic_dimension(neighbors),
        spectrum=describe_spectrum(pca),
        deciles=deciles,
        separability=found,
        by_source=_by_source(merged, found),
        doubted=pl.DataFrame(schema=DOUBTED_SCHEMA) if found is None else found.doubted,
    )


def _by_source(merged: Merged, found: Separability | None) -> pl.DataFrame:
    """One line per source with a text, with what was found for those that were probed."""
    probed = pl.DataFrame(schema=BY_SOURCE_SCHEMA) if found is None else found.by_source
    rows = np.bincount(merged.rows["source"].to_numpy()[merged.has_text], minlength=len(merged.sources))
    frame = pl.DataFrame({"dataset_source": merged.sources, "rows": rows}, schema_overrides={"rows": pl.Int64})
    return frame.filter(pl.col("rows") > 0).join(
        probed.drop("rows"), on="dataset_source", how="left", maintain_order="left"
    )


def summary(space: Space) -> dict[str, Any]:
    """All numbers for space.json, without the frames of sources and rows."""
    plain: dict[str, Any] = {
        "dimension": None if space.dimension is None else asdict(space.dimension),
        "spectrum": asdict(space.spectrum),
        "deciles": space.deciles.to_dicts(),
        "separability": None,
    }
    found = space.separability
    if found is not None:
        numbers = {name: value for name, value in vars(found).items() if not isinstance(value, pl.DataFrame)}
        plain["separability"] = numbers | {"confusions": found.confusions.head(LISTED_CONFUSIONS).to_dicts()}
    return plain
