"""The files of a decision: complete, the same bytes each time, and only those of one request."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.analysis.similarity.duplicates import SearchOptions
from embedkit.dedup import Dedup, DedupOptions, dedup
from embedkit.dedup import stage as stage_module
from embedkit.dedup.reading import chosen_to_read
from embedkit.documents import read
from embedkit.errors import EmbedkitError, UsageError
from embedkit.merge import merge
from embedkit.run import RunFolder, folder_lock
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.embedkit.analysis.similarity.test_duplicate_groups import clusters, naive_labels
from tests.embedkit.dedup.test_rules import naive_rule, near_matrix
from tests.support.merged_runs import cosines_between, run_of
from tests.support.planted import plant
from tests.support.small_run import small, small_embedded_run, small_run, small_sharded, small_sharded_run

__all__ = ["small", "small_embedded_run", "small_run", "small_sharded", "small_sharded_run"]  # fixtures

VECTORS = clusters(8, 160)
SOURCES = [["a/b", "c", "d e"][i * i % 7 % 3] for i in range(160)]
FILES = {"kept.parquet", "removed.parquet", "levels.parquet", "groups.parquet", "removed_by_source.parquet"} | {
    "removed.txt",
    "dedup.json",
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_of(tmp_path_factory.mktemp("planted"), VECTORS, SOURCES)


def table(folder: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(folder / f"{name}.parquet")


def test_files_have_the_decision_of_a_loop(planted: RunFolder, tmp_path: Path) -> None:
    done = dedup(planted, DedupOptions(threshold=0.95, keep="first", out=tmp_path / "out"))
    assert {path.name for path in done.folder.iterdir()} == FILES
    kept, removed = table(done.folder, "kept"), table(done.folder, "removed")
    assert kept["id"].to_list() == naive_rule(near_matrix(VECTORS), list(range(160)))
    cosines = cosines_between(VECTORS, VECTORS)
    labels = naive_labels(VECTORS, 0.95)
    for line in removed.iter_rows(named=True):
        assert line["cosine"] == pytest.approx(cosines[line["id"], line["pair_id"]], abs=1e-12)
        assert line["pair_id"] == line["kept_id"] in set(kept["id"])
        assert line["group"] == labels[line["id"]]
        assert line["pair_source"] == SOURCES[line["pair_id"]]
        assert line["across_sources"] == (SOURCES[line["id"]] != SOURCES[line["pair_id"]])
    order = [(not line["across_sources"], -line["cosine"], line["id"]) for line in removed.iter_rows(named=True)]
    assert order == sorted(order)
    assert 20 < removed["across_sources"].sum() < removed.height
    groups = {id_: label for id_, label in enumerate(labels) if labels.count(label) > 1}
    found = table(done.folder, "groups")
    assert dict(zip(found["id"], found["0.95"], strict=True)) == groups
    assert found["0.999"].null_count() > 0
    by_source = table(done.folder, "removed_by_source")
    assert by_source["rows"].sum() == removed.height
    assert by_source["rows"].is_sorted(descending=True)
    record = done.record
    assert (record.rows, record.kept, record.removed) == (160, kept.height, removed.height)
    assert record.empty == (~VECTORS.any(axis=1)).sum() > 0
    assert (record.method, record.left_by_near) == ("exact", kept.height)
    assert record.left_by_group == len(set(labels)) == record.level.rows_left
    assert read(done.folder / "dedup.json", Dedup) == record


def test_one_row_of_each_group_stays(planted: RunFolder, tmp_path: Path) -> None:
    done = dedup(planted, DedupOptions(threshold=0.95, keep="first", one_per_group=True, out=tmp_path / "out"))
    labels = naive_labels(VECTORS, 0.95)
    assert table(done.folder, "kept")["id"].to_list() == sorted(set(labels))  # the lowest row of each
    cosines = cosines_between(VECTORS, VECTORS)
    removed = table(done.folder, "removed")
    for id_, pair, kept in removed.select("id", "pair_id", "kept_id").iter_rows():
        assert cosines[id_, pair] >= 0.95
        assert labels[pair] == labels[id_] == kept
    assert (removed["pair_id"] != removed["kept_id"]).sum() > 5
    assert "over a chain of near rows" in (done.folder / "removed.txt").read_text(encoding="utf-8")
    assert done.record.left_by_near == len(naive_rule(near_matrix(VECTORS), list(range(160))))


def test_across_sources_removes_nothing_within_one(planted: RunFolder, tmp_path: Path) -> None:
    done = dedup(planted, DedupOptions(threshold=0.95, keep="first", across_sources=True, out=tmp_path / "out"))
    expected = naive_rule(near_matrix(VECTORS, SOURCES), list(range(160)))
    assert table(done.folder, "kept")["id"].to_list() == expected
    assert table(done.folder, "removed")["across_sources"].all()


def test_cells_with_all_probes_give_the_exact_rows(planted: RunFolder, tmp_path: Path) -> None:
    cells = SearchOptions(exact_rows=0, cells=4, probes=9)
    exact = dedup(planted, DedupOptions(threshold=0.97, out=tmp_path / "a"))
    found = dedup(planted, DedupOptions(threshold=0.97, out=tmp_path / "b", search=cells, block_rows=5))
    for name in ("kept", "removed", "groups"):
        assert table(found.folder, name).equals(table(exact.folder, name))
    assert found.record.method == "approximate"
    assert found.record.level.recall == 1


def test_the_same_request_writes_the_same_bytes(planted: RunFolder) -> None:
    first = dedup(planted, DedupOptions(threshold=0.97, keep="source:c,a/b"))
    assert first.folder == planted.path / "dedup" / "0.97-source-c,a_b"
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    dedup(planted, DedupOptions(threshold=0.97, keep="source:c,a/b"))
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before


def test_other_requests_have_other_folders(planted: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dedup(planted, DedupOptions(threshold=0.97, out=out))
    with pytest.raises(UsageError, match=r"another request \(threshold\); type another --out"):
        dedup(planted, DedupOptions(threshold=0.98, out=out))
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=r"has other files, such as notes\.txt"):
        dedup(planted, DedupOptions(threshold=0.97, out=out))
    with pytest.raises(UsageError, match=r"only .*dedup has such folders"):
        dedup(planted, DedupOptions(threshold=0.97, out=planted.path / "embeddings"))
    with pytest.raises(UsageError, match="expected a cosine above 0"):
        dedup(planted, DedupOptions(threshold=0))
    part = dedup(planted, DedupOptions(threshold=0.97, sources=("c",), across_sources=True))
    assert part.folder.name == "0.97-longest-only-c-across-sources"
    assert part.record.removed == 0


def test_some_sources_are_decided_by_themselves(planted: RunFolder, tmp_path: Path) -> None:
    done = dedup(planted, DedupOptions(threshold=0.95, keep="first", sources=("d",), out=tmp_path / "out"))
    ids = [i for i, source in enumerate(SOURCES) if source == "d e"]
    kept = naive_rule(near_matrix(VECTORS[ids]), list(range(len(ids))))
    assert table(done.folder, "kept")["id"].to_list() == [ids[at] for at in kept]
    both = pl.concat([table(done.folder, name).select("id") for name in ("kept", "removed")])
    assert sorted(both["id"]) == ids


def test_a_killed_decision_leaves_no_record(
    planted: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if an earlier one was whole."""
    options = DedupOptions(threshold=0.97, out=tmp_path / "out")
    done = dedup(planted, options)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage_module, "write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            dedup(planted, options)
    assert not (done.folder / "dedup.json").exists()
    assert dedup(planted, options).record == done.record


def test_rows_that_are_lost_are_not_written(
    planted: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "kept_frame", lambda merged, stays: merged.rows.head(3))
    with pytest.raises(EmbedkitError, match="are not all rows, each once"):
        dedup(planted, DedupOptions(threshold=0.97, out=tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("vectors", [np.zeros((3, 4)), np.eye(4)[:1], np.ones((6, 4)), np.eye(4)])
def test_odd_runs(vectors: np.ndarray, tmp_path: Path) -> None:
    """No row with a text, one row, equal rows, and no near rows."""
    run = run_of(tmp_path, vectors.astype(np.float32))
    for one_per_group in (False, True):
        record = dedup(run, DedupOptions(threshold=1.0, one_per_group=one_per_group)).record
        assert record.kept == (1 if len(vectors) == 6 else len(vectors))
        assert {path.name for path in (run.dedups / "1.0-longest").iterdir()} == FILES


@pytest.mark.parametrize("name", ["small", "small_sharded"])
def test_a_run_of_chats_in_each_view_and_layout(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    done = dedup(run, DedupOptions(threshold=0.3, view="response"))
    assert done.folder.name == "0.3-longest-response"
    assert done.record.removed > 5
    text = (done.folder / "removed.txt").read_text(encoding="utf-8")
    assert "   response: " in text
    assert "   prompt: " not in text
    text = (dedup(run, DedupOptions(threshold=0.3)).folder / "removed.txt").read_text(encoding="utf-8")
    assert "   prompt: [-" in text


def test_the_command_prints_levels_and_removed_rows(small: RunFolder) -> None:
    rng = np.random.default_rng(0)
    rows = pl.read_parquet(small.metadata).height
    vectors = np.repeat(rng.standard_normal((rows // 2 + 1, 64)), 2, axis=0)[:rows]
    plant(small, vectors + 0.01 * rng.standard_normal(vectors.shape))
    printed = embedkit("dedup", small.path, "--threshold", "0.985", "--keep", "first", new_interpreter=True).stdout
    lines = printed.splitlines()
    assert lines[0].split() == ["threshold", "groups", "rows", "in", "them", "largest", "rows", "left"]
    assert [line[:10].strip() for line in lines[1:9]] == [
        *("0.95", "0.96", "0.97", "0.98", ">    0.985", "0.99", "0.995", "0.999")
    ]
    assert f"kept: {(rows + 1) // 2:,} of {rows:,} rows" in lines
    assert f"written: {small.path}/dedup/0.985-first" in lines
    assert max(map(len, lines[:-1])) <= 80
    assert sum(line.startswith("cosine 0.9") for line in lines) == 3
    record = json.loads(embedkit("dedup", small.path, "--threshold", "0.985", "--keep", "first", "--json").stdout)
    assert record["removed"] == rows // 2
    unknown = embedkit("dedup", small.path, "--threshold", "0.9", "--keep", "source:zz", code=2).stderr
    assert "no source is named 'zz'; there are 3, such as zzz" in unknown


def test_rows_to_read_take_turns_by_pair_of_sources() -> None:
    cosines = [0.98, 0.981, 0.982, 0.99, 0.985, 0.999, 0.995]
    sources = ["a", "a", "a", "a", "b", "b", "a"]
    pairs = ["b", "b", "b", "b", "c", "c", "b"]
    across = [one != two for one, two in zip(sources, pairs, strict=True)]
    removed = pl.DataFrame(
        {"id": range(7), "dataset_source": sources, "pair_source": pairs, "cosine": cosines, "across_sources": across}
    )
    read_first = chosen_to_read(removed, 6)
    assert read_first["id"].to_list() == [0, 4, 1, 5, 6, 3]
    assert read_first["part"].to_list() == ["least alike"] * 3 + ["most alike"] * 3
    assert chosen_to_read(removed, 0).is_empty()
    assert chosen_to_read(removed, 99).height == 7


def test_half_of_the_rows_to_read_are_within_a_source() -> None:
    """Rows across sources come first, and would hide the others: of 10 places, both have 5."""
    across = [True] * 30 + [False] * 10
    removed = pl.DataFrame(
        {
            "id": range(40),
            "dataset_source": ["a"] * 40,
            "pair_source": ["b" if one else "a" for one in across],
            "cosine": [0.9 + 0.001 * i for i in range(40)],
            "across_sources": across,
        }
    )
    assert chosen_to_read(removed, 20)["id"].to_list() == [
        *(0, 1, 2, 3, 4, 30, 31, 32, 33, 34),
        *(29, 28, 27, 26, 25, 39, 38, 37, 36, 35),
    ]
    few = chosen_to_read(removed.head(32), 20)
    assert few["id"].to_list() == [*range(8), 30, 31, *range(29, 19, -1)]


def test_texts_that_are_only_in_the_parts_are_read(tokenizer_only: Path, tmp_path: Path) -> None:
    """A run with --texts none, whose merged files have no texts."""
    chats = [chat(f"prompt {i % 4}", f"answer {i % 4}") for i in range(9)]
    data = write_chats(tmp_path / "chats.parquet", chats, ["s"] * 9)
    request = hash_request(data, tokenizer_only, tmp_path, "run")
    embedkit("run", *request, "--texts", "none", "--shards", 1)
    done = dedup(RunFolder(tmp_path / "run"), DedupOptions(threshold=0.99))
    assert (done.record.kept, done.record.removed) == (4, 5)
    text = (done.folder / "removed.txt").read_text(encoding="utf-8")
    assert text.count("texts: same text") == 5


def test_a_lock_of_a_folder_is_known(small: RunFolder) -> None:
    small.dedups.mkdir()
    lock = folder_lock(small.dedups / "0.98-longest")
    lock.write_bytes(b"{}")
    assert small.locks()[lock] == "removing near-duplicates"


def test_a_run_that_is_not_merged_is_refused(small: RunFolder) -> None:
    shutil.rmtree(small.by_source)
    small.success.unlink()
    with pytest.raises(EmbedkitError, match="not merged"):
        dedup(small, DedupOptions(threshold=0.9))
    merge(small)
    assert dedup(small, DedupOptions(threshold=0.9)).record.rows > 0
