"""The hash engine: unit vectors that depend on the ids alone and are the same bits everywhere."""

import hashlib

import numpy as np

from embedkit.documents import EngineSettings
from embedkit.engines import start_engine
from embedkit.engines.hash import HashEngine

SETTINGS = EngineSettings(
    device="cpu",
    dtype="float16",
    max_length=8,
    chunk_tokens=9,
    token_budget=77,
    max_sequences=4,
    eager=True,
)

GOLDEN = "134d97c71fa34ff8f94efec5a2dabf1340b97600b07bf6a51d11973e15ee507b"


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint32)


def test_vectors_are_those_of_the_ids() -> None:
    engine = HashEngine(SETTINGS)
    vectors = engine.embed([ids(1, 2), ids(2, 1), ids(1, 2), ids(7)])
    assert (vectors.shape, vectors.dtype) == ((4, 64), np.float32)
    assert np.array_equal(vectors[0], vectors[2])
    assert len({row.tobytes() for row in vectors}) == 3
    assert np.allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-7)
    assert np.array_equal(engine.embed([ids(7)])[0], vectors[3])
    assert (vectors > 0).any(axis=1).all()
    assert (vectors < 0).any(axis=1).all()
    assert abs(float(vectors.mean())) < 0.05  # 256 numbers around zero


def test_the_bits_are_the_same_on_any_machine() -> None:
    """As they were when the engine was made: runs of two versions can be compared."""
    vectors = HashEngine(SETTINGS).embed([ids(1, 2, 3), ids(4_000_000_000)])
    assert hashlib.sha256(vectors.tobytes()).hexdigest() == GOLDEN


def test_its_record_has_the_settings(tmp_path: object) -> None:
    engine = start_engine("hash", tmp_path, SETTINGS)  # type: ignore[arg-type]
    record = engine.record
    assert (record.engine, record.engine_version, record.dim) == ("hash", "1", 64)
    assert (record.dtype, record.token_budget) == ("float16", 77)
    assert (record.torch, record.cuda, record.gpu, record.attention, record.compile) == ("", "", "", "", "")
    engine.close()
