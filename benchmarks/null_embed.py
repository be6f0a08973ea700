"""embed with an engine that takes no time. It still reads, tokenizes, checks, hashes and writes.

python -m benchmarks.null_embed RUN [SHARD ...]
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import embedkit.embed.stage
from embedkit.documents.codec import read
from embedkit.documents.schema import EngineName, EngineRecord, EngineSettings, ShardManifest
from embedkit.run import RunFolder

DIM = 1024


class NullEngine:
    """Returns the same unit vector for every text, as wide as Qwen3-Embedding-0.6B's."""

    def __init__(self, settings: EngineSettings) -> None:
        self.record = EngineRecord(
            engine="null",
            engine_version="1",
            torch="",
            cuda="",
            gpu="",
            attention="",
            compile="",
            dtype=settings.dtype,
            token_budget=settings.token_budget,
            dim=DIM,
        )
        self._vector = np.full((1, DIM), DIM**-0.5, np.float32)

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """float32 (n, 1024)."""
        return np.broadcast_to(self._vector, (len(token_ids), DIM))

    def close(self) -> None:
        """Do nothing."""


def start(name: EngineName, model: Path, settings: EngineSettings) -> NullEngine:
    """Replace `start_engine`."""
    return NullEngine(settings)


def main() -> None:
    """Embed and print seconds, tokens and bytes of vectors."""
    run, shards = RunFolder(Path(sys.argv[1]).absolute()), [int(shard) for shard in sys.argv[2:]]
    embedkit.embed.stage.start_engine = start
    started = time.perf_counter()
    embedkit.embed.stage.embed_shards(run, shards)
    seconds = time.perf_counter() - started
    manifests = [read(run.shard_manifest(shard), ShardManifest) for shard in shards]
    tokens = sum(manifest.tokens for manifest in manifests)
    rows = sum(manifest.stop - manifest.start for manifest in manifests)
    print(json.dumps({"seconds": seconds, "tokens": tokens, "rows": rows, "phases": manifests[0].seconds}))


if __name__ == "__main__":
    main()
