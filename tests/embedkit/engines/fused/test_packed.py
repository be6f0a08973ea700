"""Texts packed into batches, with a stand-in for the model: order, borders and what is refused."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.engines.fused import packed
from embedkit.engines.fused.kernels import SHORT_TOKENS, Texts
from embedkit.engines.fused.packed import PackedTexts, batch_borders

BUDGET, LIMIT, IDS = 1000, 900, 50


class FakeModel:
    """A state has the text's length, its first id, and the place of its last token."""

    config = SimpleNamespace(vocab_size=IDS)

    def __init__(self) -> None:
        self.batches: list[Texts] = []

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def last_states(self, input_ids: torch.Tensor, positions: torch.Tensor, texts: Texts) -> torch.Tensor:
        self.batches.append(texts)
        starts = texts.starts.long()
        assert positions.tolist() == [place for n in starts.diff().tolist() for place in range(n)]
        columns = (starts.diff(), input_ids[starts[:-1]], positions[starts[1:] - 1])
        return torch.stack(columns, 1).float()


def packed_texts() -> tuple[PackedTexts, FakeModel]:
    model = FakeModel()
    return PackedTexts(model, lambda states, mask: states[:, 0], BUDGET, LIMIT), model


def text(length: int, first: int = 0) -> npt.NDArray[np.uint32]:
    return np.full(length, first, np.uint32)


@given(st.lists(st.tuples(st.integers(1, LIMIT), st.integers(0, IDS - 1)), min_size=1, max_size=60))
def test_a_fake_model_gives_each_text_its_own_vector(wanted: list[tuple[int, int]]) -> None:
    """In any order and number. Batches keep to the budget, with the long texts at the front."""
    engine, model = packed_texts()
    found = engine.embed([text(length, first) for length, first in wanted])
    assert found.dtype == np.float32
    assert found.tolist() == [[length, first, length - 1] for length, first in wanted]
    for texts in model.batches:
        lengths = texts.starts.diff().tolist()
        assert sum(lengths) <= BUDGET
        assert lengths == sorted(lengths, reverse=True)
        assert texts.longest == lengths[0]
        long = [length for length in lengths if length > SHORT_TOKENS]
        assert (texts.long_texts, texts.long_tokens) == (len(long), sum(long))


def test_a_batch_has_no_more_texts_than_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MOST_TEXTS", 3)
    assert list(batch_borders([1] * 7, BUDGET)) == [(0, 3), (3, 6), (6, 7)]
    assert list(batch_borders([600, 400, 1], BUDGET)) == [(0, 2), (2, 3)]
    assert list(batch_borders([], BUDGET)) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (text(0), "text 1 of this call has 0 tokens, not 1 to 900"),
        (text(LIMIT + 1), "text 1 of this call has 901 tokens, not 1 to 900"),
        (text(3, IDS), "text 1 of this call has the token id 50; the model has 50"),
    ],
)
def test_what_is_outside_of_a_fake_models_tables_is_refused(bad: npt.NDArray[np.uint32], message: str) -> None:
    engine, model = packed_texts()
    with pytest.raises(ValueError, match=f"^{message}$"):
        engine.embed([text(3), bad, text(4)])
    assert not model.batches
    assert engine.embed([text(3)]).tolist() == [[3, 0, 2]]
