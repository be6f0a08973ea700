"""Keys of rows: hashes of the text that a view embeds, and of the token ids that its engine gets.

Two rows with the same key of token ids have the same vector, if model and engine are the same. The key of a text finds
a row again whose token ids are known already. A key is the first 16 bytes of a SHA-256 (FIPS 180-4), so that nobody can
make two texts with one key. Each kind of key hashes its own name first.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from embedkit.model import TokenIds
from embedkit.row_keys.arrays import arrays_from_bytes

KEY_BYTES = 16
TEXT, TOKENS, VECTOR = b"text\0", b"tokens\0", b"vector\0"

Keys = npt.NDArray[np.uint64]
"""Keys, uint64 (..., 2): the bytes of each hash as two little-endian numbers."""


def text_keys(texts: Iterable[str]) -> Keys:
    """The key of each text, of its UTF-8, uint64 (n, 2)."""
    return _keys((text.encode() for text in texts), TEXT)


def token_keys(token_ids: TokenIds) -> Keys:
    """The key of each text's token ids, as uint32 little-endian, uint64 (n, 2); 0 for a text without any."""
    ids = token_ids.ids.astype("<u4", copy=False)
    borders = token_ids.offsets
    keys = _keys((ids[borders[i] : borders[i + 1]].data for i in range(len(token_ids))), TOKENS)
    return np.where(token_ids.lengths[:, None] > 0, keys, np.uint64(0))


def vector_keys(vectors: npt.NDArray[np.float32]) -> Keys:
    """The key of each row of a matrix, as float32 little-endian, uint64 (n, 2)."""
    return _keys((row.data for row in np.ascontiguousarray(vectors, "<f4")), VECTOR)


def _keys(values: Iterable[bytes | memoryview], kind: bytes) -> Keys:
    begun, hashes = hashlib.sha256(kind), []
    for value in values:
        hasher = begun.copy()
        hasher.update(value)
        hashes.append(hasher.digest()[:KEY_BYTES])
    return np.frombuffer(b"".join(hashes), "<u8").reshape(-1, 2)


@dataclass(frozen=True)
class RowKeys:
    """Keys of rows in some views.

    texts, tokens: uint64 (rows, views, 2). lengths: number of token ids, int32 (rows, views); 0 for an empty text.
    """

    texts: Keys
    tokens: Keys
    lengths: npt.NDArray[np.int32]

    def take(self, rows: npt.NDArray[np.int64]) -> "RowKeys":
        """The keys of some rows, by position."""
        return RowKeys(self.texts[rows], self.tokens[rows], self.lengths[rows])

    def to_bytes(self) -> bytes:
        """A safetensors file with the three arrays."""
        return save({"lengths": self.lengths, "texts": self.texts, "tokens": self.tokens})


def keys_from_bytes(data: bytes | bytearray, rows: int, views: int) -> RowKeys:
    """The keys in a file's bytes. Raises ValueError if it is no file of keys of so many rows and views."""
    shapes = {"texts": (rows, views, 2), "tokens": (rows, views, 2), "lengths": (rows, views)}
    return RowKeys(*arrays_from_bytes(data, shapes, "keys"))


def joined(pieces: Sequence[RowKeys], views: int) -> RowKeys:
    """The keys of the rows of all pieces, in order. views: of each piece; there may be none."""
    empty = RowKeys(
        np.empty((0, views, 2), np.uint64), np.empty((0, views, 2), np.uint64), np.empty((0, views), np.int32)
    )
    every = [empty, *pieces]
    return RowKeys(
        np.concatenate([piece.texts for piece in every]),
        np.concatenate([piece.tokens for piece in every]),
        np.concatenate([piece.lengths for piece in every]),
    )
