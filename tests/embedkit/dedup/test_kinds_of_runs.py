"""Decisions on runs of every kind: views, plain text, layouts, sources with odd names, with planted near-duplicates."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.dedup import Deduped, DedupOptions, dedup
from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.support.chosen_run import DIM, Row, chosen_run, run_of_file
from tests.support.planted import plant

NAMES = ["=SUM(A1)", "数学/代数", "مصدر", "a, b", "🙂"]
"""Names of sources, one per pair of near rows."""


def pairs_of_vectors(seed: int) -> np.ndarray:
    """Ten unit vectors: rows 2 i and 2 i + 1 have the cosine 0.99, all others are orthogonal."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(DIM, DIM)))[0]
    vectors = np.repeat(basis[:5], 2, axis=0)
    vectors[1::2] = 0.99 * basis[:5] + np.sqrt(1 - 0.99**2) * basis[5:10]
    return vectors


def rows_of_pairs() -> list[Row]:
    """Chats of which the second of each pair has a text that is longer by a word."""
    return [
        Row(
            f"What is {at // 2}{' then' * (at % 2)}?",
            f"It is so {at // 2}{' indeed' * (at % 2)}.",
            think=f"Let me see {at // 2}{' again' * (at % 2)}",
            source=NAMES[at // 2],
        )
        for at in range(10)
    ]


def removed_of(done: Deduped) -> list[tuple[int, int]]:
    """Ids of the removed rows and of their pairs, by id."""
    return sorted(pl.read_parquet(done.folder / "removed.parquet").select("id", "pair_id").iter_rows())


def text_of(done: Deduped) -> str:
    return (done.folder / "removed.txt").read_text(encoding="utf-8")


SHORTER = [(at, at + 1) for at in range(0, 10, 2)]
"""The shorter row of each pair is removed for the longer one."""


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Planted pairs in each view but combined, whose vectors are unrelated. Read only."""
    views = ("combined", "think", "response", "bold")
    templates = {"bold": "*{user_prompt}* {response_text}"}
    run = chosen_run(tmp_path_factory.mktemp("chats"), rows_of_pairs(), views=views, templates=templates)
    for view in views[1:]:
        plant(run, pairs_of_vectors(3), view)
    return run


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        ("think", "   think: Let me see 0 {+again+}\n"),
        ("response", "   response: It is so [-0.-] {+0 indeed.+}\n"),
        ("bold", "   view bold: *What is [-0?*-] {+0 then?*+} It is so [-0.-] {+0 indeed.+}\n"),
    ],
)
def test_vectors_and_texts_are_those_of_the_view(view: str, shown: str, chats: RunFolder, tmp_path: Path) -> None:
    done = dedup(chats, DedupOptions(threshold=0.98, view=view, out=tmp_path / "out"))
    assert removed_of(done) == SHORTER
    assert done.record.request.view == view
    assert shown in text_of(done)
    assert f"(view {view})" in text_of(done)
    assert text_of(done).count("   pair     id ") == 5
    assert done.record.across_sources == 0


def test_the_usual_view_has_other_vectors(chats: RunFolder, tmp_path: Path) -> None:
    assert dedup(chats, DedupOptions(threshold=0.98, out=tmp_path / "out")).record.removed == 0


@pytest.mark.parametrize(
    ("sources", "pairs"), [(("数学",), [1]), (("a, b",), [3]), (("=", "🙂"), [0, 4]), (("مصد", "/"), [1, 2])]
)
def test_sources_with_odd_names_are_chosen(
    sources: tuple[str, ...], pairs: list[int], chats: RunFolder, tmp_path: Path
) -> None:
    """Rows that are left have other positions than ids."""
    done = dedup(chats, DedupOptions(threshold=0.98, view="think", sources=sources, out=tmp_path / "out"))
    assert removed_of(done) == [SHORTER[pair] for pair in pairs]
    assert pl.read_parquet(done.folder / "kept.parquet")["id"].to_list() == [2 * pair + 1 for pair in pairs]
    for pair in range(5):
        assert (NAMES[pair] in text_of(done)) == (pair in pairs)


def test_a_source_with_a_comma_is_preferred(chats: RunFolder, tmp_path: Path) -> None:
    """Its name counts as a whole, before it counts as two names."""
    options = DedupOptions(threshold=0.98, view="think", keep="source:a, b", out=tmp_path / "out")
    assert removed_of(dedup(chats, options)) == SHORTER


def test_the_case_of_sources_is_no_other_request(chats: RunFolder) -> None:
    """Sources are found in any case, and the folder is the same."""
    one, two = (
        dedup(chats, DedupOptions(threshold=0.98, view="think", sources=sources))
        for sources in (("=SUM", "a,"), ("a,", "=sum", "A,"))
    )
    assert one.folder == two.folder
    assert one.record == two.record


@pytest.mark.parametrize(
    "options", [{"layout": "sharded"}, {"texts": "none"}, {"store": "float16", "dtype": "float16"}]
)
def test_each_layout_and_store(options: dict[str, str], tmp_path: Path) -> None:
    """With --texts none, texts are only in the parts."""
    rows = [Row(row.prompt, row.response, source=row.source) for row in rows_of_pairs()]
    run = chosen_run(tmp_path, [*rows, *rows], shards=2, **options)
    done = dedup(run, DedupOptions(threshold=0.999))
    assert removed_of(done) == [(at + 10, at) for at in range(10)]  # copies: the first of equal length stays
    assert text_of(done).count("texts: same text") == 10


def test_plain_text_has_one_text(tmp_path: Path) -> None:
    texts = [f"又是 {at // 2} 🙂 مرحبا{' x' * (at % 2)}" for at in range(10)]
    pl.DataFrame({"body": texts, "dataset_source": NAMES * 2}).write_parquet(tmp_path / "texts.parquet")
    run = run_of_file(tmp_path, tmp_path / "texts.parquet", list(pairs_of_vectors(5)), text_columns=("body",))
    done = dedup(run, DedupOptions(threshold=0.98))
    assert removed_of(done) == SHORTER
    assert done.record.across_sources == 5
    assert "   text: 又是 0 🙂 مرحبا {+x+}\n" in text_of(done)
    assert "response" not in text_of(done)


@pytest.mark.parametrize("threshold", ["0", "-0.5", "1.001", "nan", "inf"])
def test_a_wrong_threshold_writes_nothing(threshold: str, chats: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused = embedkit("dedup", chats.path, "--threshold", threshold, "--out", out, code=2).stderr
    assert f"threshold {float(threshold)}: expected a cosine above 0 and at most 1" in refused
    assert not out.exists()


def test_thresholds_at_both_ends(tmp_path: Path) -> None:
    """At 1, only copies are removed; at a tiny one, all rows with a cosine above 0."""
    vectors = np.abs(np.random.default_rng(0).normal(size=(12, DIM)))
    vectors[6:9] = vectors[0]
    rows = [Row(f"prompt {at}", f"answer {at}", vector=vector) for at, vector in enumerate(vectors)]
    run = chosen_run(tmp_path, rows)
    printed = embedkit("dedup", run.path, "--threshold", "1.0", "--keep", "first", "--json").stdout
    assert json.loads(printed)["removed"] == 3
    assert pl.read_parquet(run.dedups / "1.0-first" / "removed.parquet")["pair_id"].to_list() == [0] * 3
    tiny = dedup(run, DedupOptions(threshold=1e-9, keep="first"))
    assert (tiny.record.kept, tiny.folder.name) == (1, "1e-09-first")
    levels = pl.read_parquet(tiny.folder / "levels.parquet")
    assert levels["threshold"].to_list()[0] == 1e-9
    assert all(low <= high for low, high in pairwise(levels["rows_left"]))
