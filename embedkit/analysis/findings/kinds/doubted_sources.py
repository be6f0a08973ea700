"""Rows whose source a probe doubts: from the vector alone it expects another.

Strength, from 0 to 1: one minus the probe's probability of the row's own source. The probability of a finding is at
most MOST_PROBABLE.
"""

import numpy as np
import polars as pl

from embedkit.analysis.findings.kind import Context, Finding, Found, require
from embedkit.analysis.findings.kinds.near import neighbor_positions

MOST_PROBABLE = 0.1
"""Largest probability of its own source that a finding has."""


def find_doubted_sources(context: Context) -> Found:
    """The rows whose own source is least probable."""
    doubted = require(context.evidence.doubted, "no probe was fitted")
    merged = context.merged
    chosen = merged.rows.with_row_index("position").filter(pl.Series(merged.has_text))
    rows = chosen.join(doubted.select("id", "p_own", "predicted"), on="id").sort("id")
    rows = rows.filter(pl.col("p_own") <= MOST_PROBABLE, pl.col("predicted") != pl.col("dataset_source"))
    positions = rows["position"].cast(pl.Int64).to_numpy()
    strength = 1 - rows["p_own"].cast(pl.Float64).to_numpy()
    findings = []
    for i in context.select(positions, strength).tolist():
        predicted = rows["predicted"][i]
        findings.append(
            Finding(
                position=int(positions[i]),
                strength=float(strength[i]),
                reason=(
                    f"a probe expects {predicted} from its vector, "
                    f"and gives its own source a probability of {rows['p_own'][i]:.3f}"
                ),
                compared=_of_source(context, int(positions[i]), predicted),
            )
        )
    return Found(tuple(findings), rows.height)


def _of_source(context: Context, position: int, name: str) -> tuple[int, ...]:
    """The nearest rows that have this source, if the neighbours are known."""
    neighbors = context.evidence.neighbors
    if neighbors is None or name not in context.merged.sources:
        return ()
    index = int(np.searchsorted(neighbors.positions, position))
    if index == len(neighbors.positions) or neighbors.positions[index] != position:
        return ()
    nearest = neighbor_positions(neighbors, index)
    is_there = context.sources[nearest] == context.merged.sources.index(name)
    return tuple(nearest[is_there][: context.options.compared].tolist())
