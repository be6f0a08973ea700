"""diff of two merged runs: real runs of the hash engine, with vectors planted."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.diff.run_now import diff_now
from embedkit.diff.two_runs import diff_runs
from embedkit.documents import Plan, RunConfig, Success, digest, matrix_header, open_matrix, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.planted import plant, shifted
from tests.support.reseal import reseal


def vectors_of(run: RunFolder) -> np.ndarray:
    success = read(run.success, Success)
    return np.array(open_matrix(run.view_matrix("combined"), success.rows, success.dim))


@pytest.fixture
def other(small_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the small run under another name."""
    shutil.copytree(small_run.path, tmp_path / "other")
    return RunFolder(tmp_path / "other")


def test_run_agrees_with_its_copy(small_run: RunFolder, other: RunFolder) -> None:
    found = diff_runs(small_run, other)
    assert found.passed
    assert (found.changes, found.problem, found.dims) == ((), "", (64, 64))
    assert [view.view for view in found.views] == ["combined", "response"]
    combined = found.views[0]
    assert combined.compared == read(small_run.success, Success).rows
    assert (combined.only_a, combined.only_b, combined.mean_cosine, combined.overlap) == (0, 0, 1.0, 1.0)
    assert combined.worst == ()
    assert sum(group.rows for group in combined.deciles) == sum(group.rows for group in combined.sources)
    assert {group.name for group in combined.sources} == {"a/b", "source one", "zzz"}


def test_planted_shift_is_found_and_measured(small_run: RunFolder, other: RunFolder) -> None:
    vectors = vectors_of(small_run)
    plant(other, shifted(vectors, 1e-4))
    found = diff_runs(small_run, other)
    combined, response = found.views
    assert (found.passed, combined.passed, response.passed) == (False, False, True)
    assert combined.agreement is not None
    assert combined.agreement.mean == pytest.approx(1e-4, rel=1e-3)
    assert combined.quantiles["50 %"] == pytest.approx(1 - 1e-4, abs=1e-8)
    plain = np.linalg.norm(shifted(vectors, 1e-4).mean(axis=0, dtype=float) - vectors.mean(axis=0, dtype=float))
    assert combined.mean_shift == pytest.approx(plain, rel=1e-3)


def test_shift_in_bfloat16_is_found_and_noise_is_not(small_run: RunFolder, other: RunFolder) -> None:
    reseal_dtype(other)
    for distance, passes in ((6e-5, True), (1e-4, False)):
        plant(other, shifted(vectors_of(small_run), distance))
        assert diff_runs(small_run, other).passed is passes


def reseal_dtype(run: RunFolder) -> None:
    """Say that a run was computed in bfloat16."""
    config = reseal(run.config, RunConfig, request=lambda c: msgspec.structs.replace(c.request, dtype="bfloat16"))
    plan = reseal(run.plan, Plan, request_sha256=digest(config.request))
    reseal(run.success, Success, request_sha256=digest(config.request), plan_sha256=digest(plan))


def test_worst_rows_are_named_with_their_texts(small_run: RunFolder, other: RunFolder) -> None:
    vectors = vectors_of(small_run)
    vectors[9], vectors[5] = shifted(vectors[[9]], 0.5)[0], shifted(vectors[[5]], 0.3)[0]
    plant(other, vectors)
    worst = diff_runs(small_run, other).views[0].worst
    lines = pl.read_parquet(small_run.metadata)
    assert [row.row for row in worst] == [lines["row"][9], lines["row"][5]]
    assert [row.distance for row in worst] == pytest.approx([0.5, 0.3], rel=1e-4)
    assert worst[0].source == lines["dataset_source"][9]
    assert worst[0].tokens == lines["num_tokens"][9]
    assert worst[0].text.startswith(" ".join(lines["user_prompt"][9].split())[:20])


def test_one_row_far_away_does_not_pass(small_run: RunFolder, other: RunFolder) -> None:
    vectors = vectors_of(small_run)
    vectors[9] = shifted(vectors[[9]], 2e-5)[0]
    plant(other, vectors)
    assert not diff_runs(small_run, other).passed


def test_vectors_that_are_longer_do_not_pass(small_run: RunFolder, other: RunFolder) -> None:
    """Every cosine is 1."""
    plant(other, 1.01 * vectors_of(small_run))
    found = diff_runs(small_run, other)
    assert not found.passed
    assert found.views[0].agreement is not None
    assert found.views[0].agreement.length == pytest.approx(0.01, rel=1e-4)


def test_rows_are_matched_by_text_in_any_order(tmp_path: Path, tokenizer_only: Path) -> None:
    """The second run has the rows in reverse, one more, one less, one twice, and no empty difference."""
    chats = [chat(f"question {i}", f"answer {i}") for i in range(12)]
    later = [*reversed(chats[1:]), chat("new", "row"), chats[3]]
    for name, rows in (("a", chats), ("b", later)):
        data = write_chats(tmp_path / f"{name}.parquet", rows)
        embedkit("run", *hash_request(data, tokenizer_only, tmp_path, name), "--shards", 1)
    found = diff_runs(RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b"))
    view = found.views[0]
    assert found.passed
    assert (view.compared, view.only_a, view.only_b) == (11, 1, 1)
    changes = {change.what: (change.old, change.new) for change in found.changes}
    assert changes[("count", "kept rows")] == ("12", "13")
    assert ("data", "a.parquet") in changes


def test_view_without_any_text_is_no_difference(tmp_path: Path, tokenizer_only: Path) -> None:
    """Reasoning of chats that have none. If one run has some, there is no text in common."""
    runs = []
    for name, answer in (("a", "stone"), ("b", "<think>lamp</think>stone")):
        data = write_chats(tmp_path / f"{name}.parquet", [chat(f"river {i}", answer) for i in range(4)])
        request = hash_request(data, tokenizer_only, tmp_path, name)
        embedkit("run", *request, "--view", "combined", "--view", "think", "--shards", 1)
        runs.append(RunFolder(tmp_path / name))
    found = diff_runs(runs[0], runs[0])
    assert (found.passed, found.problem, found.views[1].compared) == (True, "", 0)
    assert diff_now(runs[0]).passed
    found = diff_runs(*runs)
    assert (found.passed, found.problem) == (False, "the runs have no text in common (view combined, think)")


def test_two_dimensions_are_compared_by_neighbours(small_run: RunFolder, other: RunFolder) -> None:
    rows = read(other.success, Success).rows
    for view in ("combined", "response"):
        vectors = np.array(open_matrix(small_run.view_matrix(view), rows, 64))[:, :40]
        other.view_matrix(view).write_bytes(matrix_header(rows, 40) + np.ascontiguousarray(vectors, "<f4").tobytes())
    reseal(other.success, Success, dim=40)
    found = diff_runs(small_run, other)
    assert not found.passed
    assert found.problem == "the vectors have 64 and 40 numbers, so there is no cosine between them"
    view_found = found.views[0]
    assert (view_found.agreement, view_found.mean_cosine, view_found.mean_shift, view_found.worst) == (None,) * 3 + (
        (),
    )
    assert view_found.overlap is not None
    assert 0.3 < view_found.overlap < 0.95
    assert view_found.sources[0].mean is None
    assert view_found.sources[0].overlap is not None


def test_engines_that_differ_are_listed(small_run: RunFolder, other: RunFolder) -> None:
    reseal(other.success, Success, engines=lambda s: (msgspec.structs.replace(s.engines[0], gpu="NVIDIA H100"),))
    found = diff_runs(small_run, other)
    assert [(change.what, change.old, change.new) for change in found.changes] == [
        (("engine", "gpu"), "-", "NVIDIA H100")
    ]


def test_run_that_is_not_merged_is_refused(small_run: RunFolder, small_embedded: RunFolder) -> None:
    with pytest.raises(EmbedkitError, match="the run to compare is not merged; finish it first: embedkit run --resume"):
        diff_runs(small_run, small_embedded)
