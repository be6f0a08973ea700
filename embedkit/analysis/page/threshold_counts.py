"""Pairs and groups of near-duplicates at fine steps of the threshold, for the page's slider."""

from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.similarity.duplicates import Duplicates

STEPS = (0.001, 0.002, 0.005, 0.01)
MAX_STEPS = 100
"""Steps from the lowest threshold to 1."""


def threshold_counts(found: Duplicates) -> list[dict[str, Any]]:
    """Counts at each step, from the lowest threshold on to 1.

    Where the file does not list all pairs, steps below its lowest cosine are the thresholds of `Duplicates.levels`
    alone, and the pairs are not known there: they are None, except at the lowest one.

    Returns:
        For each step: threshold, pairs and across (of these, pairs across sources), groups (of two rows or more),
        removed (rows, if one of each group stays) and largest (rows of the largest group).
    """
    cosines = found.pairs["cosine"].to_numpy()  # falling
    across = (found.pairs["source_a"] != found.pairs["source_b"]).to_numpy()
    across_until = np.concatenate([[0], np.cumsum(across)])
    known = np.nextafter(cosines[-1], 2) if found.is_capped and len(cosines) else 0.0
    levels = {line["threshold"]: line for line in found.levels.iter_rows(named=True)}
    counts: list[dict[str, Any]] = []
    for threshold in sorted({*levels, *_steps(found.threshold)}):
        numbers: dict[str, int | None] = {"pairs": None, "across": None}
        stop = int(np.searchsorted(-cosines, -threshold, side="right"))
        if threshold >= known:
            numbers = {"pairs": stop, "across": int(across_until[stop])}
        elif threshold == found.threshold:
            numbers["pairs"] = found.total
        if threshold in levels:
            groups = _groups_of_level(levels[threshold])
        elif threshold >= known:
            groups = _groups(found.pairs["id_a"].to_numpy()[:stop], found.pairs["id_b"].to_numpy()[:stop])
        else:
            continue
        counts.append({"threshold": threshold, **numbers, **groups})
    return counts


def _steps(lowest: float) -> list[float]:
    step = next((one for one in STEPS if (1 - lowest) / one <= MAX_STEPS), STEPS[-1])
    first = int(np.ceil(round(lowest / step, 6)))
    return [round(at * step, 6) for at in range(first, round(1 / step) + 1)]


def _groups_of_level(line: dict[str, Any]) -> dict[str, int]:
    return {
        "groups": line["groups"],
        "removed": line["rows_in_groups"] - line["groups"],
        "largest": line["largest_group"],
    }


def _groups(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> dict[str, int]:
    """Connected components of pairs of ids."""
    if not len(a):
        return {"groups": 0, "removed": 0, "largest": 0}
    ids, ends = np.unique(np.stack([a, b]), return_inverse=True)
    edges = optional_import("scipy.sparse").coo_array(
        (np.ones(len(a), np.int8), ends.reshape(2, -1)), shape=(len(ids), len(ids))
    )
    groups, labels = optional_import("scipy.sparse.csgraph").connected_components(edges, directed=False)
    return {"groups": int(groups), "removed": len(ids) - int(groups), "largest": int(np.bincount(labels).max())}
