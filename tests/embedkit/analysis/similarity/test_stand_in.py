"""transformers answers for vLLM where it gives the run's vectors, and nowhere else: real engines on a real run."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from embedkit.analysis.merged import open_merged
from embedkit.analysis.similarity import search as search_module
from embedkit.analysis.similarity.search import QueryEngine
from embedkit.analysis.similarity.stand_in import NoStandIn, StandIn, may_stand_in, start_stand_in
from embedkit.documents.codec import read
from embedkit.documents.schema import ShardManifest
from embedkit.engines.hash import HashEngine
from embedkit.run import RunFolder
from tests.conftest import embedkit, made_once, needs_vllm
from tests.support.reseal import reseal

QUERY = "a patient with high cholesterol"


@pytest.fixture(scope="session")
def vllm_run(demo_chats: Path, minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One real chat of each source, embedded by the real model with vLLM on the CPU. Read only."""

    def make(folder: Path) -> None:
        asked = ["--dataset", demo_chats, "--model", minilm, "--engine", "vllm", "--device", "cpu"]
        embedkit("run", *asked, "--sample-size", 1, "--output-dir", folder, "--run-name", "run")

    return RunFolder(made_once(tmp_path_factory, "vllm", make) / "run")


def searched(run: RunFolder, *options: object) -> tuple[dict[str, Any], str]:
    """What a search prints as JSON, and its lines on standard error."""
    done = embedkit("search", run.path, QUERY, "-k", 20, "--json", *options)
    said: dict[str, Any] = json.loads(done.stdout)
    return said, done.stderr


@needs_vllm
@pytest.mark.slow
def test_transformers_ranks_as_the_runs_own_engine_does(vllm_run: RunFolder) -> None:
    """Each says in one line that it answers; no library writes anything beside it."""
    quick, line = searched(vllm_run)
    own, own_line = searched(vllm_run, "--engine", "vllm")
    assert line.startswith("transformers ")
    assert "for the canary's texts its vectors are" in line
    assert line.endswith("from the run's, 1e-05 is allowed\n")
    assert line.count("\n") == own_line.count("\n") == 1
    assert own_line == f"vllm {own['engine']['engine_version']} on cpu answers\n"
    assert (quick["engine"]["engine"], own["engine"]["engine"]) == ("transformers", "vllm")
    assert quick["query"]["differences"] == [line.rstrip("\n")]
    assert own["query"]["differences"] == []
    cosines = [[one["cosine"] for one in said["neighbors"]] for said in (quick, own)]
    assert np.abs(np.subtract(*cosines)).max() < 1e-5
    ranks = [[one["id"] for one in said["neighbors"]] for said in (quick, own)]
    close = np.flatnonzero(-np.diff(cosines[1]) < 1e-5)
    assert ranks[0] == ranks[1] or len(close)


@needs_vllm
@pytest.mark.slow
def test_vllm_answers_if_the_canary_is_another(vllm_run: RunFolder, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(vllm_run.path, run.path)
    change_canary(run, 1e-3)
    said, line = searched(run)
    assert said["engine"]["engine"] == "vllm"
    assert " on cpu answers, the run's own engine: vectors of transformers are 0.00" in line
    assert line.endswith("from the run's for the canary's texts, 1e-05 is allowed\n")
    assert said["query"]["differences"] == []


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize(("shift", "passes"), [(0.8e-5, True), (1.2e-5, False)])
def test_the_tolerance_is_that_between_two_shards(
    vllm_run: RunFolder, tmp_path: Path, shift: float, passes: bool
) -> None:
    run = RunFolder(tmp_path / "run")
    shutil.copytree(vllm_run.path, run.path)
    change_canary(run, shift)
    merged = open_merged(run)
    model = Path(merged.config.locations.model)
    if not passes:
        with pytest.raises(NoStandIn, match="1e-05 is allowed"):
            start_stand_in(merged, model)
        return
    found = start_stand_in(merged, model)
    found.engine.close()
    assert found.furthest == pytest.approx(shift, rel=0.15)
    assert (found.tokens, found.allowed) == (256, 1e-5)


def change_canary(run: RunFolder, shift: float) -> None:
    """Move the canary's vectors in a manifest by so much of their length, at right angles to them."""
    manifest = read(run.shard_manifest(0), ShardManifest)
    vectors = np.frombuffer(manifest.canary.before, "<f4").reshape(-1, manifest.engine.dim).copy()
    across = np.random.default_rng(5).standard_normal(vectors.shape)
    across -= (across * vectors).sum(axis=1, keepdims=True) * vectors
    vectors += (shift * across / np.linalg.norm(across, axis=1, keepdims=True)).astype(np.float32)
    canary = msgspec.structs.replace(manifest.canary, before=vectors.astype("<f4").tobytes())
    reseal(run.shard_manifest(0), ShardManifest, canary=canary)


def test_a_run_without_manifests_has_no_stand_in(small: RunFolder) -> None:
    merged = open_merged(small)
    small.shard_manifest(0).unlink()
    with pytest.raises(NoStandIn, match="no manifests to compare"):
        start_stand_in(merged, Path(merged.config.locations.model))
    assert not may_stand_in(merged.config.request)


@dataclass
class Started:
    """Engines that were started, and closed, by their role."""

    opened: list[str]
    closed: list[str]


def test_a_long_query_is_for_the_own_engine_with_a_fake_stand_in(
    small_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in answers up to the tokens that were compared. Then the own engine starts, and stays."""
    merged = open_merged(small_run)
    log = Started([], [])

    class Logged(HashEngine):
        role = "own"

        def close(self) -> None:
            log.closed.append(self.role)

    def start(name: str, model: Path, settings: Any) -> Logged:
        log.opened.append("own")
        return Logged(settings)

    def stand_in(merged: Any, model: Path) -> StandIn:
        log.opened.append("stand-in")
        engine = Logged(merged.plan.settings)
        engine.role = "stand-in"
        return StandIn(engine, 8, 1e-7, 1e-5)

    monkeypatch.setattr(search_module, "may_stand_in", lambda request: True)
    monkeypatch.setattr(search_module, "start_stand_in", stand_in)
    monkeypatch.setattr(search_module, "start_engine", start)
    with QueryEngine(merged) as engine:
        assert "answers for hash" in engine.embed("short").answers
        assert log.opened == ["stand-in"]
        long = "one two three four five six seven eight nine ten"
        assert engine.embed(long).answers.endswith(" on cpu answers")
        assert log == Started(["stand-in", "own"], ["stand-in"])
        assert engine.embed("short").differences == ()
    assert log == Started(["stand-in", "own"], ["stand-in", "own"])
    with QueryEngine(merged, engine="hash") as engine:
        assert engine.embed("short").answers.endswith(" on cpu answers")
