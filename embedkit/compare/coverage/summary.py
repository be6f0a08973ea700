"""The numbers and rows of a coverage that people read."""

from collections.abc import Iterator

import numpy as np
import polars as pl

from embedkit.analysis.merged import Merged
from embedkit.compare.coverage.find import Covered
from embedkit.compare.coverage.schema import Coverage, FarRow, SourceCoverage
from embedkit.compare.text_begins import LONG, text_begins

QUANTILES = {"min": 0.0, "1 %": 0.01, "10 %": 0.1, "50 %": 0.5, "90 %": 0.9}
LEAST_PER_SOURCE = 2
FAR_SHARE = 0.1
"""Share of the listed far rows that one source may have, if that is more than LEAST_PER_SOURCE rows."""


def summarize(found: Covered, rows: pl.DataFrame, listed: int = 50) -> Coverage:
    """What `embedkit coverage` prints.

    Args:
        found: the coverage.
        rows: its rows, as `coverage_rows` gives them.
        listed: far rows to list with their texts.
    """
    count, covered = rows.height, int(found.is_covered.sum())
    in_both = int(found.pair.in_both.sum())
    others = count - in_both
    return Coverage(
        a=found.pair.a.run.name,
        b=found.pair.b.run.name,
        view=found.pair.a.view,
        k=found.k,
        seed=found.seed,
        chosen_sources=found.pair.sources,
        rows_a=int(found.pair.a.has_text.sum()),
        rows_b=count,
        in_both=in_both,
        covered=covered,
        share=covered / count if count else None,
        share_of_others=(covered - in_both) / others if others else None,
        cosines=_quantiles(found.cosines[~np.isnan(found.cosines)]),
        method=found.method,
        radii_method=found.radii.method,
        radii_recall=found.radii.recall,
        measured=found.measured,
        sources=tuple(_by_source(rows)),
        far=_far(found, rows, listed),
    )


def source_table(rows: pl.DataFrame) -> pl.DataFrame:
    """One line per source of B, the least covered first, of equal ones the furthest.

    Columns: dataset_source, rows, in_both, covered, share, cosine (mean, to the nearest row of A).
    """
    return (
        rows.group_by("dataset_source")
        .agg(
            pl.len().cast(pl.Int64).alias("rows"),
            pl.col("in_both").sum().cast(pl.Int64),
            pl.col("covered").sum().cast(pl.Int64),
            pl.col("covered").mean().alias("share"),
            pl.col("cosine").cast(pl.Float64).mean(),
        )
        .sort("share", "cosine", "dataset_source")
    )


def _by_source(rows: pl.DataFrame) -> Iterator[SourceCoverage]:
    for line in source_table(rows).rename({"dataset_source": "source"}).iter_rows(named=True):
        yield SourceCoverage(**line)


def _quantiles(cosines: np.ndarray) -> dict[str, float]:
    if not len(cosines):
        return {}
    values = np.quantile(cosines.astype(np.float64), list(QUANTILES.values()), method="lower")
    return {name: float(value) for name, value in zip(QUANTILES, values, strict=True)}


def _far(found: Covered, rows: pl.DataFrame, listed: int) -> tuple[FarRow, ...]:
    """The rows of B with the lowest cosine to their nearest row of A, the furthest first.

    No row in both is listed. Rows with the same vector count once. A source has a tenth of the list at most, or two.
    """
    per_source = max(LEAST_PER_SOURCE, int(FAR_SHARE * listed))
    far = (
        rows.lazy()
        .filter(~pl.col("in_both") & pl.col("nearest_id").is_not_null())
        .sort("cosine", "id")
        .unique(["cosine", "nearest_id"], keep="first", maintain_order=True)
        .filter(pl.int_range(pl.len()).over("dataset_source") < per_source)
        .head(listed)
        .collect()
    )
    texts = _texts(found.pair.b, far["id"].to_list())
    nearest_texts = _texts(found.pair.a, far["nearest_id"].to_list())
    return tuple(
        FarRow(
            id=line["id"],
            row=line["row"],
            source=line["dataset_source"],
            tokens=line["num_tokens"],
            cosine=line["cosine"],
            covered=line["covered"],
            text=text,
            nearest_id=line["nearest_id"],
            nearest_row=line["nearest_row"],
            nearest_source=line["nearest_source"],
            nearest_text=nearest_text,
        )
        for line, text, nearest_text in zip(far.iter_rows(named=True), texts, nearest_texts, strict=True)
    )


def _texts(merged: Merged, ids: list[int]) -> list[str]:
    return text_begins(merged, merged.texts(ids), LONG) if ids else []
