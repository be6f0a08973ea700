"""The description of a space as one value, and its summary as JSON."""

import json
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.analysis.components.pca import pca
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.similarity.all_neighbors import neighbors_of_all
from embedkit.analysis.space import Space, SpaceOptions, describe_space, summary
from embedkit.analysis.space.describe import PASSES
from embedkit.run import RunFolder
from tests.support.merged_runs import merged_of


def space_of(merged: Merged) -> Space:
    return describe_space(merged, pca(merged, 3), neighbors_of_all(merged), SpaceOptions(sample=60, doubted_rows=5))


def test_a_summary_is_json_without_frames(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((120, 8)).astype(np.float32)
    vectors[:40, 0] += 9
    merged = merged_of(tmp_path / "a", vectors, ["x"] * 40 + ["y"] * 77 + ["few"] * 3)
    space = space_of(merged)
    plain = summary(space)
    assert msgspec.json.decode(msgspec.json.encode(plain)) == json.loads(json.dumps(plain))
    assert set(plain) == {"dimension", "spectrum", "deciles", "separability"}
    assert plain["separability"]["accuracy"] > 0.9
    assert plain["dimension"]["rows"] == 120
    assert plain["spectrum"]["dim"] == 8
    assert sum(line["rows"] for line in plain["deciles"]) == 120
    assert space.by_source["dataset_source"].to_list() == ["few", "x", "y"]
    assert space.by_source["rows"].to_list() == [3, 40, 77]
    assert space.by_source["recall"].is_null().to_list() == [True, False, False]


def test_progress_counts_every_row_of_every_pass(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    vectors[4] = 0
    merged = merged_of(tmp_path / "a", vectors, ["x", "y"] * 25)
    done: list[int] = []
    describe_space(merged, pca(merged), neighbors_of_all(merged), progress=done.append)
    assert sum(done) == PASSES * 49


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_few_rows_have_a_description(rows: int, tmp_path: Path) -> None:
    vectors = np.zeros((4, 5), np.float32)
    vectors[:rows] = np.eye(5)[:rows]
    merged = merged_of(tmp_path / "a", vectors, ["x", "y", "x", "y"])
    space = space_of(merged)
    assert space.separability is None
    assert space.dimension.dimension is None
    assert space.by_source["rows"].to_list() == [1] * rows
    assert space.by_source.columns == [
        "dataset_source",
        "rows",
        "recall",
        "silhouette",
        "confused_with",
        "confused_share",
    ]
    assert space.doubted.height == 0
    assert space.doubted.schema["p_own"] == pl.Float32
    assert summary(space)["separability"] is None


def test_layouts_give_equal_descriptions(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    one, two = (space_of(open_merged(run, "response")) for run in (small_run, small_sharded_run))
    assert one.separability is not None
    assert summary(one) == summary(two)
    assert one.by_source.equals(two.by_source)
    assert one.doubted.equals(two.doubted)
