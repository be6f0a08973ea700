"""The interface of an engine, and how to start one by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedkit.documents import EngineName, EngineRecord, EngineSettings
from embedkit.engines.held_gpu import held_gpu
from embedkit.errors import EmbedkitError


class Engine(Protocol):
    """Turns token ids into vectors, with the pooling and normalization of the model folder."""

    record: EngineRecord

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Vectors in the given order, float32 (n, dim). A text has 1 to max_length ids, uint32."""
        ...

    def close(self) -> None:
        """Free the engine's memory. Its processes have ended when this returns."""
        ...


def start_engine(name: EngineName, model: Path, settings: EngineSettings) -> Engine:
    """Load and start an engine. torch, transformers and vLLM are imported only here, because that takes seconds.

    Raises:
        UsageError: the engine is not installed.
        GpuHeld: another process uses the GPU's memory.
    """
    try:
        return _start(name, model, settings)
    except Exception as error:
        on_gpu = settings.device == "cuda" or "cuda" in str(error).lower()
        if on_gpu and not isinstance(error, EmbedkitError) and (held := held_gpu(error)) is not None:
            raise held from error
        raise


def _start(name: EngineName, model: Path, settings: EngineSettings) -> Engine:
    if name == "hash":
        from embedkit.engines.hash import HashEngine

        return HashEngine(settings)
    if name == "vllm":
        from embedkit.engines.vllm import VllmEngine

        return VllmEngine(model, settings)
    from embedkit.engines.transformers import TransformersEngine

    return TransformersEngine(model, settings)
