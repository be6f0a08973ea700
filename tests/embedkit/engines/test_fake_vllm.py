"""VllmEngine on a fake engine core: more texts than fit, errors in the middle, and too little memory."""

import glob
import json
import logging
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents.schema import EngineSettings
from embedkit.engines.vllm import ENVIRONMENT, VllmEngine, _packed_budget
from embedkit.errors import EmbedkitError, GpuHeld, UsageError
from tests.support.fake_vllm import FakeEngine, Faults, install, vectors_of
from tests.support.st_models import NORMALIZE, dense, edit_json, pooling, write_modules

BUDGET = 24
SETTINGS = EngineSettings(
    device="cpu", dtype="float32", max_length=20, chunk_tokens=1, token_budget=BUDGET, max_sequences=4, eager=True
)
QWEN = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 28}
"""Of Qwen3-Embedding-0.6B: 8 heads of 128 numbers, keys and values, in 28 layers."""
LENGTHS = (20, 17, 13, 13, 11, 9, 9, 8, 7, 6, 6, 5, 5, 4, 4, 3, 2, 2, 1, 1)
"""Twenty texts, longest first: 146 tokens, six budgets."""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder, and an environment that is put back: the engine sets variables for the whole process."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "cache"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(QWEN))
    return write_modules(tmp_path / "model", [pooling("lasttoken"), NORMALIZE])


def twenty_texts(first: int = 100) -> list[npt.NDArray[np.uint32]]:
    return [np.arange(first + i, first + i + length, dtype=np.uint32) for i, length in enumerate(LENGTHS)]


def started(model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[VllmEngine, FakeEngine]:
    install(monkeypatch)
    engine = VllmEngine(model, SETTINGS)
    core: FakeEngine = engine._engine
    core.steps, core.held, core.batches = 0, [], []
    return engine, core


def test_twenty_texts_over_a_fake_cores_budget_keep_their_order(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finishes them out of order and in pieces, and gets new ones as it finishes: never more than three budgets.

    At first it has one budget only, so that the GPU begins before all texts are there.
    """
    engine, core = started(model, monkeypatch)
    for texts in (twenty_texts(), twenty_texts(500)[::-1]):
        core.held, core.batches = [], []
        assert np.array_equal(engine.embed(texts), vectors_of(texts))
        assert core.requests == {}
        assert sum(core.batches) == 20
        assert len(core.batches) >= 6
        assert BUDGET <= core.held[0] < BUDGET + 20
        assert 2 * BUDGET < max(core.held) < 3 * BUDGET + 20


def test_a_fake_core_always_has_a_batch_waiting(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a GPU would wait for texts: while some are left, at least two budgets are there after the first step."""
    engine, core = started(model, monkeypatch)
    texts = twenty_texts() * 3
    assert np.array_equal(engine.embed(texts), vectors_of(texts))
    early = core.held[1 : len(core.held) // 2]
    assert min(early) >= 2 * BUDGET


def test_a_fake_core_gets_exactly_its_budgets(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of 8 tokens fill a budget of 24: three at first, then at most nine, and nine as long as there are some."""
    engine, core = started(model, monkeypatch)
    texts = [np.arange(i, i + 8, dtype=np.uint32) for i in range(24)]
    assert np.array_equal(engine.embed(texts), vectors_of(texts))
    assert core.held[:3] == [24, 72, 72]
    assert max(core.held) == 72
    assert core.batches == [3] * 8


def test_one_text_is_enough_and_vectors_are_float32(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = started(model, monkeypatch)
    found = engine.embed([np.array([7, 8], np.uint32)])
    assert (found.dtype, found.tolist()) == (np.float32, [[15.0, 2.0, 7.0, 8.0]])


@pytest.mark.parametrize("step", [1, 2, 4, 8])
@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), KeyboardInterrupt()])
def test_a_fake_core_that_raises_once_keeps_no_old_text(
    step: int, error: BaseException, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call must get the vectors of its own texts."""
    engine, core = started(model, monkeypatch)
    core.goes_wrong = Faults(raise_at_step=step, raises=error)
    with pytest.raises(type(error)):
        engine.embed(twenty_texts())
    assert core.requests == {}
    assert np.array_equal(engine.embed(twenty_texts(500)), vectors_of(twenty_texts(500)))


@pytest.mark.parametrize("text", [0, 7, 19])
def test_a_text_that_a_fake_core_refuses_is_not_kept(text: int, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM records a request before its core takes it. If the core raises, the record stays and must be removed."""
    engine, core = started(model, monkeypatch)
    core.goes_wrong = Faults(refuse=str(text))
    with pytest.raises(ValueError, match="ids of a wrong type"):
        engine.embed(twenty_texts())
    assert core.requests == {}
    core.goes_wrong = Faults()
    assert np.array_equal(engine.embed(twenty_texts(500)), vectors_of(twenty_texts(500)))


@pytest.mark.parametrize(
    ("goes_wrong", "message"),
    [
        (Faults(error_on="6"), "^vLLM failed on prompt 6 of this call: prompt too long$"),
        (Faults(lose="6"), "^vLLM has lost 1 of 20 texts$"),
    ],
)
def test_a_text_that_a_fake_core_fails_or_loses_is_named(
    goes_wrong: Faults, message: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, core = started(model, monkeypatch)
    core.goes_wrong = goes_wrong
    with pytest.raises(EmbedkitError, match=message):
        engine.embed(twenty_texts())
    core.goes_wrong = Faults()
    assert core.requests == {}
    assert np.array_equal(engine.embed(twenty_texts(500)), vectors_of(twenty_texts(500)))


def test_variables_of_a_user_are_kept_with_a_fake_engine(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are set. Compiled kernels, which are pickles, go into a folder of this user alone."""
    monkeypatch.setattr("embedkit.engines.vllm.CACHE", tmp_path / "own")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS")
    started(model, monkeypatch)
    assert (os.environ["VLLM_LOGGING_LEVEL"], os.environ["VLLM_NO_USAGE_STATS"]) == ("DEBUG", "1")
    assert os.environ["VLLM_CACHE_ROOT"] == str(tmp_path / "cache")
    assert not (tmp_path / "own").exists()
    monkeypatch.delenv("VLLM_CACHE_ROOT")
    started(model, monkeypatch)
    assert os.environ["VLLM_CACHE_ROOT"] == str(tmp_path / "own" / "vllm")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700


def test_a_fake_engine_is_recorded_and_closed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attention backends of its layers are named once each. On a CPU the torch of a GPU build has no CUDA."""
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    engine, core = started(model, monkeypatch)
    record = engine.record
    assert (record.engine, record.engine_version, record.torch) == ("vllm", "0.0.fake", torch.__version__)
    assert (record.attention, record.compile, record.dtype) == ("A,B", "eager", "float32")
    assert (record.cuda, record.gpu, record.token_budget, record.dim) == ("", "", BUDGET, 4)
    engine.close()
    assert core.closed == 1


class Small:
    """Starts fakes of engines on a GPU whose memory holds batches of so many tokens."""

    def __init__(self, tokens: int, message: str = "CUDA out of memory. Tried to allocate", late: bool = False) -> None:
        self.tokens, self.message, self.late = tokens, message, late
        self.engines: list[FakeEngine] = []

    def __call__(self, arguments: SimpleNamespace) -> FakeEngine:
        is_small = arguments.max_num_batched_tokens > self.tokens
        if is_small and not self.late:
            raise RuntimeError(self.message)
        self.engines.append(FakeEngine(arguments))
        if is_small:
            self.engines[-1].goes_wrong = Faults(raise_at_step=1, raises=RuntimeError(self.message))
        return self.engines[-1]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("message", ["CUDA out of memory.", "No available memory for the cache blocks."])
def test_a_fake_engine_without_memory_gets_half_the_budget(
    message: str, late: bool, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Again and again, down to the longest text. A failed start in its first call is closed before the next one."""
    small = Small(30, message, late)
    starts = install(monkeypatch, small)
    settings = msgspec.structs.replace(SETTINGS, token_budget=200)
    with caplog.at_level(logging.WARNING):
        engine = VllmEngine(model, settings)
    assert [start.max_num_batched_tokens for start in starts] == [200, 100, 50, 25]
    assert engine.record.token_budget == 25
    assert [core.closed for core in small.engines] == ([1, 1, 1, 0] if late else [0])
    assert f"the engine's start failed: {message}" in caplog.text
    assert "too little memory for batches of 50 tokens; starting again with 25." in caplog.text
    assert np.array_equal(engine.embed(twenty_texts()), vectors_of(twenty_texts()))
    assert max(small.engines[-1].held) < 3 * 25 + 20


def test_a_fake_packed_engine_halves_its_batches_unrecorded(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It begins with twice the budget. The size of a batch changes no vector, so all records have the plan's."""
    starts = install(monkeypatch)
    edit_json(model / "config.json", intermediate_size=3072)
    monkeypatch.setattr("embedkit.engines.vllm.fitting_settings", lambda model, settings: settings)
    monkeypatch.setattr("embedkit.engines.vllm._with_fused_model", lambda arguments: arguments)
    monkeypatch.setattr("embedkit.engines.vllm._packed", lambda *given: FakePacked(given[-1]))
    with caplog.at_level(logging.WARNING):
        engine = VllmEngine(model, msgspec.structs.replace(SETTINGS, token_budget=200, kernels="fused"))
    assert [start.max_num_batched_tokens for start in starts] == [400, 200, 100, 50]
    assert engine.record.token_budget == 200
    assert "too little memory for batches of 100 tokens; starting again with 50\n" in caplog.text


class FakePacked:
    """Runs out of memory if all texts of the first call, which fill a batch, have more than 60 tokens."""

    def __init__(self, token_budget: int) -> None:
        self.token_budget = token_budget

    def embed(self, texts: list[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        tokens = sum(map(len, texts))
        assert self.token_budget - 20 < tokens <= self.token_budget
        if tokens > 60:
            raise RuntimeError("CUDA out of memory.")
        return np.ones((len(texts), 4), np.float32)


@pytest.mark.parametrize(("widest", "tokens"), [(3072, 131_072), (12_288, 87_381), (25_600, 65_536)])
def test_packed_batches_of_wide_models_are_no_larger(widest: int, tokens: int, model: Path) -> None:
    edit_json(model / "config.json", intermediate_size=widest)
    assert _packed_budget(model, msgspec.structs.replace(SETTINGS, token_budget=65_536)) == tokens


@pytest.mark.parametrize(
    ("small", "budgets"),
    [
        (Small(10), [200, 100, 50, 25, 20]),  # not even the longest text fits
        (Small(100, "no kernel image is available"), [200]),  # another error
    ],
)
def test_a_fake_engine_that_can_never_start_raises(
    small: Small, budgets: list[int], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = install(monkeypatch, small)
    with pytest.raises(RuntimeError, match=small.message):
        VllmEngine(model, msgspec.structs.replace(SETTINGS, token_budget=200))
    assert [start.max_num_batched_tokens for start in starts] == budgets


def arguments_of(model: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> SimpleNamespace:
    """The arguments of an engine's start."""
    starts = install(monkeypatch)
    VllmEngine(model, msgspec.structs.replace(SETTINGS, **changes))
    return starts[0]


MIB = 1 << 20


def test_memory_of_keys_and_values_on_a_cpu_with_a_fake_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token takes 8 heads x 128 numbers x 28 layers x 2 x 4 bytes = 229,376 bytes in float32, half in bfloat16.

    A batch of 8,192 tokens needs room for 12,288, and there are 64 MiB more.
    """
    found = arguments_of(model, monkeypatch, token_budget=8192)
    assert found.kv_cache_memory_bytes == 64 * MIB + 12_288 * 229_376
    found = arguments_of(model, monkeypatch, token_budget=8192, dtype="bfloat16")
    assert found.kv_cache_memory_bytes == 64 * MIB + 12_288 * 114_688
    assert not hasattr(found, "async_scheduling")
    assert not hasattr(found, "gpu_memory_utilization")


@pytest.mark.parametrize(
    ("config", "token_bytes"),
    [
        ({"num_attention_heads": 12, "hidden_size": 384, "num_hidden_layers": 6}, 12 * 32 * 6 * 2 * 4),
        ({"num_attention_heads": 12, "head_dim": 64, "num_hidden_layers": 6}, 12 * 64 * 6 * 2 * 4),
        ({"hidden_size": 384, "num_hidden_layers": 6}, 384 * 6 * 2 * 4),
        ({"num_attention_heads": 12, "hidden_size": 384}, 12 * 32 * 2 * 4),
        ({}, 8),
    ],
)
def test_heads_that_a_config_does_not_state_are_derived(
    config: dict[str, int], token_bytes: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads times numbers of a head times layers, keys and values of 4 bytes; a budget of 24 needs room for 36."""
    (model / "config.json").write_text(json.dumps(config))
    assert arguments_of(model, monkeypatch).kv_cache_memory_bytes == 64 * MIB + 36 * token_bytes


def test_a_path_that_is_a_pattern_is_linked_for_a_fake_engine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM looks for weights by a glob. The link has one name for one folder: it is in the key of its cache."""
    odd, other = (shutil.copytree(model, model.with_name(name)) for name in ("m[1]", "m[2]"))
    links = [Path(arguments_of(folder, monkeypatch).model) for folder in (odd, other, odd)]
    assert [link.resolve() for link in links] == [odd, other, odd]
    assert links[0] == links[2] != links[1]
    assert {glob.escape(str(link)) for link in links} == set(map(str, links))
    assert {link.parent.stat().st_mode & 0o777 for link in links} == {0o700}
    for link in set(links):
        link.unlink()


def test_a_fake_engine_gets_token_ids_and_no_chunked_prefill(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = vars(arguments_of(model, monkeypatch))
    del found["kv_cache_memory_bytes"], found["pooler_config"]
    assert found == {
        "model": str(model),
        "skip_tokenizer_init": True,
        "runner": "pooling",
        "convert": "embed",
        "dtype": "float32",
        "max_model_len": 20,
        "max_num_batched_tokens": 24,
        "max_num_seqs": 4,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "disable_log_stats": True,
    }


def fake_gpu(
    monkeypatch: pytest.MonkeyPatch, gib: int, capability: tuple[int, int] = (9, 0), cuda: str | None = "13.0"
) -> None:
    """A GPU of this memory and capability, as torch describes it. AMD's have no version of CUDA."""
    import torch

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "FAKE GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=gib << 30))


GPU = {"device": "cuda", "dtype": "bfloat16", "token_budget": 65_536, "eager": False}


def test_memory_of_keys_and_values_on_a_fake_gpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of 65,536 tokens with half as much room again: 196,608 x 114,688 bytes = 21 GiB.

    On a GPU of which that is half or more, vLLM decides.
    """
    fake_gpu(monkeypatch, 80)
    found = arguments_of(model, monkeypatch, **GPU)
    assert found.kv_cache_memory_bytes == 196_608 * 114_688 == 21 << 30
    assert (found.gpu_memory_utilization, found.block_size, found.async_scheduling) == (0.1, 128, True)
    assert (found.enforce_eager, found.compilation_config) == (False, {"cudagraph_mode": "NONE"})
    for gib, is_set in ((43, True), (42, False), (40, False)):
        fake_gpu(monkeypatch, gib)
        found = arguments_of(model, monkeypatch, **GPU)
        assert hasattr(found, "kv_cache_memory_bytes") is is_set
        assert hasattr(found, "gpu_memory_utilization") is is_set


@pytest.mark.parametrize(
    ("capability", "cuda", "dtype", "block"),
    [
        ((9, 0), "13.0", "bfloat16", 128),
        ((9, 0), "13.0", "float32", None),
        ((8, 0), "13.0", "bfloat16", None),  # A100
        ((8, 9), "13.0", "bfloat16", None),  # L4, L40S
        ((10, 0), "13.0", "bfloat16", None),  # B200
        ((9, 0), None, "bfloat16", None),  # MI250
        ((9, 4), None, "bfloat16", None),  # MI300
    ],
)
def test_large_blocks_are_for_fake_hopper_gpus(
    capability: tuple[int, int],
    cuda: str | None,
    dtype: str,
    block: int | None,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They help FlashAttention 3, which only Hopper has. torch gives AMD's GPUs capabilities of their own."""
    fake_gpu(monkeypatch, 1000, capability, cuda)
    found = arguments_of(model, monkeypatch, **(GPU | {"dtype": dtype, "eager": True}))
    assert getattr(found, "block_size", None) == block
    assert not hasattr(found, "compilation_config")


def test_a_fake_gpu_is_recorded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_gpu(monkeypatch, 80)
    install(monkeypatch)
    record = VllmEngine(model, msgspec.structs.replace(SETTINGS, **GPU)).record
    assert (record.gpu, record.compile, record.dtype) == ("FAKE GPU", "compiled", "bfloat16")
    assert record.cuda == "13.0"


@pytest.mark.parametrize(("held", "budgets"), [(GpuHeld("process 7 holds it"), [200]), (None, [200, 100, 50, 25])])
def test_a_fake_gpu_that_others_hold_gets_no_smaller_batches(
    held: GpuHeld | None, budgets: list[int], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would make shards that merge refuses. A GPU that is only small gets them."""
    fake_gpu(monkeypatch, 80)
    monkeypatch.setattr("embedkit.engines.vllm.held_gpu", lambda error: held)
    starts = install(monkeypatch, Small(30))
    with nullcontext() if held is None else pytest.raises(GpuHeld, match="process 7 holds it"):
        VllmEngine(model, msgspec.structs.replace(SETTINGS, device="cuda", token_budget=200))
    assert [start.max_num_batched_tokens for start in starts] == budgets


@pytest.mark.parametrize(("mode", "name"), [("lasttoken", "LAST"), ("cls", "CLS"), ("mean", "MEAN")])
def test_a_fake_core_gets_the_folders_pooling(
    mode: str, name: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM guesses last token and normalized where it does not know a module by its full name."""
    starts = install(monkeypatch)
    for modules, is_normalized in (([NORMALIZE], True), ([], False)):
        write_modules(model, [pooling(mode), *modules])
        VllmEngine(model, SETTINGS)
        config = starts[-1].pooler_config
        assert (config.pooling_type, config.use_activation) == (name, is_normalized)


def test_vectors_of_a_fake_core_are_cut_to_truncate_dim(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_json(model / "config_sentence_transformers.json", truncate_dim=3)
    engine, _ = started(model, monkeypatch)
    texts = twenty_texts()
    assert engine.record.dim == 3
    assert np.array_equal(engine.embed(texts), vectors_of(texts)[:, :3])


def test_a_fake_vllm_that_leaves_out_a_dense_module_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_modules(model, [pooling("mean"), dense(32, 32), dense(32, 4)])
    install(monkeypatch, dense_modules=[1, 2])
    VllmEngine(model, SETTINGS)
    for found, number in ((None, 0), ([1], 1)):
        install(monkeypatch, dense_modules=found)
        with pytest.raises(EmbedkitError, match=rf"modules\.json: this vLLM reads {number} of 2 Dense modules; use"):
            VllmEngine(model, SETTINGS)


def test_a_fake_vllm_does_not_start_with_a_setting_it_ignores(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run made before this was checked is not embedded on with other vectors than the model's."""
    starts = install(monkeypatch)
    write_modules(model, [pooling("max")])
    with pytest.raises(UsageError, match="vLLM does not honour the pooling max; use --engine transformers"):
        VllmEngine(model, SETTINGS)
    assert starts == []


def test_a_fake_core_has_plain_kernels_where_fused_ones_do_not_fit(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch)
    caplog.set_level(logging.WARNING)
    engine = VllmEngine(model, msgspec.structs.replace(SETTINGS, kernels="fused"))
    assert engine.record.compile == "eager"
    assert "fused kernels do not fit here (--dtype float32: they compute in bfloat16): plain kernels" in caplog.text
