"""Groups of planted clusters, their levels and numbers, and odd inputs."""

import dataclasses
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.groups.cluster import cluster_sample
from embedkit.analysis.groups.find import GroupOptions, Groups, find_groups, groups_frame
from embedkit.analysis.groups.levels import parents_by_level
from embedkit.analysis.groups.membership import Voters, majority, settled_voters
from embedkit.analysis.groups.space import reduced_space, unit, unit_means
from embedkit.analysis.merged import Merged, open_merged
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from tests.support.merged_runs import merged_of

DIM = 64


def planted(rows: int, seed: int = 0, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, float32 (rows, DIM); the topic of each, -1 for noise; and the area of each topic.

    Six areas of three topics, from 4 to 12 % of the rows each. Cosines are about 0.75 in a topic and 0.5 in an area.
    """
    rng = np.random.default_rng(seed)
    areas, topics = rng.standard_normal((6, DIM)), rng.standard_normal((18, DIM))
    area_of_topic = np.repeat(np.arange(6), 3)
    shares = np.linspace(1, 3, 18)
    topic = rng.choice(18, rows, p=shares / shares.sum())
    centres = np.sqrt(0.5) * areas[area_of_topic] + np.sqrt(0.25) * topics
    vectors = centres[topic] + np.sqrt(0.25) * rng.standard_normal((rows, DIM))
    is_noise = rng.random(rows) < noise
    vectors[is_noise] = rng.standard_normal((int(is_noise.sum()), DIM))
    return unit(vectors.astype(np.float32)), np.where(is_noise, -1, topic), area_of_topic


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Hubert and Arabie's adjusted Rand index, by its definition."""
    pairs = pl.DataFrame({"a": a, "b": b}).group_by("a", "b").len()

    def chosen(counts: pl.Series) -> float:
        return float((counts.cast(pl.Float64) * (counts.cast(pl.Float64) - 1) / 2).sum())

    both = chosen(pairs["len"])
    one, other = (chosen(pairs.group_by(name).agg(pl.sum("len"))["len"]) for name in "ab")
    expected = one * other / (len(a) * (len(a) - 1) / 2)
    return (both - expected) / ((one + other) / 2 - expected)


def fake_clusters(monkeypatch: pytest.MonkeyPatch, labels: np.ndarray) -> None:
    """Give the sample these groups, instead of those of UMAP and HDBSCAN, which take seconds."""
    monkeypatch.setattr(
        "embedkit.analysis.groups.find.cluster_sample", lambda sample, *_: labels[: len(sample)].astype(np.int32)
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_planted_groups_are_found_twice_the_same(tmp_path: Path) -> None:
    """Topics and areas are found, rows outside the sample join them, and a second search gives the same bytes."""
    vectors, topic, area_of_topic = planted(2000)
    vectors[7] = 0
    sources = [f"s{i % 4}" for i in range(2000)]
    merged = merged_of(tmp_path, vectors, sources)
    options = GroupOptions(sample_rows=1000, min_rows=10)
    groups = find_groups(merged, options)
    frame = groups_frame(merged, groups)
    assert frame["id"].to_list() == [i for i in range(2000) if i != 7]
    assert 990 <= int((~frame["placed"]).sum()) <= 1010
    truth = topic[groups.positions]
    for placed in (False, True):
        here = (groups.placed == placed) & (truth >= 0)
        assert adjusted_rand(truth[here], groups.fine[here]) > 0.9
        area = area_of_topic[truth[here]]
        assert max(adjusted_rand(area, groups.of_level(level)[here]) for level in ("coarse", "middle")) > 0.9
    assert (groups.fine[truth < 0] < 0).mean() > 0.5
    assert (groups.fine[truth >= 0] < 0).mean() < 0.1
    again = groups_frame(merged, find_groups(merged, options))
    assert frame.equals(again)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [20, 40])
def test_a_few_rows_in_two_clusters_are_two_groups(rows: int) -> None:
    rng = np.random.default_rng(2)
    centres = np.repeat(rng.standard_normal((2, 32)), rows // 2, axis=0)
    sample = unit((centres + 0.1 * rng.standard_normal((rows, 32))).astype(np.float32))
    labels = cluster_sample(sample, reduced_space(sample, 128), min_rows=rows // 2 - 3, seed=0)
    assert adjusted_rand(np.repeat([0, 1], rows // 2), labels) > 0.9


@pytest.mark.parametrize("rows", [0, 1, 2, 9])
def test_too_few_rows_are_in_no_group(rows: int, tmp_path: Path) -> None:
    vectors = np.zeros((rows + 1, DIM), np.float32)
    vectors[:rows] = planted(200)[0][:rows]
    merged = merged_of(tmp_path, vectors)
    groups = find_groups(merged)
    assert groups.fine.tolist() == groups.nearest.tolist() == [-1] * rows
    assert {level: len(parents) for level, parents in groups.parents.items()} == {"coarse": 0, "middle": 0, "fine": 0}
    assert groups_frame(merged, groups).height == rows
    assert groups.central("fine", 3) == []


def test_equal_vectors_are_one_group(tmp_path: Path) -> None:
    vectors = np.tile(np.arange(1, DIM + 1, dtype=np.float32), (30, 1))
    groups = find_groups(merged_of(tmp_path, vectors), GroupOptions(sample_rows=20))
    for level in ("coarse", "middle", "fine"):
        assert groups.of_level(level).tolist() == [0] * 30
    assert groups.sizes("fine").tolist() == [30]
    assert groups.central("fine", 2)[0].tolist() == [0, 1]


def test_numbers_fall_with_size_and_rows_keep_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest group is 0; of equal ones, that with the smallest id is first. A subset of sources keeps its ids."""
    directions = np.eye(4, 16, dtype=np.float32)
    kinds = np.array([3] * 12 + [1] * 12 + [2] * 20 + [0] * 12)
    other = np.full(len(kinds), "other")
    merged = merged_of(
        tmp_path,
        np.concatenate([directions[kinds], directions[kinds]]),
        [*other, *np.full(len(kinds), "own")],
        only=["own"],
    )
    fake_clusters(monkeypatch, kinds)
    groups = find_groups(merged)
    frame = groups_frame(merged, groups)
    assert frame["id"].to_list() == list(range(56, 112))
    assert frame["fine"].to_list() == [1] * 12 + [2] * 12 + [0] * 20 + [3] * 12
    assert groups.sizes("fine").tolist() == [20, 12, 12, 12]
    assert np.allclose(frame["cosine"].to_numpy(), 1, atol=1e-5)
    assert not frame["placed"].any()


def test_a_row_far_from_its_group_is_in_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that voters would put into a group, but whose cosine is an outlier, keeps only a nearest group."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    vectors = np.zeros((202, 32), np.float32)
    vectors[:200] = np.eye(2, 32)[labels] + 0.05 * rng.standard_normal((200, 32))
    vectors[200] = np.eye(32)[5]
    vectors[201] = np.eye(32)[0]
    merged = merged_of(tmp_path, vectors, ["a"] * 200 + ["b", "c"])
    fake_clusters(monkeypatch, np.append(labels, [-1, 0]))
    groups = find_groups(merged, GroupOptions(levels=1))
    assert groups.fine[200] == -1
    assert groups.nearest[200] in (0, 1)
    assert groups.fine[201] == groups.fine[0] == groups.nearest[201]
    assert list(groups.parents) == ["fine"]


def test_equal_rows_are_in_the_same_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with the same vector have the same voters, whatever groups HDBSCAN gave them."""
    rng = np.random.default_rng(6)
    vectors = np.repeat(rng.standard_normal((20, 16)).astype(np.float32), 10, axis=0)
    fake_clusters(monkeypatch, rng.integers(-1, 3, 200))
    groups = find_groups(merged_of(tmp_path, vectors), GroupOptions(min_rows=2))
    assert len(groups.sizes("fine")) > 1
    assert (groups.fine.reshape(20, 10) == groups.fine.reshape(20, 10)[:, :1]).all()


def naive_majority(votes: list[int]) -> int:
    best = votes[0]
    for vote in votes:
        if votes.count(vote) > votes.count(best):
            best = vote
    return best


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-1, 3), min_size=5, max_size=5), min_size=1, max_size=20))
def test_majority_equals_a_count(votes: list[list[int]]) -> None:
    assert majority(np.array(votes, np.int32)).tolist() == [naive_majority(row) for row in votes]


def test_placed_rows_join_the_majority_of_five() -> None:
    """Compared with cosines and votes computed one by one."""
    rng = np.random.default_rng(3)
    sample, rows = (unit(rng.standard_normal((count, 8)).astype(np.float32)) for count in (60, 25))
    labels = rng.integers(-1, 3, 60).astype(np.int32)
    found = Voters(sample, labels).place(rows)
    for row, group, nearest in zip(rows, found.group, found.nearest, strict=True):
        cosines = [float(np.dot(row.astype(float), other.astype(float))) for other in sample]
        first = sorted(range(60), key=lambda i: -cosines[i])[:5]
        expected = naive_majority([int(labels[i]) for i in first])
        means = [sample[labels == label].astype(float).mean(axis=0) for label in range(3)]
        closest = int(np.argmax([mean @ row / np.linalg.norm(mean) for mean in means]))
        assert group in (expected, -1)
        assert nearest == (closest if group == -1 else group)


def test_a_group_inside_another_is_dissolved() -> None:
    """A group of single rows, each among five rows of another group, would have no rows left."""
    rng = np.random.default_rng(4)
    centres = np.eye(3, 12)[np.repeat([0, 1, 2], 40)]
    sample = unit((centres + 0.03 * rng.standard_normal((120, 12))).astype(np.float32))
    labels = np.repeat([0, 2, 3], 40).astype(np.int32)
    labels[::20] = 1
    voters = settled_voters(sample, labels, least=5)
    assert voters.count == 3
    assert voters.place(sample).group.tolist() == np.repeat([0, 1, 2], 40).tolist()
    assert voters.sizes.tolist() == [38, 38, 38]


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 40), levels=st.integers(1, 3), seed=st.integers(0, 9), equal=st.booleans())
def test_levels_are_nested(count: int, levels: int, seed: int, equal: bool) -> None:
    """Groups of a finer level lie in one group of each coarser level, and coarser levels have fewer or as many."""
    means = unit(np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32))
    if equal:
        means[: count // 2] = means[:1]
    parents = parents_by_level(means, levels)
    assert list(parents) == [["fine"], ["coarse", "fine"], ["coarse", "middle", "fine"]][levels - 1]
    assert parents["fine"].tolist() == list(range(count))
    found = list(parents.values())
    for coarser, finer in pairwise(found):
        assert sorted(set(coarser.tolist())) == list(range(len(set(coarser.tolist()))))
        assert len({*zip(finer.tolist(), coarser.tolist(), strict=True)}) == len(set(finer.tolist()))


def test_areas_are_the_coarse_level() -> None:
    rng = np.random.default_rng(1)
    area = np.repeat(np.arange(5), 6)
    means = unit((rng.standard_normal((5, 40))[area] + 0.4 * rng.standard_normal((30, 40))).astype(np.float32))
    parents = parents_by_level(means, 2)
    assert adjusted_rand(area, parents["coarse"]) == 1


def test_means_equal_a_loop() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    labels = np.random.default_rng(1).integers(-1, 3, 50).astype(np.int32)
    for label, mean in enumerate(unit_means(rows, labels, 3)):
        total = sum(rows[i].astype(float) for i in range(50) if labels[i] == label)
        assert np.allclose(mean, total / np.linalg.norm(total), atol=1e-6)


def test_the_reduced_space_keeps_all_angles_if_it_can() -> None:
    """With as many dimensions as the vectors have, cosines are those of vectors about their mean."""
    vectors = np.random.default_rng(0).standard_normal((40, 12)).astype(np.float32)
    reduced = reduced_space(vectors, 128).reduce(vectors).astype(float)
    centred = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = (centred - centred.mean(axis=0)).astype(float)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    assert np.allclose(reduced @ reduced.T, centred @ centred.T, atol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("levels", 0), ("levels", 4), ("sample_rows", 0), ("min_rows", 0), ("dims", 0)]
)
def test_wrong_options_are_refused(field: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{field}={value}: expected 1 "):
        dataclasses.replace(GroupOptions(), **{field: value})


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UsageError, match=r"umap cannot be imported here .*install embedkit\[analysis\]"):
        find_groups(merged_of(tmp_path, planted(60)[0]))


def test_views_and_layouts_have_groups(
    small_run: RunFolder, small_sharded_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without a text in a view are left out, and both layouts give the same groups."""
    fake_clusters(monkeypatch, np.arange(100) % 3)
    found: list[tuple[Merged, Groups]] = []
    for run in (small_run, small_sharded_run):
        merged = open_merged(run, "response")
        found.append((merged, find_groups(merged)))
    (merged, groups), (other, same) = found
    assert len(groups.positions) == merged.has_text.sum() < merged.rows.height
    assert groups_frame(merged, groups).equals(groups_frame(other, same))
