"""Turns texts into token ids, exactly as the model's own tokenizer does.

The reference is Hugging Face `tokenizers` with the model's tokenizer.json: special tokens added, nothing truncated or
padded. fastokens gives the same ids about fifty times faster, if it can load the tokenizer. It is a young library, so
a sample of every part is audited against the reference.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embedkit.errors import EmbedkitError, UsageError

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

    def __init__(self, file: Path, prefix: str = "") -> None:
        self._prefix = prefix
        from tokenizers import Tokenizer as Backend  # a large library, which most commands do not need

        self.name = f"tokenizers {version('tokenizers')}"
        try:
            self._backend = Backend.from_file(str(file))
        except Exception as error:  # tokenizers raises the base class
            raise UsageError(f"{file}: not a tokenizer that Hugging Face tokenizers can load: {error}") from None
        self._backend.no_truncation()
        self._backend.no_padding()

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of the texts, special tokens added."""
        return _join(
            [
                [e.ids for e in self._backend.encode_batch_fast(list(b))]
                for b in _batches([self._prefix + text for text in texts])
            ]
        )

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of ids of each text, int64 (n,)."""
        return self.encode(texts).lengths


class FastTokenizer:
    """fastokens: byte-pair encodings only. Raises ValueError for a tokenizer that it cannot load."""

    def __init__(self, file: Path, prefix: str = "") -> None:
        self._prefix = prefix
        from fastokens._native import Tokenizer as Backend  # a large library; not installed everywhere

        self.name = f"fastokens {version('fastokens')}"
        self._backend: Any = Backend.from_file(str(file))

    def encode(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of the texts, special tokens added."""
        batches = list(map(self._encode, _batches([self._prefix + text for text in texts])))
        return _flat([ids for ids, _ in batches], [lengths for _, lengths in batches])

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        """Number of ids of each text, int64 (n,)."""
        return np.concatenate(
            [
                np.zeros(0, np.int64),
                *(self._encode(batch)[1] for batch in _batches([self._prefix + text for text in texts])),
            ]
        )

    def _encode(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """Ids of all texts, flat, and the number of ids of each text."""
        flat, offsets = self._backend.encode_batch_flat(list(texts), add_special_tokens=True)
        return np.frombuffer(flat, np.uint32), np.diff(np.frombuffer(offsets, np.uint64).astype(np.int64))


def load_tokenizer(model: Path, prefix: str = "") -> Tokenizer:
    """Load the fastest tokenizer for the model folder that gives the reference's ids."""
    file = tokenizer_file(model)
    if _has_fastokens():
        try:
            return FastTokenizer(file, prefix)
        except ValueError:
            pass  # a kind of tokenizer that fastokens does not support
    return HfTokenizer(file, prefix)


def load_reference(model: Path, prefix: str = "") -> HfTokenizer:
    """Load the reference tokenizer of the model folder."""
    return HfTokenizer(tokenizer_file(model), prefix)


def tokenizer_file(model: Path) -> Path:
    """Path of the model's tokenizer.json. Raises UsageError if the folder has none."""
    file = model / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"--model {model}: no tokenizer.json there; embedkit needs the model's fast tokenizer")
    return file


def audit(tokenizer: Tokenizer, reference: Tokenizer, texts: Sequence[str], rows: Sequence[int]) -> None:
    """Compare the ids of some texts. Raises EmbedkitError naming the first row whose ids differ."""
    if not texts:
        return
    got, wanted = tokenizer.encode(texts), reference.encode(texts)
    for i, row in enumerate(rows):
        if not np.array_equal(got[i], wanted[i]):
            raise EmbedkitError(
                f"row {row}: {tokenizer.name} gives other token ids than {reference.name}. Set "
                "EMBEDKIT_TOKENIZER=hf to count with the reference alone, and report the row to fastokens"
            )


def _has_fastokens() -> bool:
    if os.environ.get("EMBEDKIT_TOKENIZER") == "hf":
        return False
    try:
        version("fastokens")
    except PackageNotFoundError:
        return False
    return True


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[i : i + BATCH_TEXTS] for i in range(0, len(texts), BATCH_TEXTS)]


def _join(batches: list[list[list[int]]]) -> TokenIds:
    texts = [np.array(ids, np.uint32) for batch in batches for ids in batch]
    return _flat(texts, [np.array([len(ids) for ids in texts], np.int64)])


def _flat(ids: list[npt.NDArray[np.uint32]], lengths: list[npt.NDArray[np.int64]]) -> TokenIds:
    joined = np.concatenate(ids) if ids else np.zeros(0, np.uint32)
    offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    return TokenIds(joined, offsets)
