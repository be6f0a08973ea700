"""On PYTHONPATH, this shortens the wait for files of other hosts to EMBEDKIT_TEST_DELAY seconds, and slows each chunk.

The clients of these tests show files late for seconds, and not for a minute as the kernel's.
"""

import os
import time
from typing import Any

if delay := os.environ.get("EMBEDKIT_TEST_DELAY"):
    import embedkit.storage.visibility as visibility
    from embedkit.engines.hash import HashEngine

    visibility.VISIBILITY_DELAY_SECONDS = float(delay)
    honest = HashEngine.embed

    def embed(self: HashEngine, token_ids: Any) -> Any:
        if len(token_ids) > 1:  # the canary comes one text at a time
            time.sleep(float(os.environ.get("EMBEDKIT_TEST_CHUNK_SECONDS", "0")))
        return honest(self, token_ids)

    HashEngine.embed = embed  # type: ignore[method-assign]
