"""How much a text repeats itself, measured by how far LZ4 compresses its most repetitive block.

LZ4 finds what occurred before and nothing else (it has no entropy coder), at hundreds of megabytes a second. A model
that loops repeats itself to the byte, so that a block within the loop nearly vanishes. Blocks have one size, so that
the measure does not grow with the length of the text, and a loop at the end of a long text counts as much as one that
fills it.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

BLOCK_BYTES = 8192
"""Bytes of a block. Prose keeps some 65 % of them, a loop of one sentence 2 %."""
LEAST_BYTES = 256
"""A shorter text, or last block, is not measured: it has no room for a loop."""


def repetition(texts: pl.Series) -> npt.NDArray[np.float32]:
    """Largest share of a block's bytes that LZ4 saves, for each text, float32 (n,).

    From 0 (nothing recurs) to 1. Texts of fewer than LEAST_BYTES bytes have 0. texts: String, without nulls.
    """
    codec = pa.Codec("lz4_raw")
    found = np.zeros(len(texts), np.float32)
    for at, text in enumerate(texts.cast(pl.Binary)):
        view = memoryview(text)
        kept = 1.0
        for start in range(0, max(len(view) - LEAST_BYTES + 1, 0), BLOCK_BYTES):
            block = view[start : start + BLOCK_BYTES]
            kept = min(kept, codec.compress(block).size / len(block))
        found[at] = 1 - kept
    return found
