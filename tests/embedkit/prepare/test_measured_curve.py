"""Seconds by a curve of the user's own GPU, and however the model runs: by hand, and for any curve."""

from dataclasses import replace
from typing import get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.documents.codec import decode, digest, encode, sealed
from embedkit.documents.schema import Compile, Curve, PlanCurve
from embedkit.errors import EmbedkitError
from embedkit.prepare.cost import GPU_MODELS, CostModel, plan_curve, relative_speed
from embedkit.prepare.plan import compile_of, settings_of_device
from tests.support.curves import made_up_curve

QWEN = CostModel("cuda", linear_flops=880_803_840.0, attention_flops=114_688.0)
"""Qwen3-Embedding-0.6B's."""


def cost_of(curve: Curve, **changes: object) -> CostModel:
    """The costs of the curve's own model on its device."""
    cost = CostModel(curve.device, curve.linear_flops, curve.attention_flops, curve=curve)
    return replace(cost, **changes)  # type: ignore[arg-type]


def seconds(cost: CostModel, *tokens: int) -> list[float]:
    found: list[float] = cost.seconds(np.array(tokens)).tolist()
    return found


def test_measured_lengths_take_what_was_measured() -> None:
    """16, 256 and 4,096 tokens at 1,000, 2,000 and 1,000 tokens per second; half of that, at most, if eager."""
    curve = made_up_curve()
    assert seconds(cost_of(curve), 16, 256, 4096) == pytest.approx([0.016, 0.128, 4.096])
    assert seconds(cost_of(curve, compile="eager"), 16, 256, 4096) == pytest.approx([0.032, 0.256, 4.096])


def test_between_and_beyond_measured_lengths() -> None:
    """64 is the middle of 16 and 256: 0.016 x 8^(1/2) s. Shorter ones take no less; twice the longest twice as long."""
    cost = cost_of(made_up_curve())
    assert seconds(cost, 64, 1, 8192) == pytest.approx([0.016 * 8**0.5, 0.016, 8.192])


def test_another_model_takes_as_much_more_as_its_flops() -> None:
    """Three times the linear layers; and attention that takes as much as these at 256 tokens."""
    curve = made_up_curve()
    assert seconds(cost_of(curve, linear_flops=3e6), 16, 256) == pytest.approx([0.048, 0.384])
    attention = cost_of(curve, attention_flops=1e6 / 256)
    assert seconds(attention, 16, 256) == pytest.approx([0.016 * (1 + 16 / 256), 0.256])


def test_an_engine_that_was_not_measured_is_derived_from_the_other() -> None:
    """At 205 tokens an eager engine has 0.839 of the speed."""
    only = {"compiled": (1000.0,)}
    curve = made_up_curve(speeds=only, lengths=[205])
    assert seconds(cost_of(curve, compile="eager"), 205) == pytest.approx([0.205 / 0.839])
    curve = made_up_curve(speeds={"eager": (1000.0,)}, lengths=[205])
    assert seconds(cost_of(curve), 205) == pytest.approx([0.205 * 0.839])
    assert seconds(cost_of(curve, compile="eager"), 205) == pytest.approx([0.205])


def test_a_plan_has_fused_kernels_unless_the_curve_has_none() -> None:
    """They do not fit its GPU then, and the engine is eager or compiled, as the plan says."""
    settings = settings_of_device("cuda", "bfloat16", 512, eager=True, kernels="fused")
    fused = made_up_curve(speeds={"eager": (1000.0,), "fused": (2000.0,)}, lengths=[205])
    assert compile_of(settings) == compile_of(settings, fused) == "fused"
    assert compile_of(settings, made_up_curve()) == "eager"
    assert compile_of(msgspec.structs.replace(settings, eager=False), made_up_curve()) == "compiled"
    assert seconds(cost_of(fused, compile="fused"), 205) == pytest.approx([0.1025])


def test_transformers_is_as_fast_whatever_the_plan_says() -> None:
    """It compiles no model: its curve has an eager engine only."""
    curve = made_up_curve(speeds={"eager": (1000.0,)}, lengths=[205])
    of_transformers = msgspec.structs.replace(curve.engine, engine="transformers")
    engines = (msgspec.structs.replace(curve.engines[0], engine=of_transformers),)
    curve = msgspec.structs.replace(curve, engines=engines)
    assert seconds(cost_of(curve), 205) == seconds(cost_of(curve, compile="eager"), 205) == pytest.approx([0.205])


def test_a_longer_text_never_takes_less_by_noise() -> None:
    curve = made_up_curve(speeds={"compiled": (100.0, 10_000.0, 1000.0)})
    assert seconds(cost_of(curve), 16, 256, 4096) == pytest.approx([0.16, 0.16, 4.096])


def test_cpus_may_have_a_curve_too() -> None:
    curve = made_up_curve("", {"eager": (100.0, 100.0, 100.0)})
    assert curve.gpu == "a CPU"
    assert seconds(cost_of(curve, compile="eager"), 16, 256) == pytest.approx([0.16, 2.56])


def test_the_eager_engine_is_as_slow_as_measured() -> None:
    """docs/gpu.md: 0.839 at 205 tokens, 0.884 at 2,052, 0.919 at 7,379; between them by the length's logarithm."""
    lengths = np.array([0, 1, 205, 2052, 7379, 32_768])
    assert relative_speed("eager", lengths) == pytest.approx([0.839, 0.839, 0.839, 0.884, 0.919, 0.919])
    assert relative_speed("eager", np.array([649])) == pytest.approx([(0.839 + 0.884) / 2], abs=1e-4)
    ratio = QWEN.seconds(lengths) / replace(QWEN, compile="eager").seconds(lengths)
    assert ratio == pytest.approx(relative_speed("eager", lengths))


speeds = st.floats(1.0, 1e7)
ladder = st.lists(st.integers(1, 40_000), min_size=1, max_size=12, unique=True).map(sorted)


@st.composite
def costs(draw: st.DrawFn) -> CostModel:
    """Built-in and measured curves, however the model runs."""
    gpu, compile_ = draw(st.sampled_from(GPU_MODELS)), draw(st.sampled_from(get_args(Compile)))
    if draw(st.booleans()):
        return replace(QWEN, gpu=gpu, compile=compile_)
    lengths = draw(ladder)
    figures = {
        name: draw(st.lists(speeds, min_size=len(lengths), max_size=len(lengths)))
        for name in draw(st.sets(st.sampled_from(get_args(Compile)), min_size=1))
    }
    curve = made_up_curve(speeds=figures, lengths=lengths, linear_flops=QWEN.linear_flops, attention_flops=114_688.0)
    return cost_of(curve, compile=compile_)


@given(costs(), st.lists(st.integers(1, 65_536), min_size=2, max_size=50), st.integers(0, 50))
@settings(max_examples=300, deadline=None)
def test_costs_grow_with_length_and_add_up(cost: CostModel, tokens: list[int], cut: int) -> None:
    """A longer text never costs less, and rows together cost what they cost in two parts."""
    counts = np.array(tokens)
    found = cost.seconds(counts)
    assert (found > 0).all()
    assert np.isfinite(found).all()
    ordered = cost.seconds(np.sort(counts))
    assert (np.diff(ordered) >= -1e-12 * ordered[1:]).all()
    parts = cost.seconds(counts[:cut]).sum() + cost.seconds(counts[cut:]).sum()
    assert parts == pytest.approx(found.sum(), rel=1e-12)


def test_a_plan_names_its_curve() -> None:
    """None are the built-in ones of a compiled engine and of CPUs, which plans of earlier versions have."""
    assert plan_curve(QWEN) is None
    assert plan_curve(CostModel("cpu", 1.0, 0.0, compile="eager")) is None
    for name in ("eager", "fused"):
        assert plan_curve(replace(QWEN, compile=name)) == PlanCurve(gpu="NVIDIA H200", compile=name)
    curve = made_up_curve()
    found = PlanCurve(gpu="NVIDIA L4", compile="compiled", sha256=digest(curve))
    assert plan_curve(cost_of(curve)) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": []}, "its lengths do not ascend from at least 1 token"),
        ({"lengths": [0, 16, 32]}, "its lengths do not ascend"),
        ({"lengths": [16, 16, 32]}, "its lengths do not ascend"),
        ({"lengths": [16, 32]}, "its compiled engine has not one positive speed for each length"),
        ({"engines": []}, "its engines are not one of each of compiled, eager, fused, or some of them"),
        ({"linear_flops": 0.0}, "its model has no flops"),
        ({"attention_flops": -1.0}, "its model has no flops"),
        ({"model": 3}, "Expected `str`, got `int`"),
        ({"watts": 3}, "unknown field `watts`"),
    ],
)
def test_a_curve_that_predicts_nothing_is_refused(changes: dict[str, object], message: str) -> None:
    written = msgspec.to_builtins(made_up_curve()) | changes
    with pytest.raises(EmbedkitError, match=message):
        decode(sealed(msgspec.json.encode(written)), Curve, "curve.json")  # type: ignore[arg-type]


@pytest.mark.parametrize("speed", [0.0, -1.0])
def test_speeds_are_positive(speed: float) -> None:
    with pytest.raises(ValueError, match="its eager engine has not one positive speed for each length"):
        made_up_curve(speeds={"eager": (1.0, speed, 1.0)})


def test_engines_are_one_of_each_kind() -> None:
    curve = made_up_curve()
    with pytest.raises(ValueError, match="its engines are not one of each of compiled"):
        msgspec.structs.replace(curve, engines=curve.engines * 2)
    assert decode(encode(curve), Curve, "curve.json") == curve  # type: ignore[arg-type]
