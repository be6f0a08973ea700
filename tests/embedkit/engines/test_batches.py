"""Twenty texts over a small budget give each text its own vector, in every real engine. vLLM: test_vllm.py."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents.schema import EngineName, EngineSettings
from embedkit.engines import Engine, start_engine

LENGTHS = (5, 20, 1, 13, 17, 2, 11, 9, 8, 9, 7, 6, 6, 5, 13, 4, 4, 3, 1, 2)
SMALL = EngineSettings(
    device="cpu", dtype="float32", max_length=20, chunk_tokens=1, token_budget=40, max_sequences=4, eager=True
)


def texts(first: int) -> list[npt.NDArray[np.uint32]]:
    return [np.arange(first + 20 * i, first + 20 * i + n, dtype=np.uint32) for i, n in enumerate(LENGTHS)]


@pytest.fixture(params=["hash", "transformers"])
def engine(request: pytest.FixtureRequest, minilm: Path) -> Engine:
    name: EngineName = request.param
    return start_engine(name, minilm, SMALL)


def test_texts_of_many_batches_get_their_own_vectors(engine: Engine) -> None:
    """In any order, and again in a second call."""
    ids = texts(1000)
    alone = np.concatenate([engine.embed([one]) for one in ids])
    for order in (slice(None), slice(None, None, -1)):
        found = engine.embed(ids[order])
        assert (found.shape, found.dtype) == ((20, engine.record.dim), np.float32)
        assert np.abs(found - alone[order]).max() <= 1e-6
    assert len(np.unique(alone.round(4), axis=0)) == 20
    assert (engine.record.token_budget, engine.record.dtype) == (40, "float32")
    engine.close()
