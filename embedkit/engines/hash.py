"""The hash engine, for tests: its vectors depend only on the token ids, and are the same bits on any machine."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedkit.data import row_hashes
from embedkit.documents import EngineRecord, EngineSettings

DIM = 64


class HashEngine:
    """Makes unit vectors from a hash of the token ids. Needs no model and no torch."""

    def __init__(self, settings: EngineSettings) -> None:
        self.record = EngineRecord(
            engine="hash",
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

    def embed(self, token_ids: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        """Unit vectors in the given order, float32 (n, 64)."""
        seeds = [
            int.from_bytes(hashlib.blake2b(ids.astype("<u4").tobytes(), digest_size=8).digest(), "little")
            for ids in token_ids
        ]
        bits = row_hashes(np.array(seeds, np.uint64), np.arange(DIM))
        # 53 bits, centred around zero, exact in float64.
        values = (bits >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
        vectors: npt.NDArray[np.float32] = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
        return vectors

    def close(self) -> None:
        """Do nothing: there is nothing to free."""
