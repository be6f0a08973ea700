"""A kernel that gives other numbers than plain torch is named when the engine starts. The kernels are torch's here."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.engines.fused.kernels import Heads, Layer
from embedkit.engines.fused.reference import ReferenceKernels
from embedkit.engines.fused.self_check import TOKENS, Embed, check_exact, check_kernels, kernel_errors
from embedkit.errors import EmbedkitError

EPS = 1e-6
HIDDEN, INNER, DIM = 64, 128, 16


@pytest.fixture
def layer() -> Layer:
    """Four heads of queries, two of keys, in bfloat16."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) / 8).bfloat16()

    return Layer(
        name="",
        heads=Heads(4, 2, DIM, drawn(2, DIM) + 1, EPS, drawn(100, DIM)),
        qkv=drawn(8 * DIM, HIDDEN),
        out=drawn(HIDDEN, 4 * DIM),
        gate_up=drawn(2 * INNER, HIDDEN),
        down=drawn(HIDDEN, INNER),
    )


def test_right_kernels_pass(layer: Layer) -> None:
    check_kernels(ReferenceKernels(), layer, EPS)
    assert set(kernel_errors(ReferenceKernels(), layer, EPS, TOKENS[0]).values()) == {0.0}


@pytest.mark.parametrize(
    ("method", "spoil", "name"),
    [
        ("row_scale", lambda scale: scale * 1.02, "the norm of rows"),
        ("heads_product", lambda heads: heads.roll(DIM, 1), "queries, keys and values"),
        ("attend", lambda attended: attended.flip(0), "attention"),
        ("attend_last", lambda attended: attended.flip(0), "attention of last tokens"),
        ("gated_product", lambda gated: gated.roll(1, 1), "SwiGLU"),
        ("added_product", lambda both: (both[0] + both[0].abs().max() / 50, both[1]), "the output"),
        ("added_product", lambda both: (both[0], both[1] * float("nan")), "the norm after them"),
    ],
)
def test_a_wrong_kernel_is_named(
    layer: Layer, method: str, spoil: Callable[[Any], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that gives NaN, whose error is no number."""
    right = getattr(ReferenceKernels, method)
    wrong = type("Wrong", (ReferenceKernels,), {method: lambda *given: spoil(right(*given))})
    with pytest.raises(EmbedkitError, match=f"^the fused kernel for {name} is wrong on this GPU: .* --kernels plain$"):
        check_kernels(wrong(), layer, EPS)


def fake_engine(error: Callable[[int, int], float]) -> tuple[Embed, list[int]]:
    """An engine whose vectors are off by `error` of a text's tokens and the number of texts beside it."""
    longest: list[int] = []

    def embed(texts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        longest.append(max(map(len, texts)))
        return np.array([[len(text) + error(len(text), len(texts))] for text in texts], np.float32)

    return embed, longest


def test_a_fake_engine_whose_vectors_depend_on_the_batch_fails() -> None:
    embed, longest = fake_engine(lambda tokens, texts: 0.0)
    check_exact(embed, 900)
    assert max(longest) == 900
    embed, _ = fake_engine(lambda tokens, texts: 2**-12 if (tokens, texts) == (20, 1) else 0.0)
    with pytest.raises(EmbedkitError, match=r"^--exact: on this GPU a text of 20 tokens has another vector alone"):
        check_exact(embed, 32_768)
