"""A fake of vLLM: the scheduler of an engine without its model. A test cannot have the GPU that needs it.

It takes what the real one takes, works a batch ahead, finishes texts out of order and in pieces, and keeps a request
that it could not take, as vLLM does.
"""

import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

DIM = 4
MOST_STEPS = 1000
"""Steps after which a caller waits for a text that the engine does not have."""


def vector_of(ids: Sequence[int]) -> list[float]:
    """The fake model's vector of a text: sum and number of its ids, the first and the last. Exact in float32."""
    return [float(sum(ids)), float(len(ids)), float(ids[0]), float(ids[-1])]


def vectors_of(texts: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
    """The vectors of some texts, float32 (n, DIM)."""
    return np.array([vector_of(ids.tolist()) for ids in texts], np.float32)


@dataclass
class Faults:
    """What goes wrong: at which step (from 1) or at which text (its id) of the next calls."""

    raise_at_step: int = 0
    refuse: str | None = None
    error_on: str | None = None
    lose: str | None = None
    raises: BaseException = field(default_factory=lambda: RuntimeError("CUDA error: device-side assert"))


class FakeEngine:
    """One engine, with a budget of tokens and a number of texts per batch."""

    def __init__(self, arguments: SimpleNamespace) -> None:
        self.budget: int = arguments.max_num_batched_tokens
        self.most_texts: int = arguments.max_num_seqs
        self.goes_wrong = Faults()
        self.requests: dict[str, list[int]] = {}  # taken, neither finished nor aborted
        self.waiting: deque[str] = deque()
        self.running: deque[list[str]] = deque()
        self.steps = 0
        self.held: list[int] = []  # per step: tokens of all requests
        self.batches: list[int] = []  # texts of each batch
        self.closed = 0
        self.engine_core = SimpleNamespace(shutdown=self._shutdown)
        backends = [SimpleNamespace(attn_backend=SimpleNamespace(get_name=lambda name=name: name)) for name in "BAB"]
        layers = {str(i): layer for i, layer in enumerate([*backends, SimpleNamespace()])}
        self.vllm_config = SimpleNamespace(compilation_config=SimpleNamespace(static_forward_context=layers))

    def add_request(self, request_id: str, prompt: dict[str, Any], params: Any) -> None:
        ids = prompt["prompt_token_ids"]
        assert request_id not in self.requests, f"text {request_id} of an earlier call is still here"
        assert params.task == "embed"
        self.requests[request_id] = ids
        if type(ids) is not list or not ids or type(ids[0]) is not int or self.goes_wrong.refuse == request_id:
            raise ValueError("ids of a wrong type")  # and the request stays, as in vLLM
        self.waiting.append(request_id)

    def step(self) -> list[SimpleNamespace]:
        self.steps += 1
        assert self.steps < MOST_STEPS, "the caller waits for ever"
        self.held.append(sum(map(len, self.requests.values())))
        if self.steps == self.goes_wrong.raise_at_step:
            raise self.goes_wrong.raises
        if self.waiting:
            self.running.append(self._next_batch())
            if len(self.running) == 1:
                return []  # it is launched, and nothing is done yet
        return self._finish_some() if self.running else []

    def abort_request(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.requests.pop(request_id, None)
        self.waiting = deque(i for i in self.waiting if i in self.requests)
        self.running = deque(kept for batch in self.running if (kept := [i for i in batch if i in self.requests]))

    def has_unfinished_requests(self) -> bool:
        return bool(self.requests)

    def _next_batch(self) -> list[str]:
        batch: list[str] = []
        tokens = 0
        while self.waiting and len(batch) < self.most_texts:
            tokens += len(self.requests[self.waiting[0]])
            if tokens > self.budget:
                break
            batch.append(self.waiting.popleft())
        self.batches.append(len(batch))
        return batch

    def _finish_some(self) -> list[SimpleNamespace]:
        """At most three texts of the oldest batch, the last one first."""
        batch = self.running[0]
        done = [batch.pop() for _ in range(min(3, len(batch)))]
        if not batch:
            self.running.popleft()
        outputs = [self._output(i, self.requests.pop(i)) for i in done]
        return [output for output in outputs if output.request_id != self.goes_wrong.lose]

    def _output(self, request_id: str, ids: list[int]) -> SimpleNamespace:
        import torch

        if self.goes_wrong.error_on == request_id:
            return SimpleNamespace(request_id=request_id, error="prompt too long", outputs=None)
        return SimpleNamespace(request_id=request_id, outputs=SimpleNamespace(data=torch.tensor(vector_of(ids))))

    def _shutdown(self) -> None:
        self.closed += 1


def install(
    monkeypatch: pytest.MonkeyPatch,
    start: Callable[[SimpleNamespace], FakeEngine] = FakeEngine,
    dense_modules: Sequence[object] | None = None,
) -> list[SimpleNamespace]:
    """Let `import vllm` give the fake, which finds so many Dense modules. Returns the arguments of every start."""
    starts: list[SimpleNamespace] = []

    def from_engine_args(arguments: SimpleNamespace) -> FakeEngine:
        starts.append(arguments)
        return start(arguments)

    def module(name: str, **contents: Any) -> None:
        made = ModuleType(name)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    module(
        "vllm",
        __version__="0.0.fake",
        EngineArgs=SimpleNamespace,
        PoolingParams=SimpleNamespace,
        LLMEngine=SimpleNamespace(from_engine_args=from_engine_args),
    )
    module("vllm.config", PoolerConfig=SimpleNamespace)
    module("vllm.transformers_utils")
    module("vllm.transformers_utils.config", try_get_dense_modules=lambda _: dense_modules)
    module("vllm.distributed")
    module("vllm.distributed.parallel_state", cleanup_dist_env_and_memory=lambda: None)
    return starts
