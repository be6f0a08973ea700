"""A chunk's texts go through the engine longest first, and each vector comes back to its row."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents.schema import EngineSettings
from embedkit.embed.batch import embed_batch, embed_chunk, make_batch
from embedkit.embed.inputs import ChunkInput
from embedkit.engines.hash import HashEngine
from embedkit.errors import EmbedkitError
from tests.embedkit.embed.test_checks import texts

SETTINGS = EngineSettings(
    device="cpu", dtype="float32", max_length=8, chunk_tokens=9, token_budget=9, max_sequences=9, eager=True
)
CHUNK = ChunkInput(20, 23, np.array([50, 60, 70]), {"think": texts(2, 0, 5), "response": texts(3, 2, 0)})


def test_texts_of_all_views_are_in_one_batch_longest_first() -> None:
    """Texts of one length keep their order, and the two empty ones are left out."""
    batch = make_batch(CHUNK)
    assert batch.order.tolist() == [2, 3, 0, 4]
    assert [ids.tolist() for ids in batch.token_ids] == [[3, 4, 5, 6, 7], [1, 2, 3], [1, 2], [4, 5]]


def test_vectors_come_back_to_their_row_and_view() -> None:
    engine = HashEngine(SETTINGS)
    found = embed_chunk(engine, CHUNK)
    assert list(found) == ["think", "response"]
    for view, lengths in (("think", (2, 0, 5)), ("response", (3, 2, 0))):
        ids, at = texts(*lengths), CHUNK.token_ids[view]  # type: ignore[index]
        assert np.array_equal(ids.ids, at.ids)
        for row, length in enumerate(lengths):
            alone = engine.embed([ids[row]])[0] if length else np.zeros(64, np.float32)
            assert np.array_equal(found[view][row], alone)  # type: ignore[index]


def test_a_fake_engine_that_fails_is_named_by_rows_and_ids() -> None:
    class Failing(HashEngine):
        def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
            raise ValueError("no")

    with pytest.raises(EmbedkitError, match=r"^the engine failed on rows 50 to 70 \(ids 20 to 22\): ValueError: no$"):
        embed_chunk(Failing(SETTINGS), CHUNK)


@pytest.mark.parametrize("shape", [(3, 64), (5, 64), (4, 63), (4, 65)])
def test_a_fake_engine_with_a_wrong_shape_is_refused(shape: tuple[int, int]) -> None:
    class Short(HashEngine):
        def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
            return np.ones(shape, np.float32)

    with pytest.raises(EmbedkitError, match=r"for rows 50 to 70; expected \(4, 64\)$"):
        embed_batch(Short(SETTINGS), CHUNK, make_batch(CHUNK))
