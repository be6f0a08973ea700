"""Flops and seconds of a row, computed by hand from the shapes of two models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedkit.prepare.cost import CostModel, model_cost
from tests.support.weights import QWEN_CONFIG, qwen3_06b, write_shapes

QWEN = CostModel("cuda", linear_flops=880_803_840.0, attention_flops=114_688.0)


def test_flops_of_qwen_leave_out_its_embeddings(tmp_path: Path) -> None:
    """28 layers of 15,730,944 parameters and a last norm of 1,024: 440,467,456. A token takes two flops for each.

    Attention: two products of n x n x 128 numbers, two flops each, for 16 heads in 28 layers; half of it, as causal.
    """
    cost = model_cost(qwen3_06b(tmp_path / "qwen"), "cuda", "vllm")
    assert cost.linear_flops == 880_934_912
    assert cost.attention_flops == 4 * 128 * 16 * 28 / 2 == 114_688
    assert (cost.device, cost.gpu) == ("cuda", "h200")
    assert cost.flops(np.array([1, 2, 1000])).tolist() == [881_049_600, 1_762_328_576, 995_622_912_000]


def test_flops_of_minilm_are_those_of_an_encoder(minilm: Path) -> None:
    """Six layers of 1,774,464 parameters and a pooler of 147,840. It attends both ways: 4 x 32 x 12 x 6 flops."""
    cost = model_cost(minilm, "cpu", "transformers")
    assert cost.linear_flops == 2 * (6 * 1_774_464 + 147_840) == 21_589_248
    assert cost.attention_flops == 9_216


@pytest.mark.parametrize(
    ("changes", "flops"),
    [
        ({"head_dim": 64}, 57_344),
        ({"num_attention_heads": 8}, 57_344),
        ({"num_hidden_layers": 14}, 57_344),
        ({"head_dim": None}, 57_344),  # 1024 / 16 = 64
        ({"head_dim": None, "hidden_size": 4096, "num_attention_heads": 32}, 229_376),  # 128 numbers each
        ({"type_vocab_size": 2}, 229_376),
        ({"num_attention_heads": 0, "head_dim": None}, 0),
    ],
)
def test_attention_follows_the_models_config(changes: dict[str, object], flops: int, tmp_path: Path) -> None:
    model = write_shapes(tmp_path / "model", {"a.weight": [3, 5]}, QWEN_CONFIG | changes)
    cost = model_cost(model, "cpu", "vllm")
    assert (cost.linear_flops, cost.attention_flops) == (30, flops)


@pytest.mark.parametrize("missing", ["num_attention_heads", "num_hidden_layers"])
def test_attention_that_a_config_does_not_describe_is_free(missing: str, tmp_path: Path) -> None:
    config = {name: value for name, value in QWEN_CONFIG.items() if name != missing}
    assert model_cost(write_shapes(tmp_path, {"a.weight": [3]}, config), "cpu", "vllm").attention_flops == 0


def test_the_hash_engine_takes_one_flop_per_token(tmp_path: Path) -> None:
    cost = model_cost(qwen3_06b(tmp_path / "qwen"), "cpu", "hash")
    assert (cost.linear_flops, cost.attention_flops) == (1, 0)


def test_seconds_on_a_cpu_are_flops_at_80_billion_per_second() -> None:
    """100 tokens of MiniLM: 2,158,924,800 + 92,160,000 flops take 28.1 ms; a row takes 1 ms more, however short."""
    cost = CostModel("cpu", linear_flops=21_589_248, attention_flops=9_216)
    assert cost.seconds(np.array([100]))[0] == pytest.approx(0.029_138_56, rel=1e-9)
    assert cost.seconds(np.array([0]))[0] == 1e-3


def test_seconds_on_a_gpu_follow_its_curve_between_lengths() -> None:
    """24 tokens: the rate lies between those of 16 and 32, by logarithm: 232.79 + 0.585 x 82.29 = 280.93 Tflops.

    Below 16 and above 32,768 tokens it is that of the nearest length. A row takes 50 us more.
    """
    seconds = QWEN.seconds(np.array([24, 1, 65_536]))
    assert seconds * 1e6 == pytest.approx([125.483_614, 53.784_177, 898_493.404_5], rel=1e-6)
    h100 = replace(QWEN, gpu="h100").seconds(np.array([1]))[0]
    assert h100 == pytest.approx(880_918_528 / 240.92e12 + 130e-6, rel=1e-9)


def test_seconds_have_the_shape_of_the_counts() -> None:
    counts = np.array([[24, 1], [1, 24]])
    assert QWEN.seconds(counts).shape == QWEN.flops(counts).shape == (2, 2)
    assert QWEN.seconds(counts)[0].tolist() == QWEN.seconds(counts)[1, ::-1].tolist()
