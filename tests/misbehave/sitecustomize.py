"""On PYTHONPATH, this makes the hash engine misbehave as EMBEDKIT_TEST_ENGINE says.

noise: a little is added to every vector, another amount each time. other-model: vectors as of another model, the
same each time. hang: the second call never returns. hang-holding: nor does it let another thread run.
"""

import os
import re
import time
from collections.abc import Sequence
from typing import Any

kind = os.environ.get("EMBEDKIT_TEST_ENGINE")

if kind:
    import numpy as np

    from embedkit.engines.hashing import HashEngine

    honest = HashEngine.embed
    calls = 0

    def embed(self: HashEngine, token_ids: Sequence[Any]) -> Any:
        global calls
        calls += 1
        vectors = honest(self, token_ids)
        if kind == "noise":
            return (vectors + np.random.default_rng(calls).normal(0, 1e-3, vectors.shape)).astype(np.float32)
        if kind == "other-model":
            return np.roll(vectors, 1, axis=1)
        if kind == "hang" and calls == 2:
            time.sleep(3600)
        if kind == "hang-holding" and calls == 2:
            re.match(r"(a+)+$", "a" * 60 + "b")
        return vectors

    HashEngine.embed = embed  # type: ignore[method-assign]
