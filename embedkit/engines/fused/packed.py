"""Embeds texts with the fused model in batches of its own, packed one behind the other, without vLLM's scheduler.

vLLM's scheduler takes a CPU 0.2 ms per text, which is more than a GPU takes for a text of 100 tokens. A batch here
costs the CPU a few kernel launches per layer, whatever the number of its texts.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embedkit.engines.fused.kernels import SHORT_TOKENS, Tensor, Texts

MOST_TEXTS = 16_384
"""Texts of a batch: a grid of attention has at most 65,535."""
AHEAD = 2
"""Batches that are launched before the oldest one's vectors are awaited."""
HEAD_TEXTS = 256
"""Texts that go through the head at a time. The order of torch's sums depends on the number of rows."""


class PackedTexts:
    """Embeds with last-token pooling.

    Args:
        model: the FusedQwen3 that vLLM loaded.
        head: what follows the last token's hidden state (`load_head`).
        token_budget: tokens of a batch, at least max_length.
        max_length: tokens of the longest text that is taken.
    """

    def __init__(
        self, model: Any, head: Callable[[Tensor, Tensor], Tensor], token_budget: int, max_length: int
    ) -> None:
        self._model = model
        self._head = head
        self._token_budget = token_budget
        self._max_length = max_length
        self._device = next(model.parameters()).device

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Vectors in the given order, float32 (n, dim). A text has the same vector to the bit whatever is beside it.

        Raises ValueError for a text that is empty or too long, or an id that the model does not have.
        """
        lengths = np.array([len(ids) for ids in token_ids])
        if (bad := np.flatnonzero((lengths < 1) | (lengths > self._max_length))).size:
            raise ValueError(f"text {bad[0]} of this call has {lengths[bad[0]]} tokens, not 1 to {self._max_length}")
        order = np.argsort(-lengths, kind="stable")
        vectors = np.empty((0, 0), np.float32)
        launched: deque[tuple[npt.NDArray[np.int64], Tensor, Any]] = deque()

        def keep_oldest() -> None:
            """Copy its vectors, so that few batches hold memory that the GPU writes to."""
            nonlocal vectors
            batch, found, event = launched.popleft()
            if event is not None:
                event.synchronize()
            if not len(vectors):
                vectors = np.empty((len(order), found.shape[1]), np.float32)
            vectors[batch] = found.numpy()

        with torch.inference_mode():
            for start, stop in batch_borders(lengths[order].tolist(), self._token_budget):
                launched.append((order[start:stop], *self._launch(token_ids, order[start:stop])))
                if len(launched) > AHEAD:
                    keep_oldest()
            while launched:
                keep_oldest()
        return vectors

    def _launch(self, token_ids: Sequence[npt.NDArray[np.uint32]], batch: npt.NDArray[np.int64]) -> tuple[Tensor, Any]:
        """Launch the texts of a batch, longest first. batch: where they are in `token_ids`.

        Returns its vectors on the CPU, and the event after which they are there (None: now).
        """
        lengths = np.array([len(token_ids[i]) for i in batch])
        starts = np.concatenate([[0], lengths.cumsum()])
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        ids = np.concatenate([token_ids[i] for i in batch])
        vocabulary = int(self._model.config.vocab_size)
        if (bad := np.flatnonzero(ids >= vocabulary)).size:  # a GPU would end the process
            text = batch[np.searchsorted(starts, bad[0], "right") - 1]
            raise ValueError(f"text {text} of this call has the token id {ids[bad[0]]}; the model has {vocabulary}")
        long_texts = int((lengths > SHORT_TOKENS).sum())
        texts = Texts(self._moved(starts.astype(np.int32)), int(lengths[0]), long_texts, int(starts[long_texts]))
        found = self._headed(self._model.last_states(self._moved(ids.astype(np.int32)), self._moved(positions), texts))
        if self._device.type == "cpu":
            return found, None
        vectors = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        vectors.copy_(found, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # who waits for it sleeps; by default a CPU would be busy
        event.record()
        return vectors, event

    def _headed(self, states: Tensor) -> Tensor:
        """Vectors of hidden states, float32 (n, dim). All calls of the head have the same shape."""
        padded = torch.nn.functional.pad(states, (0, 0, 0, -len(states) % HEAD_TEXTS))
        mask = torch.ones(HEAD_TEXTS, 1, dtype=torch.bool, device=self._device)
        return torch.cat([self._head(part[:, None], mask) for part in padded.split(HEAD_TEXTS)])[: len(states)]

    def _moved(self, values: npt.NDArray[Any]) -> Tensor:
        """An array on the model's device. The CPU does not wait for the copy."""
        tensor = torch.from_numpy(values)
        return tensor if self._device.type == "cpu" else tensor.pin_memory().to(self._device, non_blocking=True)


def batch_borders(lengths: Sequence[int], token_budget: int) -> Iterator[tuple[int, int]]:
    """Start and stop of batches of texts that follow each other, within the budget and MOST_TEXTS."""
    start = tokens = 0
    for i, length in enumerate(lengths):
        if i > start and (tokens + length > token_budget or i - start == MOST_TEXTS):
            yield start, i
            start, tokens = i, 0
        tokens += length
    if lengths:
        yield start, len(lengths)
