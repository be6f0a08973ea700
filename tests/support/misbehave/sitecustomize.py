"""On PYTHONPATH, this makes the hash engine misbehave as EMBEDKIT_TEST_ENGINE says.

noise: a little is added to every vector, another amount each time. other-model: vectors as of another model, the
same each time. goes-bad: the vectors of the second chunk are others, and at the third the engine dies. hang: the
second chunk never returns. hang-holding: nor does it let another thread run.
"""

import os
import re
import time
from collections.abc import Sequence
from typing import Any

kind = os.environ.get("EMBEDKIT_TEST_ENGINE")

if kind:
    import numpy as np

    from embedkit.engines.hash import HashEngine

    honest = HashEngine.embed
    calls = chunks = 0

    def embed(self: HashEngine, token_ids: Sequence[Any]) -> Any:
        global calls, chunks
        calls += 1
        vectors = honest(self, token_ids)
        if kind == "noise":
            return (vectors + np.random.default_rng(calls).normal(0, 1e-3, vectors.shape)).astype(np.float32)
        if kind == "other-model":
            return np.roll(vectors, 1, axis=1)
        if len(token_ids) == 1:  # the canary, one text at a time
            return vectors
        chunks += 1
        if kind == "goes-bad" and chunks == 2:
            return -vectors
        if kind == "goes-bad" and chunks == 3:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if kind == "hang" and chunks == 2:
            time.sleep(3600)
        if kind == "hang-holding" and chunks == 2:
            re.match(r"(a+)+$", "a" * 60 + "b")
        return vectors

    HashEngine.embed = embed  # type: ignore[method-assign]
