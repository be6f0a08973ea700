"""Lengths and bytes per token by source, beside plain loops over the texts of the tables."""

import math
from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.losses import lengths_by_source
from embedkit.analysis.merged import Merged, open_merged
from embedkit.run import RunFolder
from tests.embedkit.merged_run.test_run import make_odd_run
from tests.support.merged_runs import merged_of
from tests.support.small_run import small_embedded_run, small_run, small_sharded_run

__all__ = ["small_embedded_run", "small_run", "small_sharded_run"]  # fixtures


def at_share(values: list[int], share: float) -> float:
    """The quantile between the two nearest values, by a straight line."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (place - math.floor(place)) * (high - low)


def check(merged: Merged, found: pl.DataFrame, texts: list[str]) -> None:
    """Compare with loops. texts: of the view, by position."""
    assert found["dataset_source"].to_list() == list(merged.sources)
    for line in found.iter_rows(named=True):
        its = [
            (row["num_tokens"], len(text.encode()))
            for row, text in zip(merged.rows.iter_rows(named=True), texts, strict=True)
            if row["dataset_source"] == line["dataset_source"]
        ]
        tokens = [count for count, _ in its if count]
        sizes = [size for count, size in its if count]
        assert (line["rows"], line["rows_without_text"]) == (len(tokens), len(its) - len(tokens))
        assert (line["tokens"], line["bytes"]) == (sum(tokens), sum(sizes))
        if not tokens:
            assert {value for name, value in line.items() if name.startswith(("tokens_", "bytes_per"))} == {None}
            continue
        assert line["bytes_per_token"] == pytest.approx(sum(sizes) / sum(tokens), rel=1e-12)
        assert (line["tokens_min"], line["tokens_max"]) == (min(tokens), max(tokens))
        assert line["tokens_mean"] == pytest.approx(fmean(tokens), rel=1e-12)
        for name, share in (("p05", 0.05), ("p50", 0.5), ("p95", 0.95)):
            assert line[f"tokens_{name}"] == pytest.approx(at_share(tokens, share), rel=1e-12)


@pytest.mark.parametrize("layout", ["merged", "sharded"])
@pytest.mark.parametrize(("view", "sources"), [("combined", []), ("response", []), ("response", ["one", "zz"])])
def test_lengths_are_those_of_a_loop(
    small_run: RunFolder, small_sharded_run: RunFolder, layout: str, view: str, sources: list[str]
) -> None:
    merged = open_merged(small_run if layout == "merged" else small_sharded_run, view, sources)
    frame = merged.texts(merged.ids.tolist())
    columns = ["user_prompt", "think_text", "response_text"] if view == "combined" else ["response_text"]
    texts = ["\n\n".join(row).strip() for row in frame.select(columns).iter_rows()]
    done: list[int] = []
    found = lengths_by_source(merged, progress=done.append)
    check(merged, found, texts)
    assert sum(done) == merged.rows.height
    given = np.array([len(text.encode()) for text in texts], np.int32)
    assert lengths_by_source(merged, given).equals(found)


@pytest.mark.parametrize("kept", ["all", "none"])
def test_lengths_of_a_view_of_the_user(tmp_path: Path, kept: str) -> None:
    merged = open_merged(make_odd_run(tmp_path, kept), "ask")
    texts = [
        f"{text} ({source})"
        for text, source in zip(
            merged.texts(merged.ids.tolist())["user_prompt"], merged.rows["dataset_source"], strict=True
        )
    ]
    check(merged, lengths_by_source(merged), [text.strip() for text in texts])


def test_a_source_without_texts_has_no_lengths(tmp_path: Path) -> None:
    vectors = np.eye(4, dtype=np.float32)
    vectors[2:] = 0
    merged = merged_of(tmp_path, vectors, ["a", "a", "b", ""])
    found = lengths_by_source(merged, np.array([10, 20, 30, 40]))
    check(merged, found, ["x" * 10, "x" * 20, "x" * 30, "x" * 40])
    assert found["rows_without_text"].to_list() == [1, 0, 1]
