"""The canary just inside and just outside its tolerance, for each dtype, wherever two canaries are compared."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import embedkit.check.preflight
import embedkit.embed.stage
from embedkit.check.preflight import preflight
from embedkit.documents.codec import read, write
from embedkit.documents.schema import Canary, Dtype, EngineRecord, EngineSettings, ShardManifest
from embedkit.embed.canary import canary_distance, canary_inputs, canary_problems, embed_canary
from embedkit.embed.stage import embed_shards
from embedkit.engines.hash import HashEngine
from embedkit.errors import CanaryMoved, EmbedkitError, PreflightFailed
from embedkit.model.tokenizer import TokenIds
from embedkit.prepare.plan import engine_settings
from embedkit.run import RunFolder
from tests.embedkit.embed.test_checks import DTYPES, INSIDE, OUTSIDE
from tests.embedkit.embed.test_shard_file import RECORD, Attempts, chunk, vectors
from tests.embedkit.embed.test_shard_task import small_plan

SOUND: dict[Dtype, float] = {"float32": 1e-5, "bfloat16": 1e-3, "float16": 1e-3}
"""The largest distance between canaries of sound tasks, relative to their length: as measured, in the docs."""
TEXTS = np.array([[3, 4], [0, 2], [1, 0]], np.float32)

in_each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def record(dtype: Dtype, dim: int = 2) -> EngineRecord:
    return msgspec.structs.replace(RECORD, dtype=dtype, dim=dim)


def moved(distance: float, text: int = 1) -> bytes:
    """The canary with one text's vector longer by this share."""
    canary = TEXTS.copy()
    canary[text] *= np.float32(1 + distance)
    return canary.tobytes()


def test_distance_is_the_furthest_texts_by_its_length() -> None:
    """(3, 4) moved by (0.3, 0.4) is a tenth of its length away; (0, 2) moved to (1, 2) is half of its length away."""
    engine = record("float32")
    assert canary_distance(TEXTS.tobytes(), TEXTS.tobytes(), engine) == 0.0
    near = TEXTS + np.array([[0.3, 0.4], [0, 0], [0, 0]], np.float32)
    assert canary_distance(near.tobytes(), TEXTS.tobytes(), engine) == pytest.approx(0.1)
    far = near + np.array([[0, 0], [1, 0], [0, 0]], np.float32)
    assert canary_distance(far.tobytes(), TEXTS.tobytes(), engine) == pytest.approx(0.5)
    assert canary_distance(TEXTS.tobytes(), (2 * TEXTS).tobytes(), engine) == pytest.approx(0.5)  # of the second's
    assert canary_distance((2 * TEXTS).tobytes(), TEXTS.tobytes(), engine) == pytest.approx(1.0)


@pytest.mark.parametrize("other", [b"", TEXTS[:2].tobytes(), (TEXTS * np.nan).tobytes(), (TEXTS * 0).tobytes()])
def test_canaries_that_cannot_be_compared_are_far_apart(other: bytes) -> None:
    with np.errstate(all="ignore"):
        assert canary_distance(TEXTS.tobytes(), other, record("float32")) == float("inf")
        assert canary_distance(b"", b"", record("float32")) == float("inf")


@in_each_dtype
@pytest.mark.parametrize("which", ["before", "after"])
def test_merge_and_verify_name_a_shard_beyond_the_tolerance(which: str, dtype: Dtype, hash_run: RunFolder) -> None:
    """Five shards, of which shard 3 is away from the median."""
    one = read(hash_run.shard_manifest(0), ShardManifest)

    def problems(distance: float) -> dict[int, str]:
        sound = Canary(tokens=(1, 1, 1), before=TEXTS.tobytes(), after=TEXTS.tobytes())
        away = msgspec.structs.replace(sound, **{which: moved(distance)})
        found = [
            msgspec.structs.replace(one, shard=shard, engine=record(dtype), canary=away if shard == 3 else sound)
            for shard in range(5)
        ]
        return canary_problems(found)

    assert problems(INSIDE * SOUND[dtype]) == {}
    assert list(problems(OUTSIDE * SOUND[dtype])) == [3]
    assert problems(OUTSIDE * SOUND[dtype])[3].startswith(f"its canary is {OUTSIDE * SOUND[dtype]:.2g} away (host ")


@pytest.mark.parametrize("odd", [b"", b"xyz", TEXTS[:2].tobytes(), TEXTS.tobytes()[:-4]])
def test_a_canary_of_an_odd_size_is_named_and_does_not_count(odd: bytes, hash_run: RunFolder) -> None:
    """It is neither part of the median nor the end of the comparison."""
    one = read(hash_run.shard_manifest(0), ShardManifest)
    sound = Canary(tokens=(1, 1, 1), before=TEXTS.tobytes(), after=TEXTS.tobytes())
    broken = msgspec.structs.replace(sound, after=odd)
    found = [
        msgspec.structs.replace(one, shard=shard, engine=record("float32"), canary=broken if shard == 1 else sound)
        for shard in range(3)
    ]
    assert list(canary_problems(found)) == [1]
    assert canary_problems(found)[1].startswith("its canary is inf away")


def test_the_median_is_of_the_shards_on_the_same_engine(hash_run: RunFolder) -> None:
    """Two of five shards are far away, each in its own direction; on another engine the same two agree."""
    one = read(hash_run.shard_manifest(0), ShardManifest)

    def manifest(shard: int, canary: bytes, gpu: str = "") -> ShardManifest:
        found = Canary(tokens=(1, 1, 1), before=canary, after=canary)
        engine = msgspec.structs.replace(record("float32"), gpu=gpu)
        return msgspec.structs.replace(one, shard=shard, engine=engine, canary=found)

    sound = [manifest(shard, TEXTS.tobytes()) for shard in (0, 2, 4)]
    assert sorted(canary_problems([*sound, manifest(1, moved(9)), manifest(3, moved(-0.9))])) == [1, 3]
    assert canary_problems([*sound, manifest(1, moved(9), "A100"), manifest(3, moved(9), "A100")]) == {}


@in_each_dtype
def test_chunks_are_adopted_within_the_tolerance(dtype: Dtype, tmp_path: Path) -> None:
    engine = msgspec.structs.replace(RECORD, dtype=dtype)
    canary = np.ones((3, RECORD.dim), np.float32)
    attempts = Attempts(tmp_path / "00003")
    with attempts.start(engine=engine, canary=canary.tobytes()) as first:
        first.append(chunk(100), {"combined": vectors(100)})
    with attempts.start(engine=engine, canary=(canary * np.float32(1 + OUTSIDE * SOUND[dtype])).tobytes()) as far:
        assert far.adopted == 0
    with attempts.start(engine=engine, canary=(canary * np.float32(1 + INSIDE * SOUND[dtype])).tobytes()) as near:
        assert near.adopted == 1


class Drifting(HashEngine):
    """A fake of a GPU that drifts: after some calls with one text, these texts' vectors are longer by a share."""

    def __init__(self, settings: EngineSettings, dtype: Dtype, sound_calls: int, share: float) -> None:
        super().__init__(settings)
        self.record = msgspec.structs.replace(self.record, dtype=dtype)
        self.sound_calls, self.share = sound_calls, share

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        found = super().embed(token_ids)
        if len(token_ids) > 1:
            return found
        self.sound_calls -= 1
        return found if self.sound_calls >= 0 else found * np.float32(1 + self.share)


Start = Callable[[str, Path, EngineSettings], HashEngine]


def drifting(dtype: Dtype, sound_calls: int, share: float) -> Start:
    return lambda name, model, settings: Drifting(settings, dtype, sound_calls, share)


@in_each_dtype
def test_a_fake_gpu_may_drift_by_the_tolerance_in_a_task(
    dtype: Dtype, prepared_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(prepared_run.plan, small_plan(prepared_run, 60)[1])
    monkeypatch.setattr(embedkit.embed.stage, "start_engine", drifting(dtype, 3, OUTSIDE * SOUND[dtype]))
    with pytest.raises(
        CanaryMoved, match=rf"^shard 0: .* moved by {OUTSIDE * SOUND[dtype]:.2g} .*\(tolerance {SOUND[dtype]:g}\)"
    ):
        embed_shards(prepared_run, [0])
    assert list(prepared_run.shard(0).iterdir()) == []
    monkeypatch.setattr(embedkit.embed.stage, "start_engine", drifting(dtype, 3, INSIDE * SOUND[dtype]))
    embed_shards(prepared_run, [0])
    assert prepared_run.shard_manifest(0).exists()


@in_each_dtype
def test_a_fake_gpu_may_drift_by_the_tolerance_in_a_preflight(
    dtype: Dtype, prepared_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedkit.check.preflight, "start_engine", drifting(dtype, 3, OUTSIDE * SOUND[dtype]))
    with pytest.raises(
        PreflightFailed, match=rf"canary: .* that are {OUTSIDE * SOUND[dtype]:.2g} apart \(tolerance {SOUND[dtype]:g}\)"
    ):
        preflight(prepared_run)
    assert not prepared_run.preflight.exists()
    monkeypatch.setattr(embedkit.check.preflight, "start_engine", drifting(dtype, 3, INSIDE * SOUND[dtype]))
    assert dict(preflight(prepared_run).checks)["canary"].startswith("3 texts embedded twice")


class OneTokenAWord:
    """A tokenizer whose ids are 1, 2, 3 and so on, and 9 at the end."""

    name = "fake"
    texts: Sequence[str] = ()

    def encode(self, texts: Sequence[str]) -> TokenIds:
        self.texts = texts
        ids = [np.array([*range(1, len(text.split()) + 1), 99_999], np.uint32) for text in texts]
        return TokenIds(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        return self.encode(texts).lengths


@pytest.mark.parametrize(("device", "longest"), [("cpu", (256, 1024)), ("cuda", (2048, 8192))])
def test_canary_texts_are_cut_and_keep_their_last_id(
    device: str, longest: tuple[int, int], hash_run: RunFolder
) -> None:
    """The last id ends a text in many models."""
    request = read(hash_run.shard_manifest(0), ShardManifest).request
    settings = engine_settings(msgspec.structs.replace(request, device=device, max_length=20_000))
    found = canary_inputs(OneTokenAWord(), settings)
    assert [len(ids) for ids in found] == [16, *longest]
    assert [ids[-1] for ids in found] == [99_999] * 3
    for ids in found[1:]:
        assert ids[:-1].tolist() == list(range(1, len(ids)))
    cut = canary_inputs(OneTokenAWord(), msgspec.structs.replace(settings, max_length=10))
    assert [ids.tolist() for ids in cut] == [[1, 2, 3, 4, 5, 6, 7, 8, 9, 99_999]] * 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_canary_texts_are_those_of_earlier_versions(device: str, hash_run: RunFolder) -> None:
    """Canaries are compared with those of shards that an earlier version embedded."""
    tokenizer, request = OneTokenAWord(), read(hash_run.shard_manifest(0), ShardManifest).request
    canary_inputs(tokenizer, engine_settings(msgspec.structs.replace(request, device=device)))
    short, long = tokenizer.texts
    assert short == "A canary sings before the miners go down, and once more when they come up."
    first = " ".join(long.split(" ")[:256])
    assert first.startswith("river down, the more up. down, before \n\n down, come river be")
    assert hashlib.sha256(first.encode()).hexdigest()[:16] == "90628d608199ca13"


def test_the_canarys_texts_go_to_a_fake_engine_one_by_one() -> None:
    """A batch of several would give other vectors on a GPU. A vector that is not finite is refused."""
    calls: list[list[int]] = []

    class Spy(HashEngine):
        value = 0.0

        def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
            calls.append([len(ids) for ids in token_ids])
            return super().embed(token_ids) + np.float32(self.value)

    settings = EngineSettings(
        device="cpu", dtype="float32", max_length=8, chunk_tokens=9, token_budget=9, max_sequences=9, eager=True
    )
    inputs = [np.arange(length, dtype=np.uint32) for length in (2, 5, 8)]
    engine = Spy(settings)
    assert np.array_equal(
        embed_canary(engine, inputs), np.concatenate([HashEngine(settings).embed([i]) for i in inputs])
    )
    assert calls == [[2], [5], [8]]
    for engine.value in (np.nan, np.inf):
        with pytest.raises(EmbedkitError, match="no finite vectors even for the canary's texts"):
            embed_canary(engine, inputs)
