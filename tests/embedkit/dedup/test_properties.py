"""What holds for every decision: receipts, each row once, and the same rows in any order and size of tiles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.duplicates import GroupCollector, SearchOptions, Thresholds, search_pairs
from embedkit.dedup.independent_set import Groups
from embedkit.dedup.preference import ranks
from embedkit.dedup.tables import Removals, kept_frame, removed_frame
from tests.embedkit.analysis.similarity.test_duplicate_groups import clusters
from tests.support.merged_runs import cosines_between, in_memory, merged_of

KEEPS = ["longest", "first", "source:c,a"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    """What `in_memory` replaces the rows of."""
    return merged_of(tmp_path_factory.mktemp("base"), np.eye(2, dtype=np.float32))


def decided(
    merged: Merged, threshold: float, keep: str, across: bool = False, block_rows: int = 2048, tile_rows: int = 4096
) -> tuple[bytes, bytes, list[int], list[tuple[int, int, float]]]:
    """The bytes of the tables kept and removed, the kept ids, and the removed ids with pair and cosine."""
    thresholds = Thresholds(merged, (threshold,), across)
    found = GroupCollector(merged, thresholds)
    search_pairs(merged, SearchOptions(tile_rows=tile_rows), thresholds, found, found)
    labels = found.labels(threshold)
    groups = Groups(merged, labels, ranks(merged, keep), threshold, across, block_rows)
    stays = groups.independent_set()
    removed, pair, cosine = groups.nearest_kept(stays)
    tables = kept_frame(merged, stays), removed_frame(merged, labels, Removals(removed, pair, cosine, pair))
    one, two = (table.write_csv(float_precision=17).encode() for table in tables)
    receipts = list(tables[1].select("id", "pair_id", "cosine").iter_rows())
    return one, two, tables[0]["id"].to_list(), receipts


def sources_of(seed: int, rows: int) -> list[str]:
    return np.random.default_rng(seed + 1).choice(["a", "b", "c"], rows).tolist() if rows > 2 else ["c", "a"][:rows]


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(2, 70),
    threshold=st.sampled_from([1e-9, 0.5, 0.9, 0.97, 0.9999]),
    keep=st.sampled_from(KEEPS),
    across=st.booleans(),
)
def test_each_row_is_kept_or_has_a_receipt(
    base: Merged, seed: int, rows: int, threshold: float, keep: str, across: bool
) -> None:
    vectors, sources = clusters(seed, rows), ["c", "a", *sources_of(seed, rows)][:rows]
    _, _, kept, removed = decided(in_memory(base, vectors, sources), threshold, keep, across)
    assert sorted([*kept, *(id_ for id_, _, _ in removed)]) == list(range(rows))
    cosines = cosines_between(vectors, vectors)
    differs = np.array(sources)[:, None] != np.array(sources)
    counts = differs if across else np.ones_like(differs)
    for id_, pair, cosine in removed:
        assert pair in kept
        assert counts[id_, pair]
        assert cosine >= threshold
        assert cosine == pytest.approx(cosines[id_, pair], abs=1e-12)
    among = cosines[np.ix_(kept, kept)][np.triu(counts[np.ix_(kept, kept)], 1)]
    assert not (np.nan_to_num(among, nan=-1) > threshold + 1e-12).any()


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(2, 60),
    block_rows=st.sampled_from([1, 2, 9, 33]),
    tile_rows=st.sampled_from([1, 5, 31]),
    keep=st.sampled_from(KEEPS),
)
def test_blocks_and_tiles_change_no_byte(
    base: Merged, seed: int, rows: int, block_rows: int, tile_rows: int, keep: str
) -> None:
    merged = in_memory(base, clusters(seed, rows), ["c", "a", *sources_of(seed, rows)][:rows])
    whole = decided(merged, 0.95, keep)
    assert decided(merged, 0.95, keep, block_rows=block_rows, tile_rows=tile_rows) == whole


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), rows=st.integers(2, 60), keep=st.sampled_from(["longest", "first"]))
def test_names_of_sources_do_not_decide(base: Merged, seed: int, rows: int, keep: str) -> None:
    """The order of sources by name changes, and with it their codes."""
    vectors, sources = clusters(seed, rows), ["c", "a", *sources_of(seed, rows)][:rows]
    renamed = [{"a": "z", "b": "y", "c": "x"}[name] for name in sources]
    for across in (False, True):
        one, two = (decided(in_memory(base, vectors, names), 0.95, keep, across) for names in (sources, renamed))
        assert one[2:] == two[2:]
