"""Which models and machines the fused kernels fit."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from embedkit.documents.schema import EngineSettings
from embedkit.engines.fused import fit, inexact, misfit, misfit_here
from embedkit.engines.vllm import fitting_settings
from embedkit.errors import EmbedkitError
from tests.support.models import make_tiny_qwen

QWEN: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "use_sliding_window": False,
    "rope_scaling": None,
}
"""Of Qwen3-Embedding-0.6B, as far as it matters."""


def reason(folder: Path, changes: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(QWEN | changes))
    return misfit(folder, "bfloat16")


def test_qwen3_embedding_fits(tmp_path: Path) -> None:
    assert reason(tmp_path, {}) == ""
    assert reason(tmp_path, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}) == ""
    assert misfit(tmp_path, "float16") == "--dtype float16: they compute in bfloat16"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"architectures": ["Qwen2ForCausalLM"]}, "config.json: architectures ['Qwen2ForCausalLM']"),
        ({"architectures": None}, "config.json: architectures None"),
        ({"attention_bias": True}, "config.json: attention_bias True"),
        ({"head_dim": 64}, "config.json: head_dim 64"),
        ({"hidden_act": "gelu"}, "config.json: hidden_act gelu"),
        ({"hidden_size": 1000}, "config.json: hidden_size 1000"),
        ({"intermediate_size": None}, "config.json: intermediate_size None"),
        ({"num_attention_heads": 40}, "config.json: 40 heads of queries, 8 of keys"),
        ({"num_key_value_heads": None}, "config.json: 16 heads of queries, None of keys"),
        ({"is_causal": False}, "config.json: is_causal False"),
        ({"use_sliding_window": True}, "config.json: use_sliding_window True"),
        ({"quantization_config": {"quant_method": "fp8"}}, "config.json: quantization_config {'quant_method': 'fp8'}"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "config.json: rope_type yarn"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "config.json: rope_type yarn"),
    ],
)
def test_what_the_kernels_do_not_do_is_named(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert reason(tmp_path, changes) == expected


def test_what_makes_vectors_depend_on_the_batch_is_named(tmp_path: Path) -> None:
    """Fused kernels are exact with the pooling of the last token, if no product of texts follows it."""
    make_tiny_qwen(tmp_path)
    assert inexact(tmp_path) == ""
    pooling = tmp_path / "1_Pooling" / "config.json"
    config = json.loads(pooling.read_text()) | {"pooling_mode_lasttoken": False, "pooling_mode_mean_tokens": True}
    pooling.write_text(json.dumps(config))
    assert inexact(tmp_path) == "the pooling mean"


def test_a_dense_module_makes_vectors_depend_on_the_batch(tmp_path: Path) -> None:
    """torch sums a product of a few rows in another order than one of many."""
    make_tiny_qwen(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text())
    dense = {"idx": len(modules), "name": "dense", "path": "dense", "type": "sentence_transformers.models.Dense"}
    (tmp_path / "modules.json").write_text(json.dumps([*modules, dense]))
    (tmp_path / "dense").mkdir()
    (tmp_path / "dense" / "config.json").write_text(json.dumps({"in_features": 64, "out_features": 8}))
    assert inexact(tmp_path) == "the module Dense"


def test_a_gpu_without_fused_kernels_gets_plain_ones_unless_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    monkeypatch.setattr("embedkit.engines.vllm.misfit_here", lambda: "quack-kernels 0.5.0 is not installed")
    settings = EngineSettings(
        device="cuda",
        dtype="bfloat16",
        max_length=512,
        chunk_tokens=1,
        token_budget=512,
        max_sequences=64,
        eager=False,
        kernels="fused",
    )
    assert fitting_settings(tmp_path, settings) == structs.replace(settings, kernels="plain")
    assert "fused kernels do not fit here (quack-kernels 0.5.0 is not installed): plain kernels" in caplog.text
    with pytest.raises(EmbedkitError, match=r"^--exact: fused kernels do not fit here .* Request Hopper GPUs, or make"):
        fitting_settings(tmp_path, structs.replace(settings, exact=True))


@pytest.mark.parametrize("heads", [(32, 8, 2560, 9728), (32, 8, 4096, 12288), (64, 8, 5120, 25600)])
def test_the_shapes_of_larger_qwen3_fit(heads: tuple[int, int, int, int], tmp_path: Path) -> None:
    names = ("num_attention_heads", "num_key_value_heads", "hidden_size", "intermediate_size")
    assert reason(tmp_path, dict(zip(names, heads, strict=True))) == ""


@pytest.mark.parametrize(
    ("quack", "hip", "capability", "expected"),
    [
        (None, None, (9, 0), "quack-kernels 0.5.0 is not installed"),
        ("0.6.5", None, (9, 0), "quack-kernels 0.5.0 is not installed, but 0.6.5"),
        (fit.VERSION, None, (9, 0), ""),
        (fit.VERSION, None, (9, 0), "this vLLM was built without FlashAttention 3"),
        (fit.VERSION, None, (8, 0), "NVIDIA A100 has compute capability 8.0, not 9.0 (Hopper)"),
        (fit.VERSION, None, (10, 0), "NVIDIA B200 has compute capability 10.0, not 9.0 (Hopper)"),
        (fit.VERSION, "7.0", (9, 0), "AMD Instinct MI250X is no GPU of NVIDIA"),
    ],
)
def test_a_fake_machine_must_be_a_hopper_with_quack(
    quack: str | None,
    hip: str | None,
    capability: tuple[int, int],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AMD's MI250X has the capability (9, 0), too."""
    import torch

    name = expected.partition(" has ")[0].partition(" is ")[0]
    found = SimpleNamespace(version=quack) if quack else None
    monkeypatch.setattr(fit, "find_distribution", lambda package: found)
    built = SimpleNamespace(is_fa_version_supported=lambda version: version == 3 and not expected)
    monkeypatch.setitem(sys.modules, "vllm.vllm_flash_attn", built)
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert misfit_here() == expected
