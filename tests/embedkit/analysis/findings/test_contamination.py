"""Rows that sources share, beside loops over all pairs of rows."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.findings.kind import Context
from embedkit.analysis.findings.kinds.contamination import LEAST_BYTES, shared_rows

Rows = list[tuple[int, int, bool]]
"""Source, prompt and whether the prompt is long enough to count."""


def context_of(rows: Rows, pairs: list[tuple[int, int]]) -> Context:
    """A fake context of rows with these near pairs. Short prompts have keys of their own."""
    sources = np.array([source for source, _, _ in rows], np.int32)
    key = np.array([2 * prompt + is_long for _, prompt, is_long in rows], np.uint64)
    size = np.array([LEAST_BYTES if is_long else LEAST_BYTES - 1 for _, _, is_long in rows], np.int32)
    near = pl.DataFrame(
        {
            "id_a": [10 * a for a, _ in pairs],
            "id_b": [10 * b for _, b in pairs],
            "cosine": [0.98] * len(pairs),
            "source_a": [str(sources[a]) for a, _ in pairs],
            "source_b": [str(sources[b]) for _, b in pairs],
        },
        schema_overrides={"id_a": pl.Int64, "id_b": pl.Int64, "source_a": pl.String, "source_b": pl.String},
    )
    ids = 10 * np.arange(len(rows))
    fake = SimpleNamespace(
        sources=sources,
        options=SimpleNamespace(near=0.98),
        merged=SimpleNamespace(has_text=np.ones(len(rows), bool), sources=("a", "b", "c"), ids=ids),
        evidence=SimpleNamespace(
            facts=SimpleNamespace(prompt_key=key, prompt_bytes=size), neighbors=None, near_duplicates=near
        ),
    )
    return cast("Context", cast("Any", fake))


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.booleans()), max_size=14),
    st.sets(st.tuples(st.integers(0, 13), st.integers(0, 13)), max_size=12),
)
def test_counts_are_those_of_plain_loops(rows: Rows, drawn: set[tuple[int, int]]) -> None:
    pairs = sorted((a, b) for a, b in drawn if a < b < len(rows))
    near = set(pairs) | {(b, a) for a, b in pairs}
    expected: dict[tuple[int, int], list[int]] = {}
    for row, (source, prompt, is_long) in enumerate(rows):
        for other in {0, 1, 2} - {source}:
            others = [at for at, (of, _, _) in enumerate(rows) if of == other]
            by_prompt = is_long and any(rows[at][1:] == (prompt, True) for at in others)
            if by_prompt or any((row, at) in near for at in others):
                counts = expected.setdefault((source, other), [0, 0])
                counts[0] += 1
                counts[1] += by_prompt
    table = shared_rows(context_of(rows, pairs))
    found = {(line["source"], line["other"]): [line["rows"], line["same_prompt"]] for line in table.to_dicts()}
    assert found == expected
    for line in table.to_dicts():
        assert line["of_rows"] == sum(source == line["source"] for source, _, _ in rows)
        for position, match, by_prompt in zip(line["positions"], line["matches"], line["by_prompt"], strict=True):
            assert (rows[position][0], rows[match][0]) == (line["source"], line["other"])
            assert rows[position][1:] == rows[match][1:] if by_prompt else (position, match) in near


def test_one_prompt_of_many_rows_is_one_line() -> None:
    """A prompt that all sources have counts their rows without a line for each pair of them."""
    table = shared_rows(context_of([(at % 3, 7, True) for at in range(3000)], []))
    assert table.height == 6
    assert table["rows"].to_list() == table["same_prompt"].to_list() == [1000] * 6
    assert table["positions"].list.len().to_list() == [1] * 6


@pytest.mark.parametrize("rows", [[], [(0, 1, True)]])
def test_without_other_sources_nothing_is_shared(rows: Rows) -> None:
    assert shared_rows(context_of(rows, [])).height == 0
