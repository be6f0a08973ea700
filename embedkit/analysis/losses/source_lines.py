"""Tables with one line per source, in the order of the sources of a view."""

import numpy as np
import polars as pl

from embedkit.analysis.merged import Merged


def source_lines(merged: Merged, found: pl.DataFrame) -> pl.DataFrame:
    """Name and order the lines of `found`, which has a column `source` of codes (Int32). Other sources have nulls."""
    names = pl.DataFrame(
        {"dataset_source": merged.sources, "source": np.arange(len(merged.sources), dtype=np.int32)},
        schema_overrides={"dataset_source": pl.String},
    )
    return names.join(found, on="source", how="left", maintain_order="left").drop("source")
