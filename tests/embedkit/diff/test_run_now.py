"""diff of a run with what the engine gives here for a sample of its rows."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.diff.run_now import diff_now
from embedkit.diff.sample import sample_ids
from embedkit.documents import Plan, RunConfig, Success, open_matrix, read
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, write_chats
from tests.support.models import make_tokenizer
from tests.support.planted import plant, shifted
from tests.support.reseal import reseal


def vectors_of(run: RunFolder) -> np.ndarray:
    success = read(run.success, Success)
    return np.array(open_matrix(run.view_matrix("combined"), success.rows, success.dim))


def sampled(run: RunFolder, rows: int, seed: int = 0, ranges: list[tuple[int, int]] | None = None) -> list[int]:
    config, plan = read(run.config, RunConfig), read(run.plan, Plan)
    return sample_ids(run, config, plan, ranges or [(0, plan.rows_kept)], rows, seed).tolist()


def test_run_agrees_with_the_engine_that_made_it(small_run: RunFolder) -> None:
    found = diff_now(small_run, rows=40)
    assert found.passed
    assert (found.rows, found.seed, found.changes) == (40, 0, ())
    assert [view.mean_cosine for view in found.views] == [1.0, 1.0]
    assert found.views[0].compared == 40
    assert found.views[1].compared < 40  # some rows have no response
    assert found.views[1].only_a == 0


def test_planted_shift_of_a_run_is_found(small: RunFolder) -> None:
    plant(small, shifted(vectors_of(small), 1e-4))
    found = diff_now(small, rows=40)
    assert not found.passed
    assert found.views[0].agreement is not None
    assert found.views[0].agreement.mean == pytest.approx(1e-4, rel=1e-2)


def test_sample_has_every_source_and_many_lengths(hash_run: RunFolder) -> None:
    ids = sampled(hash_run, 100)
    rows = pl.read_parquet(hash_run.metadata).filter(pl.col("id").is_in(ids))
    assert len(ids) == len(set(ids)) == 100
    assert ids == sorted(ids)
    assert rows["dataset_source"].n_unique() == 7
    whole = pl.read_parquet(hash_run.metadata)["num_tokens"]
    for share in (0.1, 0.9):
        border = whole.quantile(share)
        assert 3 <= int((rows["num_tokens"] <= border).sum()) <= 97
    assert sampled(hash_run, 100, seed=1) != ids == sampled(hash_run, 100)


def test_sample_keeps_to_its_ranges(hash_run: RunFolder) -> None:
    ids = sampled(hash_run, 50, ranges=[(10, 20), (4090, 4110)])
    assert ids == [*range(10, 20), *range(4090, 4110)]


def test_model_that_changed_is_refused(small: RunFolder, tmp_path: Path) -> None:
    model = Path(read(small.config, RunConfig).locations.model)
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "tokenizer_config.json").write_text("{}")
    reseal(
        small.config,
        RunConfig,
        locations=lambda c: msgspec.structs.replace(c.locations, model=str(tmp_path / "model")),
    )
    with pytest.raises(EmbedkitError, match="its files are no longer those of the run's request"):
        diff_now(small)


def test_another_model_is_compared_by_its_own_tokens(small: RunFolder, tmp_path: Path) -> None:
    """The hash engine's vectors follow the token ids, so another tokenizer gives other vectors."""
    make_tokenizer(tmp_path / "model")
    same = diff_now(small, model=str(tmp_path / "model"), rows=40)
    assert same.passed
    tokenizer = tmp_path / "model" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
    found = diff_now(small, model=str(tmp_path / "model"), rows=40)
    assert not found.passed
    assert ("model file", "tokenizer.json") in {change.what for change in found.changes}


@pytest.mark.slow
def test_shift_of_1e_4_is_found_by_a_real_model(minilm: Path, tmp_path: Path) -> None:
    """500 rows, all-MiniLM-L6-v2 on a CPU."""
    rng = np.random.default_rng(0)
    words = ["river", "stone", "lamp", "engine", "seven", "question", "answer", "why", "table", "x = 3"]
    rows = [chat(" ".join(rng.choice(words, rng.integers(3, 30))), f"answer {i}") for i in range(600)]
    data = write_chats(tmp_path / "chats.parquet", rows, [f"s{i % 3}" for i in range(600)])
    request = ("--dataset", data, "--model", minilm, "--engine", "transformers", "--full", "--shards", 1)
    embedkit("run", *request, "--output-dir", tmp_path, "--run-name", "run")
    run = RunFolder(tmp_path / "run")
    assert diff_now(run).passed
    plant(run, shifted(vectors_of(run), 1e-4))
    found = diff_now(run)
    assert not found.passed
    assert found.views[0].agreement is not None
    assert found.views[0].agreement.rows == 500
    assert found.views[0].agreement.apart == pytest.approx(1e-4, rel=0.01)


@pytest.mark.slow
def test_noise_of_bfloat16_passes_and_a_shift_does_not(tiny_qwen: Path, tmp_path: Path) -> None:
    """Stored in batches of one composition, embedded here in others and alone. In one process: torch loads slowly."""
    from embedkit.embed import embed_shards
    from embedkit.merge import merge

    rng = np.random.default_rng(1)
    words = ["river", "stone", "lamp", "engine", "seven", "question", "answer", "why", "table", "x = 3"]
    rows = [chat(" ".join(rng.choice(words, rng.integers(3, 40))), f"answer {i}") for i in range(80)]
    data = write_chats(tmp_path / "chats.parquet", rows)
    request = ("--dataset", data, "--model", tiny_qwen, "--engine", "transformers", "--full", "--dtype", "bfloat16")
    embedkit("prepare", *request, "--shards", 1, "--output-dir", tmp_path, "--run-name", "run")
    run = RunFolder(tmp_path / "run")
    embed_shards(run, [0])
    merge(run)
    found = diff_now(run, rows=60)
    assert found.passed
    assert found.views[0].agreement is not None
    assert found.views[0].agreement.noise > 1e-7
    plant(run, shifted(vectors_of(run), 1e-4))
    assert not diff_now(run, rows=60).passed
