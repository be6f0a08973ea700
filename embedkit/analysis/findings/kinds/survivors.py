"""Rows of a source of which most rows were dropped: what is left may not be like what was lost.

One finding per source, with its first row, compared with its next ones. Strength: the share of the chosen rows of the
source that were dropped, from LEAST_SHARE to 1.
"""

import numpy as np
import polars as pl

from embedkit.analysis.findings.kind import Context, Finding, Found, require

LEAST_SHARE = 0.5
"""Smallest share of dropped rows."""


def find_survivors(context: Context) -> Found:
    """The kept rows of the sources that lost most."""
    dropped = require(context.evidence.dropped, "there is no table of dropped rows")
    merged = context.merged
    kept = pl.DataFrame({"dataset_source": merged.rows["dataset_source"]}).group_by("dataset_source").len("kept")
    lost = dropped.group_by("dataset_source").len("dropped").join(kept, on="dataset_source")
    lost = lost.with_columns(share=pl.col("dropped") / (pl.col("dropped") + pl.col("kept")))
    lost = lost.filter(pl.col("share") >= LEAST_SHARE).sort("share", "dataset_source", descending=[True, False])
    reasons = dropped.group_by("dataset_source", "reason").len().sort(["len", "reason"], descending=[True, False])
    findings = []
    for line in lost.head(context.options.rows).iter_rows(named=True):
        of_source = context.sources == merged.sources.index(line["dataset_source"])
        at = np.flatnonzero(of_source & merged.has_text).tolist()
        if at:
            why = reasons.filter(dataset_source=line["dataset_source"]).select("reason", "len").rows()
            findings.append(
                Finding(
                    position=at[0],
                    strength=line["share"],
                    reason=_reason(line["dataset_source"], line["kept"], line["dropped"], why),
                    compared=tuple(at[1 : 1 + context.options.compared]),
                )
            )
    return Found(tuple(findings), lost.height)


def _reason(source: str, kept: int, dropped: int, why: list[tuple[str, int]]) -> str:
    chosen = kept + dropped
    shares = ", ".join(f"{reason} {count / dropped:.0%}" for reason, count in why)
    left = "the only row" if kept == 1 else f"one of {kept:,} rows"
    lost = f"{dropped:,} of {chosen:,} rows ({dropped / chosen:.0%})"
    return f"{left} left of {source}, of which {lost} were dropped: {shares}"
