"""Embed a query with the model, tokenizer and engine of the run, and report known differences."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import Merged
from embedkit.analysis.similarity.stand_in import NoStandIn, may_stand_in, start_stand_in
from embedkit.documents import Device, EngineName, EngineRecord, Request, RunConfig
from embedkit.engines import Engine, quiet_start, start_engine
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model import load_tokenizer, require_same_model
from embedkit.prepare import PYTHON_WHITESPACE, engine_settings

COMPARED_FIELDS = ("engine", "engine_version", "torch", "cuda", "gpu", "attention", "dtype")
"""Fields of an engine record whose differences are reported."""


@dataclass(frozen=True)
class Query:
    """An embedded query: the text with what was put before it, its tokens, its vector float32 (D,), and the engine.

    differences: one line per difference from the engine that embedded the rows; empty if there is none. Of a stand-in
    there is one line, `answers`. answers: which engine it is, and why its vectors are those of the run.
    """

    text: str
    tokens: int
    vector: npt.NDArray[np.float32]
    engine: EngineRecord
    differences: tuple[str, ...]
    answers: str


class QueryEngine:
    """The model, tokenizer and engine of a run. The engine starts with the first query and is kept until `close`.

    For vLLM on a CPU, transformers answers if it gives the same vectors (stand_in.py).
    Texts are embedded in the same way as the rows: stripped, special tokens added, pooled and scaled by the model.
    """

    def __init__(
        self,
        merged: Merged,
        prefix: str | None = None,
        engine: EngineName | None = None,
        device: Device | None = None,
    ) -> None:
        """Check the request and the model's files, and load the tokenizer.

        Args:
            merged: the run.
            prefix: text before a query, for models that were trained on queries with an instruction; None for what the
                run puts before its rows.
            engine: engine to use, and no other; None for the run's, or one that stands in for it.
            device: device to use instead of the run's. A CPU computes in float32 if the run used a GPU.

        Raises:
            UsageError: vectors of this engine are not comparable with the run's.
            EmbedkitError: the model is not the run's.
        """
        self._merged = merged
        config = merged.config
        require_same_model(merged.run, config)
        self._model = Path(config.locations.model)
        self._prefix = config.request.prefix if prefix is None else prefix
        self._tokenizer = load_tokenizer(self._model, self._prefix)
        self._request = _request(config, engine, device)
        self._engine: Engine | None = None
        self._differences: tuple[str, ...] = ()
        self._may_stand_in = engine is None and self._request == config.request and may_stand_in(config.request)
        self._most_tokens = self._request.max_length
        self.answers = ""

    def __enter__(self) -> "QueryEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def tokens(self, text: str) -> npt.NDArray[np.uint32]:
        """Token ids of a query, uint32 (n,). Raises UsageError if it is empty or too long."""
        stripped = strip_query(text)
        ids = self._tokenizer.encode([stripped])[0]
        if len(ids) > self._request.max_length:
            raise UsageError(
                f"the query has {len(ids):,} tokens, the run takes {self._request.max_length:,}; shorten the query "
                "(embedkit never truncates)"
            )
        return ids

    def start(self) -> None:
        """Start the engine, if it has not started.

        Raises:
            UsageError: the engine or device is not available here.
            EmbedkitError: the engine's dimension or (unless a different engine or device was requested) its dtype
                differs from the run's.
        """
        if self._engine is not None:
            return
        why = self._start_stand_in() if self._may_stand_in else ""
        if self._engine is None:
            self._engine = self._start_requested()
            self.answers = f"{_named(self._engine)} on {self._request.device} answers" + why

    def _start_stand_in(self) -> str:
        """Start an engine in place of the run's own. Returns why there is none, or nothing."""
        self._may_stand_in = False  # what it cannot do now, it cannot do later
        try:
            with quiet_start():
                found = start_stand_in(self._merged, self._model)
        except NoStandIn as error:
            return f", the run's own engine: {error}"
        self._engine, self._most_tokens = found.engine, found.tokens
        own = " and ".join(sorted({f"{one.engine} {one.engine_version}" for one in self._merged.success.engines}))
        self.answers = (
            f"{_named(found.engine)} answers for {own}: for the canary's texts its vectors are {found.furthest:.1g} "
            f"from the run's, {found.allowed:.0e} is allowed"
        )
        self._differences = (self.answers,)
        return ""

    def _start_requested(self) -> Engine:
        merged, request = self._merged, self._request
        is_own = request == merged.config.request
        settings = (merged.plan.settings if is_own else engine_settings(request)).inexact
        _require_device(merged.config, request)
        with quiet_start():
            started = start_engine(request.engine, self._model, settings)
        try:
            self._differences = engine_differences(started.record, merged.success.engines, allow_dtype=not is_own)
        except BaseException:
            started.close()
            raise
        self._most_tokens = request.max_length
        return started

    def embed(self, text: str) -> Query:
        """Embed one text. Raises as `tokens` and `start`, and EmbedkitError if the engine returns no direction."""
        ids = self.tokens(text)
        self.start()
        if len(ids) > self._most_tokens:  # longer than what a stand-in was compared with
            self.close()
            self.start()
        assert self._engine is not None
        vector = self._engine.embed([ids])[0]
        if not np.isfinite(vector).all() or not vector.any():
            raise EmbedkitError("the engine returned NaN, infinity or only zeros for the query")
        text = self._prefix + strip_query(text)
        return Query(text, len(ids), vector, self._engine.record, self._differences, self.answers)

    def close(self) -> None:
        """Free the engine. The next query would start it again."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def _named(engine: Engine) -> str:
    return f"{engine.record.engine} {engine.record.engine_version}"


def strip_query(text: str) -> str:
    """A query without white space around it. Raises UsageError if nothing is left."""
    stripped = text.strip(PYTHON_WHITESPACE)
    if not stripped:
        raise UsageError("the query is empty; type a text to search for")
    return stripped


def _request(config: RunConfig, engine: EngineName | None, device: Device | None) -> Request:
    """The run's request with a different engine or device. Raises UsageError if vectors would not be comparable."""
    request = config.request
    if "hash" in (request.engine, engine) and engine not in (None, request.engine):
        raise UsageError(
            f"--engine {engine}: the run was embedded with {request.engine}; vectors of the two are not comparable"
        )
    device = device or request.device
    dtype = "float32" if device == "cpu" and request.device != "cpu" else request.dtype
    return msgspec.structs.replace(request, engine=engine or request.engine, device=device, dtype=dtype)


def _require_device(config: RunConfig, request: Request) -> None:
    """Raise UsageError if the engine needs a GPU and this machine has none."""
    if request.device != "cuda" or request.engine == "hash":
        return
    try:
        import torch  # takes seconds
    except ImportError:
        return  # the engine's own error says what to install
    if torch.cuda.is_available():
        return
    dtype = config.request.dtype
    raise UsageError(
        f"the run was embedded on a GPU in {dtype}, and this machine shows none. `--device cpu` embeds the query on "
        "the CPU in float32 (add `--engine transformers` if vLLM here is built for GPUs)"
    )


def engine_differences(
    record: EngineRecord, engines: tuple[EngineRecord, ...], allow_dtype: bool = False
) -> tuple[str, ...]:
    """Describe how an engine differs from the run's own, one line per field.

    If the run has several engines, the one with the fewest differences is compared.

    Raises:
        EmbedkitError: the dimension differs, or the dtype differs and that is not allowed.
    """
    differing = [[name for name in COMPARED_FIELDS if getattr(record, name) != getattr(own, name)] for own in engines]
    own, names = min(zip(engines, differing, strict=True), key=lambda pair: len(pair[1]))
    if record.dim != own.dim:
        raise EmbedkitError(f"the engine gives {record.dim} numbers per text, the run has {own.dim}: a different model")
    if record.dtype != own.dtype and not allow_dtype:
        raise EmbedkitError(f"the engine computes in {record.dtype} here, the run's rows were computed in {own.dtype}")
    return tuple(
        f"{name}: {getattr(record, name) or 'none'} here, {getattr(own, name) or 'none'} in the run" for name in names
    )
