"""compare of two runs and of two views: planted rows that moved, sources, odd runs, files and what is printed."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.compare.aligned import align_runs, align_views
from embedkit.compare.compare import compare
from embedkit.compare.coverage import DataPair, find_coverage
from embedkit.compare.text import as_text, lines
from embedkit.compare.write import FILES, write_compared
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.embedkit.compare.pairs import aligned
from tests.support.planted import unit


def groups(rows: int = 200, dim: int = 12) -> np.ndarray:
    """Rows in ten groups, row i in group i % 10."""
    rng = np.random.default_rng(4)
    return unit(rng.normal(size=(10, dim))[np.arange(rows) % 10] + 0.2 * rng.normal(size=(rows, dim)))


def test_a_swapped_pair_moved_most(tmp_path: Path) -> None:
    """The second set has other dimensions: it is turned into 20. Rows 31 and 152 have each other's vectors."""
    a = groups()
    turned = a @ np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0][:12]
    turned[[31, 152]] = turned[[152, 31]]
    sources = ["math" if i % 10 == 1 else "code" for i in range(200)]
    found = compare(aligned(tmp_path, a, turned, sources), listed=5)
    summary = found.summary
    assert summary.dims == (12, 20)
    assert {row.id_a for row in summary.most_moved[:2]} == {31, 152}
    first = next(row for row in summary.most_moved if row.id_a == 31)
    assert (first.moved > 0.5, first.source, first.row_a, first.row_b) == (True, "math", 31, 31)
    assert {near.id % 10 for near in first.near_a} == {1}
    assert {near.id % 10 for near in first.near_b} <= {2, 1}
    assert sum(near.id % 10 == 2 for near in first.near_b) >= 4
    assert summary.cka is not None
    assert summary.overlap is not None
    assert 0.9 < summary.cka < 1
    assert 0.8 < summary.overlap < 1
    assert summary.overlap_by_chance == pytest.approx(10 / 199)
    by_source = {group.name: group for group in summary.sources}
    frame = found.rows
    for name in ("math", "code"):
        of_source = frame.filter(dataset_source=name)
        assert by_source[name].rows == of_source.height == (20 if name == "math" else 180)
        assert by_source[name].moved == pytest.approx(of_source["moved"].mean())
        assert by_source[name].overlap == pytest.approx(of_source["overlap"].mean())
    assert sum(group.rows for group in summary.deciles) == 200


def test_nearest_rows_are_exact(tmp_path: Path) -> None:
    a, b = groups(), unit(np.random.default_rng(9).normal(size=(200, 7)))
    a[7] = 0  # a row without a text in the first set takes part in nothing
    found = compare(aligned(tmp_path, a, b), listed=200)
    assert found.summary.rows == found.rows.height == 199
    assert 7 not in found.rows["id_a"]
    there = np.array([i for i in range(200) if i != 7])
    for row in found.summary.most_moved:
        for near, vectors in ((row.near_a, a), (row.near_b, b)):
            cosines = {i: float(vectors[i].astype(float) @ vectors[row.id_a]) for i in there if i != row.id_a}
            expected = sorted(cosines, key=lambda i: -cosines[i])[:5]
            assert [one.id for one in near] == expected
            assert [one.cosine for one in near] == pytest.approx([cosines[i] for i in expected], abs=1e-6)
    moved = [row.moved for row in found.summary.most_moved]
    assert moved == sorted(moved, reverse=True)


def test_same_bytes_again_and_another_seed(tmp_path: Path) -> None:
    pair = aligned(tmp_path, groups(), groups() + 0.1)
    for name in ("one", "other"):
        write_compared(compare(pair, seed=3), tmp_path / name, "the page")
    for file in FILES.names:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_few_rows(tmp_path: Path, rows: int) -> None:
    a = np.zeros((4, 5))
    a[:rows] = np.random.default_rng(0).normal(size=(rows, 5))
    found = compare(aligned(tmp_path, a, a))
    assert found.summary.rows == found.rows.height == rows
    assert "\n".join(lines(found.summary))
    assert as_text(found.summary)
    json.loads(msgspec.json.encode(found.summary))
    assert found.summary.cka == (None if rows < 2 else pytest.approx(1, abs=1e-6))


def test_equal_vectors(tmp_path: Path) -> None:
    equal = np.ones((30, 5))
    summary = compare(aligned(tmp_path, equal, equal)).summary
    assert (summary.cka, summary.moved, summary.most_moved) == (None, None, ())
    assert "not defined for any row" in "\n".join(lines(summary))


def test_two_views_of_a_run(small_run: RunFolder, small_sharded_run: RunFolder) -> None:
    """The rows that have both texts, in both layouts."""
    found = [compare(align_views(run, "combined", "response")) for run in (small_run, small_sharded_run)]
    frame = pl.read_parquet(small_run.metadata)
    ids = frame.filter(pl.col("num_tokens_response") > 0)["id"].to_list()
    assert found[0].rows["id_a"].to_list() == found[0].rows["id_b"].to_list() == ids
    assert (found[0].summary.only_a, found[0].summary.only_b) == (frame.height - len(ids), 0)
    assert found[0].rows.equals(found[1].rows)
    assert found[0].summary.view_b == "response"


def test_sources_of_two_views(small_run: RunFolder) -> None:
    found = compare(align_views(small_run, "combined", "response", ["zzz"]))
    assert {group.name for group in found.summary.sources} == {"zzz"}
    assert set(found.rows["dataset_source"]) == {"zzz"}
    assert found.summary.most_moved[0].source == "zzz"


def test_runs_are_matched_by_text(tmp_path: Path, tokenizer_only: Path) -> None:
    """The second run has the rows in reverse, one more and one less."""
    chats = [chat(f"question {i}", f"answer {i}") for i in range(12)]
    for name, rows in (("a", chats), ("b", [*reversed(chats[1:]), chat("new", "row")])):
        data = write_chats(tmp_path / f"{name}.parquet", rows)
        embedkit("run", *hash_request(data, tokenizer_only, tmp_path, name), "--shards", 1)
    pair = align_runs(RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b"), "combined", "combined")
    found = compare(pair)
    assert (found.summary.rows, found.summary.only_a, found.summary.only_b) == (11, 1, 1)
    assert found.rows.select("row_a", "row_b").rows() == [(i, 11 - i) for i in range(1, 12)]
    assert found.summary.cka == pytest.approx(1, abs=1e-6)
    assert found.summary.moved == pytest.approx(0, abs=1e-5)


def test_a_view_is_not_compared_with_itself(small_run: RunFolder) -> None:
    with pytest.raises(UsageError, match="a view equals itself"):
        align_views(small_run, "combined", "combined")


def test_command_prints_and_writes(small_run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (small_run.path, "--with-view", "response", "--out", out)
    printed = embedkit("compare", *arguments, new_interpreter=True).stdout
    assert "linear CKA" in printed
    assert max(map(len, printed.splitlines()[:-2])) <= 80
    assert {path.name for path in out.iterdir()} == {*FILES.names} - {"index.html"}  # the run has no page
    summary = json.loads(embedkit("compare", *arguments, "--json").stdout)
    assert summary == json.loads((out / "compare.json").read_text())
    moved = pl.read_parquet(out / "compared.parquet")
    assert moved.columns == ["id_a", "id_b", "row_a", "row_b", "dataset_source", "moved", "overlap"]
    assert summary["most_moved"][0]["moved"] == pytest.approx(moved["moved"].max())


def test_command_refuses_a_folder_of_others(small_run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = embedkit("compare", small_run.path, "--with-view", "response", "--out", tmp_path, check=False)
    assert done.returncode == 2
    assert "thesis.txt" in done.stderr
    done = embedkit("compare", small_run.path, check=False)
    assert (done.returncode, "with what" in done.stderr) == (2, True)


def test_progress_is_shown_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each step ends with all its rows, of compare and of coverage."""
    shown: dict[str, list[int]] = {}

    @contextmanager
    def steps(what: str, rows: int) -> Iterator[Callable[[int], None]]:
        shown[what] = counts = []
        yield counts.append
        assert sum(counts) == rows

    pair = aligned(tmp_path, groups(), groups() + 0.1)
    with caplog.at_level("INFO", "embedkit.compare"):
        compare(pair, steps=steps)
        assert list(shown) == ["compare rows"]
        find_coverage(DataPair(pair.a, pair.a, np.zeros(200, bool)), steps=steps)
    assert list(shown) == ["compare rows", "find radii"]
    assert "compare rows: 200 of 200 rows" in caplog.text
    assert "find radii: 200 of 200 rows" in caplog.text
