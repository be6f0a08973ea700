"""A query through the run's own model: the same tokenizer, the same engine, and what is known to differ is told."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.documents.schema import Device, EngineName, EngineRecord, Request, RunConfig
from embedkit.engines import start_engine
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model.folder import require_same_model
from embedkit.model.tokenizer import load_tokenizer
from embedkit.prepare.extract import PYTHON_WHITESPACE
from embedkit.prepare.plan import engine_settings

TOLD = ("engine", "engine_version", "torch", "cuda", "gpu", "attention", "dtype")
"""Fields of an engine record that are named where they differ."""


@dataclass(frozen=True)
class Query:
    """An embedded query: text as it was fed, tokens, vector float32 (D,), the engine, and how it differs.

    differences: what is not as it was when the rows were embedded, a line each; empty if all is.
    """

    text: str
    tokens: int
    vector: npt.NDArray[np.float32]
    engine: EngineRecord
    differences: tuple[str, ...]


def embed_query(
    merged: Merged, text: str, prefix: str = "", engine: EngineName | None = None, device: Device | None = None
) -> Query:
    """Embed one text as the rows were: stripped, special tokens added, pooled and scaled as the model folder says.

    Args:
        merged: the run.
        text: what is looked for.
        prefix: what stands before it, for models that were trained on queries with an instruction.
        engine: another engine than the run's.
        device: another device than the run's; a CPU computes in float32 if the run was on a GPU.

    Raises:
        UsageError: the query is empty or too long, or the engine or device cannot be had here.
        EmbedkitError: the model is not the run's, or the engine's dtype or dimension is another, unasked.
    """
    config = merged.config
    fed = (prefix + text).strip(PYTHON_WHITESPACE)
    if not text.strip(PYTHON_WHITESPACE):
        raise UsageError("the query is empty; type a text to look for")
    require_same_model(config)
    model = Path(config.locations.model)
    ids = load_tokenizer(model).encode([fed])
    request = _request(config, engine, device)
    if len(ids[0]) > request.max_length:
        raise UsageError(
            f"the query has {len(ids[0]):,} tokens, the run takes {request.max_length:,}; shorten it (nothing is cut)"
        )
    settings = merged.plan.settings if request == config.request else engine_settings(request)
    _require_device(config, request)
    started = start_engine(request.engine, model, settings)
    try:
        vector = started.embed([ids[0]])[0]
        record = started.record
    finally:
        started.close()
    differences = compare(record, merged.success.engines, allow_dtype=request != config.request)
    if not np.isfinite(vector).all() or not vector.any():
        raise EmbedkitError("the engine gave NaN, infinity or only zeros for the query")
    return Query(fed, len(ids[0]), vector, record, differences)


def _request(config: RunConfig, engine: EngineName | None, device: Device | None) -> Request:
    """The run's request with another engine or device. Raises UsageError for what gives no comparable vectors."""
    asked = config.request
    if "hash" in (asked.engine, engine) and engine not in (None, asked.engine):
        raise UsageError(
            f"--engine {engine}: the run was embedded with {asked.engine}; its vectors mean nothing to the other's"
        )
    device = device or asked.device
    dtype = "float32" if device == "cpu" and asked.device != "cpu" else asked.dtype
    return msgspec.structs.replace(asked, engine=engine or asked.engine, device=device, dtype=dtype)


def _require_device(config: RunConfig, request: Request) -> None:
    """Raise UsageError if the engine wants a GPU that is not here."""
    if request.device != "cuda" or request.engine == "hash":
        return
    try:
        import torch
    except ImportError:
        return  # the engine says what to install
    if torch.cuda.is_available():
        return
    dtype = config.request.dtype
    raise UsageError(
        f"the run was embedded on a GPU in {dtype}, and this machine shows none. `--device cpu` embeds the query on "
        "the CPU in float32 (with `--engine transformers` where vLLM is the build for GPUs)"
    )


def compare(record: EngineRecord, engines: tuple[EngineRecord, ...], allow_dtype: bool = False) -> tuple[str, ...]:
    """What of an engine is not as in the run's own, a line each.

    Where the run has several engines, it is held against the one that it is most like.

    Raises EmbedkitError for another dimension, and, unless it is allowed, for another dtype.
    """
    differing = [[name for name in TOLD if getattr(record, name) != getattr(own, name)] for own in engines]
    own, names = min(zip(engines, differing, strict=True), key=lambda pair: len(pair[1]))
    if record.dim != own.dim:
        raise EmbedkitError(f"the engine gives {record.dim} numbers a text, the run has {own.dim}: not the same model")
    if record.dtype != own.dtype and not allow_dtype:
        raise EmbedkitError(f"the engine computes in {record.dtype} here, the run's rows were in {own.dtype}")
    return tuple(
        f"{name}: {getattr(record, name) or 'none'} here, {getattr(own, name) or 'none'} in the run" for name in names
    )
