"""The page's lists and figures of sources: what a person reads, without what all rows share."""

from types import MappingProxyType
from typing import Any

import numpy as np
import plotly.io
import polars as pl
import pytest

from embedkit.analysis.components.by_source import BySource, DirectionSimilarity
from embedkit.analysis.components.pca import PCA
from embedkit.analysis.page.component_sections import extremes_section, sources_section
from embedkit.analysis.page.figures import cluster_order, direction_similarity_heatmap, short_name
from embedkit.analysis.page.shared_beginnings import shared_beginnings, without_beginning


def planted(groups: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """|cosine| of directions in groups that are shuffled: 0.9 and more within one, 0.2 and less between two."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(groups), each))
    noise = rng.uniform(0, 0.1, (groups * each, groups * each))
    cosine = np.where(group[:, None] == group, 0.9, 0.1) + (noise + noise.T) / 2
    np.fill_diagonal(cosine, 1)
    return cosine, group


def test_similar_directions_are_neighbours() -> None:
    cosine, group = planted(8, 6)
    order = cluster_order(cosine)
    assert sorted(order) == list(range(48))
    assert (np.diff(group[order]) != 0).sum() == 7
    assert cluster_order(np.ones((2, 2))).tolist() == [0, 1]
    assert cluster_order(np.zeros((0, 0))).tolist() == []


def test_the_heat_map_has_all_sources_and_visible_colours() -> None:
    cosine, _ = planted(89, 5)
    found = DirectionSimilarity(tuple((f"source {i}", 1) for i in range(445)), cosine)
    trace = direction_similarity_heatmap(found).data[0]
    cells = np.asarray(trace.z)
    assert cells.shape == (445, 445)
    assert cells.dtype == np.uint8
    assert (np.diag(cells) == 100).all()
    assert 5 < trace.zmin < 20  # the colours are those of the pairs, not of 0 to 100
    assert sorted(trace.x) == sorted(label for label, _ in found.labels)
    assert len(plotly.io.to_json(direction_similarity_heatmap(found))) < 400_000


def of_sources(names: list[str], directions: np.ndarray) -> BySource:
    pcas = [
        PCA(10, np.zeros(2), row[None].astype(np.float32), np.ones(1), np.ones(1), 1.0, np.ones(1))
        for row in directions
    ]
    return BySource(tuple(names), tuple(pcas))


def test_the_most_similar_pairs_are_listed() -> None:
    angles = np.deg2rad([0, 10, 90])
    section = sources_section(of_sources(["a", "b", "c"], np.stack([np.cos(angles), np.sin(angles)], axis=1)))
    ((summary, table),) = section.tables
    assert summary == "The most similar pairs"
    assert [(line[0], line[2], line[4]) for line in table.lines] == [
        ("a", "b", "0.985"),
        ("b", "c", "0.174"),
        ("a", "c", "0.000"),
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("short", "short"),
        ("x" * 24, "x" * 24),
        ("a_source_with_a_long_name_that_ends_in_01", "a_source_wi…t_ends_in_01"),
        ("a_source_with_a_long_name_that_ends_in_02", "a_source_wi…t_ends_in_02"),
    ],
)
def test_a_long_name_beside_an_axis_keeps_its_end(name: str, shown: str) -> None:
    assert short_name(name) == shown


INSTRUCTION = "You are a cook. Answer yes or no, and nothing else. Is this food: "


class FakeMerged:
    """Rows with texts, without files."""

    text_names = MappingProxyType({"user_prompt": "prompt"})

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self._lines = [(source, text) for source, of_source in texts.items() for text in of_source]
        codes = [list(texts).index(source) for source, _ in self._lines]
        sources = [source for source, _ in self._lines]
        self.rows = pl.DataFrame({"id": np.arange(len(codes)), "dataset_source": sources, "source": codes})
        self.has_text = np.array([bool(text) for _, text in self._lines], bool)

    def texts(self, ids: list[int]) -> pl.DataFrame:
        return pl.DataFrame({"id": ids, "user_prompt": [self._lines[id_][1] for id_ in ids]})


def test_only_long_beginnings_of_several_rows_are_left_out() -> None:
    cooks = [f"{INSTRUCTION}{what}" for what in ("bread", "burger", "stone")]
    merged: Any = FakeMerged({"cook": cooks, "short": ["the a", "the b"], "one": [f"{INSTRUCTION}x"], "none": ["", ""]})
    assert shared_beginnings(merged) == {"cook": INSTRUCTION}
    assert [without_beginning(text, INSTRUCTION) for text in cooks] == ["... bread", "... burger", "... stone"]
    assert without_beginning(INSTRUCTION, INSTRUCTION) == INSTRUCTION
    assert without_beginning("other", INSTRUCTION) == "other"
    assert without_beginning("other", "") == "other"


def test_extremes_show_what_comes_after_the_beginning() -> None:
    merged: Any = FakeMerged({"cook": [f"{INSTRUCTION}bread", f"{INSTRUCTION}stone"]})
    line = {"pc": 1, "end": "top", "score": 1.0, "id": 0, "row": 0, "dataset_source": "cook", "num_tokens": 3}
    found = pl.DataFrame([line | {"user_prompt": f"{INSTRUCTION}bread"}])
    ((_, table),) = extremes_section(found, merged, shared_beginnings(merged)).tables
    assert table.lines[0][-1] == [("prompt", "... bread")]


def test_extremes_of_no_component_say_so() -> None:
    merged: Any = FakeMerged({})
    empty = pl.DataFrame(schema={"pc": pl.Int64, "end": pl.String})
    section = extremes_section(empty, merged, {})
    assert section.tables == ()
    assert "No component" in section.text[0]
