"""What an engine is, and how the one that was asked for is started."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedkit.documents.schema import EngineName, EngineRecord, EngineSettings


class Engine(Protocol):
    """Turns token ids into vectors, as the model folder's pooling and normalization say."""

    record: EngineRecord

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Vectors in the order given, float32 (n, dim). A prompt has 1 to max_length ids."""
        ...

    def close(self) -> None:
        """Free what the engine holds; its processes are gone when this returns."""
        ...


def start_engine(name: EngineName, model: Path, settings: EngineSettings) -> Engine:
    """Load and start an engine; torch and vLLM are imported here and nowhere earlier.

    Raises UsageError if the engine is not installed.
    """
    if name == "hash":
        from embedkit.engines.hash import HashEngine

        return HashEngine(settings)
    if name == "vllm":
        from embedkit.engines.vllm import VllmEngine

        return VllmEngine(model, settings)
    from embedkit.engines.transformers import TransformersEngine

    return TransformersEngine(model, settings)
