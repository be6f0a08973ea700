"""Answers that do not follow from their thoughts: their vectors are further apart than is usual in their source.

Compared is the cosine between the vectors of think and response. Strength: minus its robust z within the source, so
that a cosine far below the median has a large one; a finding has UNUSUAL or more. It is compared with a usual row of
its source.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from embedkit.analysis.components.views import Views
from embedkit.analysis.findings.kind import NOTHING, Context, Finding, Found, require
from embedkit.analysis.findings.unusual import UNUSUAL, Unusual, most_usual, of_whom, robust_z

LEAST_MAD = 0.01


def find_unrelated_answers(context: Context) -> Found:
    """The rows whose answers are furthest from their thoughts."""
    views = require(context.evidence.views, "think and response were not both embedded")
    is_chosen = views.rows["id"].is_in(context.merged.rows.filter(pl.Series(context.merged.has_text))["id"].implode())
    rows = views.rows.filter(is_chosen)
    if not rows.height:
        return NOTHING
    positions = np.searchsorted(context.merged.ids, rows["id"].to_numpy())
    unusual = _below_usual(rows)
    cosines, sources = rows["cosine"].to_numpy(), context.sources[positions]
    found = np.flatnonzero(unusual.z >= UNUSUAL)
    findings = [
        Finding(
            position=int(positions[i]),
            strength=float(unusual.z[i]),
            reason=(
                f"the cosine between its thought and its answer is {cosines[i]:.2f}, "
                f"where {unusual.usual[i]:.2f} is usual {of_whom(unusual, i)}"
            ),
            compared=context.at(positions, most_usual(cosines, sources, int(i), unusual.usual[i])),
        )
        for i in found[context.select(positions[found], unusual.z[found])]
    ]
    return Found(tuple(findings), len(found))


def answers_by_source(views: Views) -> pl.DataFrame:
    """How near answers are to their thoughts in each source, by name.

    Columns: dataset_source, rows, median and mad of the cosine between think and response, far_below: the number of
    rows that `find_unrelated_answers` finds. A source of fewer than MIN_ROWS rows is compared with all rows for
    far_below.
    """
    rows = views.rows.select("dataset_source", "cosine")
    far_below = _below_usual(rows).z >= UNUSUAL if rows.height else np.zeros(0, bool)
    median = pl.col("cosine").median()
    return (
        rows.with_columns(far_below=pl.Series(far_below))
        .group_by("dataset_source")
        .agg(
            rows=pl.len().cast(pl.Int64),
            median=median,
            mad=(pl.col("cosine") - median).abs().median(),
            far_below=pl.col("far_below").sum().cast(pl.Int64),
        )
        .sort("dataset_source")
    )


def _below_usual(rows: pl.DataFrame) -> Unusual:
    """z with its sign turned: large where a cosine is far below its source's."""
    sources = rows["dataset_source"].rank("dense").to_numpy()
    unusual = robust_z(rows["cosine"].to_numpy(), sources, LEAST_MAD)
    return replace(unusual, z=-unusual.z)
