"""Seconds a row by GPU: the curves against what was measured, `python -m benchmarks.gpu.curve`'s own numbers."""

from dataclasses import replace

import numpy as np
import pytest

from embedkit.prepare.cost import CURVES, GPU_MODELS, LENGTHS, REFERENCE, CostModel, GpuModel, gpu_model

COST = CostModel("cuda", linear_flops=880_803_840.0, attention_flops=114_688.0)
"""Qwen3-Embedding-0.6B's."""

MICROSECONDS: dict[GpuModel, tuple[float, ...]] = {
    "h100": (188.61, 212.71, 302.19, 455.71, 731.67, 1318.23, 2561.64, 5459.74, 12318.9, 30864.9, 87077.2, 273558.6),
    "h200": (110.665, 139.829, 204.82, 258.836, 514.941, 1045.43, 2179.57, 4708.77, 10881.9, 27593.1, 77956.5, 248223),
}
"""A text of each of LENGTHS."""

TEXTS: dict[GpuModel, dict[int, int]] = {
    "h100": {16: 8192, 128: 3906, 1024: 488, 8192: 61, 32768: 24},
    "h200": dict(zip(LENGTHS, (8192, 8192, 8192, 4687, 2343, 1171, 585, 292, 146, 73, 36, 24), strict=True)),
}
"""How many texts of which lengths were embedded before the mixtures; the H100 of these is another one, elsewhere."""

MIXTURES: dict[GpuModel, tuple[tuple[float, float], ...]] = {
    "h100": ((325.3544, 5.029256), (3322.98, 6.352229), (10246.456, 6.702168)),
    "h200": ((334.4138, 3.521905), (3296.772, 5.766164), (10827.85, 6.55253)),
}
"""(mean length, seconds of all) of 5,000, 500 and 125 texts of log-normal lengths."""


def mixtures(gpu: GpuModel) -> list[np.ndarray]:
    """The lengths that were measured, from the generator and its seed."""
    rng = np.random.default_rng(0)
    for length, texts in TEXTS[gpu].items():
        for _ in range(texts):
            rng.integers(0, 50_000, length, dtype=np.uint32)
    found = []
    for mean, spread in ((200, 1.0), (2_000, 1.0), (8_000, 0.75)):
        lengths = np.clip(rng.lognormal(np.log(mean), spread, 1_000_000 // mean), 2, 32768).astype(np.int64)
        found.append(-np.sort(-lengths))
        for length in found[-1]:
            rng.integers(0, 50_000, length, dtype=np.uint32)
    return found


@pytest.mark.parametrize("gpu", GPU_MODELS)
def test_predictions_at_measured_lengths_are_the_measurements(gpu: GpuModel) -> None:
    predicted = replace(COST, gpu=gpu).seconds(np.array(LENGTHS)) * 1e6
    np.testing.assert_allclose(predicted, MICROSECONDS[gpu], rtol=1e-3)


@pytest.mark.parametrize("gpu", GPU_MODELS)
def test_seconds_are_positive_and_grow_with_the_length(gpu: GpuModel) -> None:
    seconds = replace(COST, gpu=gpu).seconds(np.arange(1, 65_537))
    assert seconds[0] > CURVES[gpu].row_seconds > 0
    assert (np.diff(seconds) > 0).all()
    assert np.isfinite(replace(COST, gpu=gpu).seconds(np.array([0]))).all()


@pytest.mark.parametrize("gpu", GPU_MODELS)
def test_mixtures_are_predicted_within_5_percent(gpu: GpuModel) -> None:
    """Within 10 percent for short texts on an H100."""
    for lengths, (mean, measured) in zip(mixtures(gpu), MIXTURES[gpu], strict=True):
        assert lengths.mean() == pytest.approx(mean), "other lengths than those measured: does numpy draw otherwise?"
        near = 0.10 if gpu == "h100" and mean < 1000 else 0.05
        assert replace(COST, gpu=gpu).seconds(lengths).sum() == pytest.approx(measured, rel=near)


def test_a_plan_uses_the_reference_and_an_h100_is_slower() -> None:
    """The H100 is slower than the reference GPU at every length."""
    lengths = np.arange(1, 32_769)
    assert COST.gpu == REFERENCE == "h200"
    ratio = replace(COST, gpu="h100").seconds(lengths) / COST.seconds(lengths)
    assert 1.05 < ratio.min() < 1.15
    assert 2.0 < ratio.max() < 2.6


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("gpu:h100:4", "h100"),
        ("gpu:nvidia_h100_80gb_hbm3:1,lscratch:100", "h100"),
        ("H200", "h200"),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("gpu:h100_1g.10gb:1", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA A100-SXM4-80GB", None),
        ("gpu:4", None),
        ("", None),
    ],
)
def test_a_gpu_is_recognised_by_its_name(name: str, model: GpuModel | None) -> None:
    """Slices of a GPU, and slower cards of the same name, are not taken for it."""
    assert gpu_model(name) == model
