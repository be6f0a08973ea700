"""The data of the tabs "Worth reading" and "Duplicates and dropped rows", without a browser."""

import gzip
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.analysis.findings import KINDS, Evidence, find_findings
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.page.pairs import choose_pairs, pack_pairs
from embedkit.analysis.page.reading import MEANING, pack_reading, rows_to_read
from embedkit.analysis.page.side_by_side import PART_CHARACTERS, side_by_side, utf16_units
from embedkit.analysis.page.threshold_counts import threshold_counts
from embedkit.analysis.similarity.duplicates import DuplicateOptions, find_duplicates
from embedkit.analysis.texts import text_facts
from tests.support.chosen_run import Row, chosen_run
from tests.support.merged_runs import merged_of
from tests.support.strange_rows import COPIES, LOOP, PHRASE, ordinary, strange

__all__ = ["ordinary", "strange"]  # fixtures

NAMES = {"user_prompt": "prompt"}
THRESHOLDS = np.array([0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 0.999])


def unpacked(block: str) -> Any:
    return json.loads(gzip.decompress(b64decode(block)))


def starts_of(*texts: str, starts: tuple[int, int] = (0, 0)) -> Any:
    left, right = ({"user_prompt": text} for text in texts)
    return side_by_side(left, right, NAMES, [{"user_prompt": start} for start in starts]).get("prompt")


def test_a_text_matters_where_it_begins_to_differ() -> None:
    same = "a beginning of the two that is long enough "
    assert starts_of(f"{same}x", f"{same}y") == [len(same)] * 2
    assert starts_of("short x", "short y") is None
    assert starts_of("x" * 50, "y" * 60, starts=(7, 9)) == [7, 9]
    assert starts_of(f"{same}x", f"{same}x", starts=(9, 9)) == [9, 9]  # equal texts have no difference


def test_offsets_are_those_of_javascript() -> None:
    same = "🙂" * 45
    assert starts_of(f"{same}x", f"{same}y") == [90, 90]
    assert utf16_units("a🙂中") == 4
    assert utf16_units("\ud800") == 1  # half of a surrogate pair


def test_a_late_difference_has_its_own_part() -> None:
    same = "🙂" + "b" * 2_999
    left, right = starts_of(f"{same}x{'l' * 5_000}", f"{same}y")
    assert left[:2] == [2_940, 60]
    assert left[2] == "b" * 60 + "x" + "l" * (PART_CHARACTERS - 61)
    assert right == [2_940, 60, "b" * 60 + "y"]
    edge = "b" * 2_100
    assert starts_of(f"{edge}x{'l' * 500}", f"{edge}y") == [2_100, 2_100]
    assert isinstance(starts_of(f"{edge}bx{'l' * 500}", f"{edge}by")[0], list)


def pairs_of(lines: list[tuple[int, int, float, str, str]]) -> pl.DataFrame:
    return pl.DataFrame(lines, schema=["id_a", "id_b", "cosine", "source_a", "source_b"], orient="row")


def test_pairs_to_read_are_of_all_thresholds_and_sources() -> None:
    many = [(i, 100 + i, 1.0, "big", "big") for i in range(50)]
    few = [(200, 201, 0.9999, "small", "small"), (202, 203, 0.9995, "big", "small")]
    low = [(300, 301, 0.955, "big", "big"), (302, 303, 0.952, "big", "small")]
    pairs = pairs_of([*many, *few, *low])
    chosen = choose_pairs(pairs, THRESHOLDS, 6)
    assert chosen["id_a"].to_list() == [202, 302, 0, 300, 200, 1]
    assert choose_pairs(pairs, THRESHOLDS, 100).height == pairs.height
    assert choose_pairs(pairs.clear(), THRESHOLDS, 5).height == 0


def groups_by_hand(cosines: np.ndarray, threshold: float) -> list[int]:
    """Sizes of the groups of two rows or more, by walking from row to row."""
    left, sizes = set(range(len(cosines))), []
    while left:
        group, waiting = set(), [left.pop()]
        while waiting:
            row = waiting.pop()
            group.add(row)
            near = {other for other in left if cosines[row, other] >= threshold}
            left -= near
            waiting += near
        sizes.append(len(group))
    return [size for size in sizes if size > 1]


@pytest.fixture
def merged(tmp_path: Path) -> Merged:
    """60 rows about five centres, so that cosines from 0.9 to 1 are there; two rows are equal."""
    rng = np.random.default_rng(3)
    centres = np.repeat(rng.normal(size=(5, 16)), 12, axis=0)
    vectors = (centres + rng.normal(size=centres.shape) * rng.uniform(0.02, 0.3, (60, 1))).astype(np.float32)
    vectors[7] = vectors[6]
    return merged_of(tmp_path, vectors, [f"s{i % 3}" for i in range(60)])


def test_counts_at_every_step_are_those_of_a_walk(merged: Merged) -> None:
    vectors = merged.vectors(merged.ids).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    codes = np.arange(60) % 3
    counts = threshold_counts(find_duplicates(merged, DuplicateOptions(0.95)))
    assert [line["threshold"] for line in counts] == sorted({round(0.95 + at / 1000, 3) for at in range(51)})
    for line in counts[:-1]:
        one, other = np.nonzero(np.triu(cosines >= line["threshold"], 1))
        assert line["pairs"] == len(one)
        assert line["across"] == (codes[one] != codes[other]).sum()
        sizes = groups_by_hand(cosines, line["threshold"])
        assert (line["groups"], line["removed"]) == (len(sizes), sum(sizes) - len(sizes))
        assert line["largest"] == max(sizes, default=0)
    assert counts[0]["pairs"] > counts[25]["pairs"] > 0
    assert counts[-1] == {"threshold": 1, "pairs": 1, "across": 1, "groups": 1, "removed": 1, "largest": 2}


def test_where_not_all_pairs_are_listed_only_levels_are_counted(merged: Merged) -> None:
    found = find_duplicates(merged, DuplicateOptions(0.95, max_pairs=5))
    whole = {line["threshold"]: line for line in threshold_counts(find_duplicates(merged, DuplicateOptions(0.95)))}
    lowest = found.pairs["cosine"][-1]
    counts = threshold_counts(found)
    assert counts[0] == whole[0.95] | {"across": None}
    below = [line for line in counts if line["threshold"] <= lowest]
    assert {line["threshold"] for line in below} == {at for at in THRESHOLDS.tolist() if at <= lowest}
    assert all(line["pairs"] is None for line in below[1:])
    assert all(line["removed"] == whole[line["threshold"]]["removed"] for line in counts)
    assert all(line == whole[line["threshold"]] for line in counts[len(below) :])


@pytest.mark.parametrize(("lowest", "steps"), [(0.5, 101), (0.001, 101), (1.0, 1), (0.9995, 2)])
def test_the_slider_has_few_steps(merged: Merged, lowest: float, steps: int) -> None:
    counts = threshold_counts(find_duplicates(merged, DuplicateOptions(lowest)))
    assert counts[0]["threshold"] == lowest
    assert counts[-1]["threshold"] == 1
    assert len(counts) <= steps + len(THRESHOLDS)


def test_no_pairs_have_counts_of_zero(tmp_path: Path) -> None:
    found = find_duplicates(merged_of(tmp_path, np.eye(4, dtype=np.float32)), DuplicateOptions(0.95))
    assert {line["pairs"] for line in threshold_counts(found)} == {0}
    (view,) = unpacked(pack_pairs([merged_of(tmp_path / "b", np.eye(4, dtype=np.float32))], [found], [{}]).block)
    assert view["a"] == view["b"] == []
    assert view["notes"] == ["No two of 4 rows have a cosine of 0.95 or more."]


def test_packed_pairs_stay_within_their_bytes(merged: Merged) -> None:
    found = find_duplicates(merged, DuplicateOptions(0.95))
    size = sum(len((text or "").encode()) for text in merged.texts([0]).row(0)[1:])
    some = pack_pairs([merged], [found], [{}], max_text_bytes=9 * size)
    all_pairs = pack_pairs([merged], [found], [{}])
    (few,), (many,) = unpacked(some.block), unpacked(all_pairs.block)
    assert 0 < len(few["a"]) < len(many["a"]) == found.total == few["total"]
    assert len(some.ids) <= 9
    assert some.ids == few["rows"]["id"]
    across = [few["rows"]["source"][a] != few["rows"]["source"][b] for a, b in zip(few["a"], few["b"], strict=True)]
    assert across == sorted(across, reverse=True)
    assert pack_pairs([merged], [None], [{}]).has_pairs is False


def test_every_kind_is_explained() -> None:
    assert list(MEANING) == list(KINDS)


@pytest.fixture
def reading(strange: Merged) -> Any:
    found = find_findings(strange, Evidence(text_facts(strange)))
    (view,) = unpacked(pack_reading([strange], [found], [{}]))
    assert rows_to_read([found]) == view["rows"]["id"]
    return view


def shown_ids(reading: Any, kind: str) -> list[list[int | None]]:
    ids = reading["rows"]["id"]
    (finding,) = (one for one in reading["findings"] if one["kind"] == kind)
    return [[None if at is None else ids[at] for at in pair] for pair in finding["pairs"]]


def test_findings_name_the_rows_to_show(reading: Any) -> None:
    assert reading["names"] == ["prompt", "think", "response"]
    assert [kind["name"] for kind in reading["kinds"]] == list(KINDS)
    kinds = {kind["name"]: kind for kind in reading["kinds"]}
    assert kinds["outliers"]["skipped"] == "the neighbours of all rows were not computed"
    assert kinds["same_prompt"] == {
        "name": "same_prompt",
        "meaning": MEANING["same_prompt"],
        "shown": 1,
        "found": 1,
        "skipped": None,
    }
    assert shown_ids(reading, "contamination") == [[COPIES[0], 0], [COPIES[1], 3]]  # two pairs of the two sources
    assert shown_ids(reading, "loops") == [[LOOP, None]]


def test_a_loop_is_shown_from_its_phrase_on(reading: Any, strange: Merged) -> None:
    (finding,) = (one for one in reading["findings"] if one["kind"] == "loops")
    thought = strange.texts([LOOP])["think_text"][0]
    assert finding["starts"][0]["think"] == [thought.index(PHRASE)]


def test_parts_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    late = "the beginning that all of them share. " * 90
    rows = [Row(f"{late}{i // 2}", f"answer {i}") for i in range(20)]
    merged = open_merged(chosen_run(tmp_path, rows))
    found = find_findings(merged, Evidence(text_facts(merged)))
    (view,) = unpacked(pack_reading([merged], [found], [{rows[0].source: late}]))
    parts = [one for one in view["findings"] if one["starts"]]
    assert parts
    assert parts[0]["starts"][0]["prompt"][0][2].endswith("share. 0")
    (small,) = unpacked(pack_reading([merged], [found], [{rows[0].source: late}], max_bytes=10))
    assert [one["starts"] for one in small["findings"]] == [[]] * len(view["findings"])
    assert [one["reason"] for one in small["findings"]] == [one["reason"] for one in view["findings"]]


@given(st.text(), st.text(), st.text())
def test_what_differs_is_at_the_offset(begin: str, one: str, other: str) -> None:
    left, right = f"{begin * 3}{one}", f"{begin * 3}{other}"
    starts = starts_of(left, right)
    if starts:
        at = starts[0]
        encoded = [text.encode("utf-16-le", "replace") for text in (left, right)]
        assert encoded[0][: 2 * at] == encoded[1][: 2 * at]
