"""Turns texts into token ids, exactly as the model's own tokenizer does.

The reference is Hugging Face `tokenizers` with the model's tokenizer.json as tokenizer_file.py reads it: special tokens
added, nothing truncated or padded. fastokens gives the same ids about fifty times faster, if it can load the tokenizer.
It is a young library: it is not used where it is known to differ (fastokens_limits.py), and a sample of every part is
audited against the reference (audit.py).
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedkit.errors import UsageError
from embedkit.model.fastokens_limits import known_difference
from embedkit.model.tokenizer_file import read_tokenizer
from embedkit.preloaded import preloaded

BATCH_TEXTS = 256


@dataclass(frozen=True)
class TokenIds:
    """Token ids of n texts, flat: text i is ids[offsets[i]:offsets[i + 1]].

    ids: uint32 (tokens,); offsets: int64 (n + 1,).
    """

    ids: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> npt.NDArray[np.uint32]:
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[npt.NDArray[np.uint32]]:
        return (self[i] for i in range(len(self)))

    def take(self, texts: Sequence[int]) -> "TokenIds":
        """The ids of these texts only, in the given order."""
        picked = [self[i] for i in texts]
        return _flat(picked, [np.array([len(ids) for ids in picked], np.int64)])

    def without(self, emptied: npt.NDArray[np.bool_]) -> "TokenIds":
        """The same texts; those marked in `emptied`, bool (n,), get no ids."""
        if not emptied.any():
            return self
        kept = ~emptied
        return _flat([self.ids[np.repeat(kept, self.lengths)]], [np.where(kept, self.lengths, 0)])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each text, int64 (n,)."""
        return np.diff(self.offsets)


class Tokenizer(Protocol):
    """Turns texts into token ids. `name` is the library and its version."""

    name: str

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of the texts, special tokens added."""
        ...

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of ids of each text, int64 (n,)."""
        ...


class HfTokenizer:
    """The reference: Hugging Face tokenizers."""

    def __init__(self, tokenizer: str, prefix: str = "", loaded: Any = None) -> None:
        """Load a tokenizer given as JSON; `prefix` is put before every text. Raises ValueError if it cannot.

        loaded: the library's tokenizer, if it is there already; then `tokenizer` is not read.
        """
        from tokenizers import Tokenizer as Backend  # a large library, which most commands do not need

        self.name = f"tokenizers {version('tokenizers')}"
        self._prefix = prefix
        try:
            self.backend = loaded or Backend.from_str(tokenizer)
        except Exception as error:  # tokenizers raises the base class
            raise ValueError(str(error)) from None

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of the texts, special tokens added."""
        batches = _batches(texts, self._prefix)
        return _join([[e.ids for e in self.backend.encode_batch_fast(batch)] for batch in batches])

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of ids of each text, int64 (n,)."""
        return self.encode(texts).lengths


class FastTokenizer:
    """fastokens: byte-pair encodings only."""

    def __init__(self, tokenizer: str, prefix: str = "", loaded: Any = None) -> None:
        """As for HfTokenizer."""
        from fastokens._native import Tokenizer as Backend  # a large library; not installed everywhere

        self.name = f"fastokens {version('fastokens')}"
        self._prefix = prefix
        self._backend: Any = loaded or Backend.from_json_str(tokenizer)

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of the texts, special tokens added."""
        batches = list(map(self._encode, _batches(texts, self._prefix)))
        return _flat([ids for ids, _ in batches], [lengths for _, lengths in batches])

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of ids of each text, int64 (n,)."""
        batches = _batches(texts, self._prefix)
        return np.concatenate([np.zeros(0, np.int64), *(self._encode(batch)[1] for batch in batches)])

    def _encode(self, texts: list[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Ids of all texts, flat, and the number of ids of each text."""
        flat, offsets = self._backend.encode_batch_flat(texts, add_special_tokens=True)
        return np.frombuffer(flat, np.uint32), np.diff(np.frombuffer(offsets, np.uint64).astype(np.int64))


def load_tokenizer(model: Path, prefix: str = "") -> Tokenizer:
    """Load the fastest tokenizer for the model folder that gives the reference's ids.

    prefix: put before every text, before anything else is done with it, as sentence-transformers does with prompts. Of
    an empty text it makes a text: callers that want no tokens for one must know which texts were empty.
    """
    there = preloaded(model)
    if there is not None and there.fast is not None:
        return FastTokenizer("", prefix, there.fast)
    if there is not None:
        return HfTokenizer("", prefix, there.reference)
    tokenizer, use_fast = tokenizer_to_preload(model)
    if use_fast:
        try:
            return FastTokenizer(tokenizer, prefix)
        except ValueError:
            pass  # a kind of tokenizer that fastokens does not support
    return reference_of(model, tokenizer, prefix)


def load_reference(model: Path, prefix: str = "") -> HfTokenizer:
    """Load the reference tokenizer of the model folder; `prefix` as in `load_tokenizer`."""
    there = preloaded(model)
    if there is not None:
        return HfTokenizer("", prefix, there.reference)
    return reference_of(model, read_tokenizer(model), prefix)


def tokenizer_to_preload(model: Path) -> tuple[str, bool]:
    """The tokenizer of the model folder as JSON, and whether fastokens is used for it, if it can load it."""
    tokenizer = read_tokenizer(model)
    return tokenizer, _has_fastokens() and known_difference(tokenizer) is None


def reference_of(model: Path, tokenizer: str, prefix: str = "") -> HfTokenizer:
    """The reference for a tokenizer, given as JSON, of the model folder. Raises UsageError if it cannot be loaded."""
    try:
        return HfTokenizer(tokenizer, prefix)
    except ValueError as error:
        raise UsageError(
            f"{model / 'tokenizer.json'}: not a tokenizer that Hugging Face tokenizers can load: {error}"
        ) from None


def _has_fastokens() -> bool:
    if os.environ.get("EMBEDKIT_TOKENIZER") == "hf":
        return False
    try:
        version("fastokens")
    except PackageNotFoundError:
        return False
    return True


def _batches(texts: Sequence[str], prefix: str) -> Iterator[list[str]]:
    for i in range(0, len(texts), BATCH_TEXTS):
        yield [prefix + text for text in texts[i : i + BATCH_TEXTS]]


def _join(batches: list[list[list[int]]]) -> TokenIds:
    texts = [np.array(ids, np.uint32) for batch in batches for ids in batch]
    return _flat(texts, [np.array([len(ids) for ids in texts], np.int64)])


def _flat(ids: list[npt.NDArray[np.uint32]], lengths: list[npt.NDArray[np.int64]]) -> TokenIds:
    joined = np.concatenate(ids) if ids else np.zeros(0, np.uint32)
    offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    return TokenIds(joined, offsets)
