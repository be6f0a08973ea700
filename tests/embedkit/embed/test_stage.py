"""Impossible vectors are never written, and the row is named. The engines are fakes that misbehave."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import embedkit.embed.inputs
import embedkit.embed.stage
from embedkit.check.verify import verify
from embedkit.documents.codec import read
from embedkit.documents.schema import EngineSettings, RunConfig, ShardManifest
from embedkit.embed.publish import publish_manifest
from embedkit.embed.stage import embed_shards
from embedkit.engines.hash import HashEngine
from embedkit.errors import EmbedkitError
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from tests.conftest import embedkit as command
from tests.conftest import hash_request

Break = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def set_to(value: float) -> Break:
    def broken(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        vectors[-1] = value
        return vectors

    return broken


@pytest.fixture(scope="module")
def prepared(small_chats: Path, tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    output = tmp_path_factory.mktemp("prepared")
    command("prepare", *hash_request(small_chats, tokenizer_only, output))
    return RunFolder(output / "run")


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (set_to(float("nan")), r"row \d+: NaN or infinity in its vector"),
        (set_to(float("inf")), r"row \d+: NaN or infinity in its vector"),
        (set_to(0.0), r"row \d+: only zeros in its vector"),
        (lambda vectors: vectors[:, :5], r"shape \(\d+, 5\) for rows \d+ to \d+"),
        (lambda vectors: vectors[1:], r"shape \(\d+, 64\) for rows \d+ to \d+"),
    ],
)
def test_a_fake_engine_with_bad_vectors_fails_the_task(
    breaks: Break, message: str, prepared: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BadEngine(HashEngine):
        def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
            vectors = super().embed(token_ids)
            return vectors if len(token_ids) == 1 else breaks(vectors)  # the canary's texts come alone

    monkeypatch.setattr(embedkit.embed.stage, "start_engine", lambda name, model, settings: BadEngine(settings))
    with pytest.raises(EmbedkitError, match=message):
        embed_shards(prepared, [0])
    assert not prepared.shard_manifest(0).exists()
    assert verify(prepared).ok


def test_an_engine_that_raises_is_reported_with_its_rows(prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class RaisingEngine(HashEngine):
        def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
            if len(token_ids) == 1:  # one of the canary's
                return super().embed(token_ids)
            raise RuntimeError("CUDA error")

    monkeypatch.setattr(embedkit.embed.stage, "start_engine", lambda name, model, settings: RaisingEngine(settings))
    with pytest.raises(EmbedkitError, match=r"the engine failed on rows \d+ to \d+ .*RuntimeError: CUDA error"):
        embed_shards(prepared, [0])


def test_rows_are_embedded_longest_first(prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[int]] = []

    class SpyEngine(HashEngine):
        def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
            calls.append([len(ids) for ids in token_ids])
            return super().embed(token_ids)

    monkeypatch.setattr(embedkit.embed.stage, "start_engine", lambda name, model, settings: SpyEngine(settings))
    embed_shards(prepared, [2])
    chunks = [lengths for lengths in calls if len(lengths) > 1]  # the canary's texts come alone
    assert len(chunks) > 1
    assert all(lengths == sorted(lengths, reverse=True) for lengths in chunks)


def test_one_engine_embeds_shards_as_they_come(prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next shard is asked for when the one before it is finished. Its attempt has no start of an engine."""
    started: list[HashEngine] = []
    now = time.monotonic

    def start(name: str, model: Path, settings: EngineSettings) -> HashEngine:
        monkeypatch.setattr(time, "monotonic", lambda: now() + 9999)  # a start takes so many seconds
        started.append(HashEngine(settings))
        return started[-1]

    def shards() -> Iterator[int]:
        for shard in (0, 2):
            yield shard
            assert prepared.shard_manifest(shard).exists()

    monkeypatch.setattr(embedkit.embed.stage, "start_engine", start)
    embed_shards(prepared, shards())
    assert len(started) == 1
    assert not prepared.shard_manifest(1).exists()
    first, second = (read(prepared.shard_manifest(shard), ShardManifest).seconds["start"] for shard in (0, 2))
    assert first > 9999 > second


def test_a_tokenizer_that_changed_is_noticed(prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedkit.model.tokenizer import TokenIds, load_tokenizer

    class Longer:
        name = "longer"

        def __init__(self, model: Path, prefix: str) -> None:
            self._inner = load_tokenizer(model, prefix)

        def encode(self, texts: Sequence[str]) -> TokenIds:
            ids = self._inner.encode(texts)
            return TokenIds(np.append(ids.ids, ids.ids[-1:]), np.append(ids.offsets[:-1], ids.offsets[-1] + 1))

    monkeypatch.setattr(embedkit.embed.inputs, "load_tokenizer", Longer)
    with pytest.raises(EmbedkitError, match=r"row \d+: \d+ tokens now, \d+ when it was prepared"):
        embed_shards(prepared, [1])


def test_a_model_that_changed_is_noticed(small_chats: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tokenizer_only, model)
    command("prepare", *hash_request(small_chats, model, tmp_path))
    (model / "tokenizer_config.json").write_text("{}")
    failed = command("embed", tmp_path / "run", check=False)
    assert failed.returncode == 1
    assert "its files are no longer those of the run's request (the run's -> now):\n" in failed.stderr
    assert "\n  model file  tokenizer_config.json  " in failed.stderr


def test_the_first_of_two_attempts_wins(damaged_run: RunFolder) -> None:
    folder, config = damaged_run.shard(0), read(damaged_run.config, RunConfig)
    first = read(folder / "manifest.json", ShardManifest)
    matrix = first.matrices["combined"]
    other = msgspec.structs.replace(matrix, file=msgspec.structs.replace(matrix.file, name="second.safetensors"))
    second = msgspec.structs.replace(first, attempt="second", matrices={"combined": other})
    shutil.copy(folder / matrix.file.name, folder / "second.safetensors")
    publish_manifest(damaged_run, read_plan(damaged_run, config), second)
    assert read(folder / "manifest.json", ShardManifest) == first
    assert (folder / matrix.file.name).exists()
    assert not (folder / "second.safetensors").exists()


def test_manifest_holds_request_and_engine(hash_run: RunFolder) -> None:
    manifest = read(hash_run.shard_manifest(0), ShardManifest)
    assert manifest.request == read(hash_run.config, RunConfig).request
    settings = EngineSettings(
        device="cpu", dtype="float32", max_length=1, chunk_tokens=1, token_budget=8192, max_sequences=1, eager=True
    )
    assert manifest.engine == HashEngine(settings).record
    assert manifest.tokens == sum(chunk.tokens for chunk in manifest.chunks)
