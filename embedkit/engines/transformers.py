"""The transformers engine: the fallback where vLLM is not installed. Plain batches, sorted by length.

Its inputs are token ids, so no tokenizer pads them. Batches are padded here, on the right, and each row is pooled by
its own length. Padding changes nothing: causal models do not see later tokens, and encoders get a mask.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.documents import EngineRecord, EngineSettings
from embedkit.engines.head import load_head
from embedkit.engines.large_imports import large_imports
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model import read_head, read_json

log = logging.getLogger(__name__)

UNUSED_WEIGHTS = ("pooler.", "embeddings.position_ids")
"""Weights that a checkpoint may lack: those of BERT's own pooling layer, which sentence-transformers does not use."""

ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
"""Encoders of models that have a decoder, too, by model type. Only the encoder makes vectors."""


class TransformersEngine:
    """Runs the model's forward pass batch by batch."""

    def __init__(self, model: Path, settings: EngineSettings) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all files were fetched when the run was created
        try:
            with large_imports():
                import torch
                import transformers

                _skip_sklearn(transformers)
                _ = transformers.AutoModel  # imported when it is asked for
        except ImportError as error:
            raise UsageError(
                f"--engine transformers: it cannot be imported here ({error}); install embedkit[transformers]"
            ) from error

        self._torch = torch
        self._head = load_head(read_head(model), settings.device)
        self._token_budget = settings.token_budget
        self._max_sequences = settings.max_sequences
        transformers.utils.logging.disable_progress_bar()
        self._network = _load(transformers, model, getattr(torch, settings.dtype)).to(settings.device).eval()
        on_gpu = settings.device == "cuda"
        self.record = EngineRecord(
            engine="transformers",
            engine_version=transformers.__version__,
            torch=str(torch.__version__),
            cuda=torch.version.cuda or "" if on_gpu else "",
            gpu=torch.cuda.get_device_name() if on_gpu else "",
            attention=str(self._network.config._attn_implementation),
            compile="eager",
            dtype=settings.dtype,
            token_budget=settings.token_budget,
            dim=self.embed([np.zeros(1, np.uint32)]).shape[1],
        )

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Vectors in the given order, float32 (n, dim)."""
        order = sorted(range(len(token_ids)), key=lambda i: -len(token_ids[i]))
        vectors: list[npt.NDArray[np.float32]] = []
        while len(vectors) < len(order):
            batch = self._next_batch([token_ids[i] for i in order[len(vectors) :][: self._max_sequences]])
            try:
                vectors.extend(self._forward(batch))
            except (self._torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                self._halve(batch, error)
        result = np.empty((len(order), len(vectors[0])), np.float32)
        result[order] = vectors
        return result

    def close(self) -> None:
        """Free the model's memory."""
        del self._network
        if self.record.gpu:
            self._torch.cuda.empty_cache()

    def _next_batch(self, rest: list[npt.NDArray[np.uint32]]) -> list[npt.NDArray[np.uint32]]:
        """The next rows that fit the token budget when padded to the first and longest of them; at least one."""
        return rest[: max(self._token_budget // len(rest[0]), 1)]

    def _halve(self, batch: list[npt.NDArray[np.uint32]], error: Exception) -> None:
        """Halve this batch and all later ones if the error says that memory ran out; raise any other error."""
        if not _is_out_of_memory(self._torch, error):
            raise error
        if len(batch) == 1:
            raise EmbedkitError(f"a row of {len(batch[0])} tokens alone does not fit the memory: {error}") from None
        self._token_budget = len(batch) // 2 * len(batch[0])
        log.warning("out of memory with %d rows; batches have %d tokens from now on", len(batch), self._token_budget)

    def _forward(self, batch: list[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Vectors of one padded batch, float32 (n, dim); all that follows the hidden states is computed in float32."""
        torch = self._torch
        lengths = torch.tensor([len(ids) for ids in batch], device=self._network.device)
        ids = np.full((len(batch), len(batch[0])), self._network.config.pad_token_id or 0, np.int64)
        for i, row in enumerate(batch):
            ids[i, : len(row)] = row
        with torch.inference_mode():
            mask = torch.arange(ids.shape[1], device=lengths.device) < lengths[:, None]
            input_ids = torch.from_numpy(ids).to(lengths.device)
            hidden = self._network(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state
            result: npt.NDArray[np.float32] = self._head(hidden, mask).cpu().numpy()
        return result


def _skip_sklearn(transformers: Any) -> None:
    """Keep transformers from importing scikit-learn, and with it pandas and scipy, which it uses to generate text only.

    They take half of the CPU time of an engine's start.
    """
    transformers.utils.is_sklearn_available = lambda: False


def _load(transformers: Any, model: Path, dtype: Any) -> Any:
    """Load the network without a language model's head.

    Raises EmbedkitError if a weight is missing: transformers would fill it with random numbers.
    """
    loader = getattr(transformers, ENCODERS.get(read_json(model, "config.json").get("model_type", ""), "AutoModel"))
    try:
        network, loaded = loader.from_pretrained(
            str(model), dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise EmbedkitError(f"{model}: transformers cannot load it: {str(error).strip().splitlines()[0]}") from None
    missing = sorted(name for name in loaded["missing_keys"] if not name.startswith(UNUSED_WEIGHTS))
    if missing:
        raise EmbedkitError(
            f"{model}: the weights lack {len(missing)} tensors, {missing[0]} first; fetch the model again"
        )
    network.config.use_cache = False
    return network


def _is_out_of_memory(torch: Any, error: Exception) -> bool:
    """Whether an error says that memory ran out. On a CPU torch raises a plain RuntimeError then."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
