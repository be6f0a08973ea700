"""Rules that hold for any findings: the ranking, which rows are listed, and which have the same text."""

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.findings.find import rank
from embedkit.analysis.findings.kind import Context, Finding, FindingOptions
from embedkit.analysis.findings.same_text import same_text_labels

KINDS = st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 50), unique=True, max_size=8))


@given(KINDS)
def test_the_ranking_takes_each_kind_in_turn(positions: dict[str, list[int]]) -> None:
    by_kind = {kind: [Finding(at, 1.0, "") for at in found] for kind, found in positions.items()}
    ranked = rank(by_kind)
    assert sorted((kind, one.position) for kind, _, one in ranked) == sorted(
        (kind, at) for kind, found in positions.items() for at in found
    )
    assert [at for _, at, _ in ranked] == sorted(at for _, at, _ in ranked)
    for kind, found in positions.items():
        assert [one.position for name, _, one in ranked if name == kind] == found
        assert [at for name, at, _ in ranked if name == kind] == list(range(1, len(found) + 1))


class ContextOfArrays(Context):
    """A context of arrays alone: what `select` needs."""

    def __init__(self, sources: list[int], labels: list[int], options: FindingOptions) -> None:
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "merged", cast("Any", SimpleNamespace()))
        self.__dict__["sources"] = np.array(sources, np.int32)
        self.__dict__["labels"] = np.array(labels)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.sampled_from([0.1, 0.5, 0.9])), max_size=30),
    st.integers(1, 12),
    st.integers(1, 4),
)
def test_listed_rows_are_the_strongest(rows: list[tuple[int, int, float]], count: int, per_source: int) -> None:
    """As plain Python chooses them: one of each text, and few of each source."""
    sources, labels, strength = ([row[at] for row in rows] for at in range(3))
    options = FindingOptions(rows=count, per_source=per_source)
    found = ContextOfArrays(sources, labels, options).select(np.arange(len(rows)), np.array(strength)).tolist()

    seen: set[int] = set()
    distinct = []
    for at in sorted(range(len(rows)), key=lambda at: (-strength[at], at)):
        if labels[at] not in seen:
            seen.add(labels[at])
            distinct.append(at)
    share = math.ceil(count / max(len({sources[at] for at in distinct}), 1))
    listed: list[int] = []
    for at in distinct:
        of_source = sum(sources[other] == sources[at] for other in listed)
        if of_source < max(per_source, share) and len(listed) < count:
            listed.append(at)
    assert found == listed


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=15),
    st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14), st.sampled_from([0.98, 0.995])), max_size=12),
)
def test_rows_of_one_text_have_one_label(keys: list[int], pairs: list[tuple[int, int, float]]) -> None:
    """Labels are equal exactly where a path of equal keys and near pairs connects two rows."""
    ids = np.arange(len(keys)) * 2 + 1  # not positions
    frame = pl.DataFrame(
        {
            "id_a": [2 * a + 1 for a, _, _ in pairs],
            "id_b": [2 * b + 1 for _, b, _ in pairs],
            "cosine": [cosine for _, _, cosine in pairs],
        },
        schema={"id_a": pl.Int64, "id_b": pl.Int64, "cosine": pl.Float64},
    )
    labels = same_text_labels(ids, np.array(keys, np.uint64), frame)
    group = list(range(len(keys)))
    edges = [(a, b) for a, b, cosine in pairs if cosine >= 0.99 and max(a, b) < len(keys)]
    edges += [(a, b) for a in range(len(keys)) for b in range(a) if keys[a] == keys[b]]
    for _ in keys:
        for a, b in edges:
            group[a] = group[b] = min(group[a], group[b])
    for a in range(len(keys)):
        for b in range(len(keys)):
            assert (labels[a] == labels[b]) == (group[a] == group[b])
