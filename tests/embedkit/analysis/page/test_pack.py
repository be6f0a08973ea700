"""The data of the page's map: quantized, packed, within its limits."""

import gzip
import json
from base64 import b64decode
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedkit.analysis.components.pca import pca, project
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.carried_texts import pack_texts
from embedkit.analysis.page.layer import choose_layer
from embedkit.analysis.page.pack import LEVELS, pack, quantized
from embedkit.analysis.page.packed import packed
from embedkit.analysis.similarity.umap import UmapLayout
from tests.support.merged_runs import merged_of

FLOATS = st.floats(-1e6, 1e6, width=32)


@given(arrays.arrays(np.float32, st.integers(1, 50), elements=FLOATS))
def test_quantized_values_are_within_half_a_level_and_in_order(values: np.ndarray) -> None:
    low, high = float(values.min()), float(values.max())
    levels = quantized(values, low, high)
    assert levels.dtype == np.uint32
    back = low + levels.astype(np.float64) * (high - low) / LEVELS
    if high > low:
        assert np.abs(back - values).max() <= (high - low) / LEVELS * 0.5001
    order = np.argsort(values, kind="stable")
    assert (np.diff(levels[order].astype(int)) >= 0).all()


@given(st.binary(max_size=200))
def test_packed_bytes_come_back_and_are_the_same_again(data: bytes) -> None:
    assert gzip.decompress(b64decode(packed(data))) == data
    assert packed(data) == packed(data)


@pytest.fixture
def merged(tmp_path: Path) -> Merged:
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    vectors[7] = 0  # without a text
    return merged_of(tmp_path, vectors, [f"s{i % 7}" for i in range(300)])


def array_of(blocks: dict[str, str], name: str, dtype: str) -> np.ndarray:
    return np.frombuffer(gzip.decompress(b64decode(blocks[name])), dtype)


def levels_of(blocks: dict[str, str], name: str) -> np.ndarray:
    """A coordinate from its upper and lower bits."""
    return array_of(blocks, name, "<u2").astype(np.int64) * 256 + array_of(blocks, f"{name}-fine", "u1")


def test_a_layer_has_every_row_with_a_text(merged: Merged) -> None:
    found = pca(merged, 4)
    scores = project(merged, found)
    data = pack([choose_layer(merged, found, scores, None)])
    ids = array_of(data.blocks, "0-id", "<u4").cumsum()
    assert ids.tolist() == [i for i in range(300) if i != 7]
    codes = array_of(data.blocks, "0-source", "<u2")
    assert [data.layers[0]["sources"][code] for code in codes] == [f"s{i % 7}" for i in ids]
    for pc, axis in enumerate(data.layers[0]["axes"]):
        levels = levels_of(data.blocks, f"0-pc{pc + 1}")
        back = axis["low"] + levels * (axis["high"] - axis["low"]) / LEVELS
        assert np.allclose(back, scores[ids, pc], atol=(axis["high"] - axis["low"]) / LEVELS)
    assert sum(data.layers[0]["counts"]) == 299
    assert data.layers[0]["notes"] == []


def test_the_page_notes_what_does_not_fit(merged: Merged) -> None:
    found = pca(merged, 8)
    scores = project(merged, found)
    layout = UmapLayout(
        np.flatnonzero(merged.has_text), scores[merged.has_text][:, :2], np.zeros(299, bool), 0, 15, 0.1
    )
    whole = pack([choose_layer(merged, found, scores, layout)])
    fine = sum(len(block) for name, block in whole.blocks.items() if name.endswith("-fine") and "pc" in name)
    without = pack([choose_layer(merged, found, scores, layout)], max_bytes=whole.bytes - fine)
    assert [name for name in without.blocks if name.endswith("-fine")] == ["0-mapx-fine", "0-mapy-fine"]
    assert len(without.layers[0]["axes"]) == 8
    data = pack([choose_layer(merged, found, scores, layout)], max_bytes=without.bytes - 1)
    assert len(data.layers[0]["axes"]) == 7
    assert "0-pc8" not in data.blocks.keys() | data.types.keys()
    assert data.layers[0]["notes"] == ["The file has room for 7 of 8 components; pca.parquet has all."]
    assert len(pack([choose_layer(merged, found, scores, layout)], max_bytes=0).layers[0]["axes"]) == 2
    few = choose_layer(merged, found, scores, layout, max_rows=70)
    assert pack([few]).layers[0]["notes"] == ["70 of 299 rows are on this map, a share of each source."]
    xs = levels_of(pack([few]).blocks, "0-mapx")
    assert len(xs) == 70
    assert xs.tolist() == levels_of(whole.blocks, "0-mapx")[np.searchsorted(layout.positions, few.positions)].tolist()


def test_texts_stay_within_their_room_and_hold_the_first_ones(merged: Merged) -> None:
    block, rows = pack_texts(merged, [3, 299], max_rows=100)
    texts = json.loads(gzip.decompress(b64decode(block)))
    assert rows == len(texts["id"]) == len(set(texts["id"])) <= 102
    assert {3, 299} <= set(texts["id"])
    assert texts["id"] == sorted(texts["id"])
    whole = merged.texts(texts["id"])
    assert texts["columns"]["prompt"] == [text[:2500] for text in whole["user_prompt"]]
    assert texts["lengths"]["response"] == whole["response_text"].str.len_chars().to_list()
    sources = merged.rows.filter(pl.col("id").is_in(texts["id"]))["dataset_source"]
    assert sources.n_unique() == 7
    small, fewer = pack_texts(merged, [3, 299], max_rows=300, max_bytes=len(block) // 2)
    assert len(small) <= len(block) // 2
    assert 2 <= fewer < rows
    assert pack_texts(merged, [3, 299], max_rows=100) == (block, rows)
