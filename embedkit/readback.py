"""Reading a run back: sha256 of many files at once, each byte read once, a matrix beside the shards it is made of."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from embedkit.cpus import available_cpus
from embedkit.files import BLOCK_BYTES, read_into, sha256_file

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """A file whose bytes from `offset` on are also in a larger file, one piece after the other."""

    path: Path
    offset: int


@dataclass(frozen=True)
class _SideBySide:
    """sha256 of the whole and of the pieces, and where a piece first differs from it, in bytes after its offset."""

    whole: str
    pieces: dict[Path, str]
    differs: dict[Path, int]


class ReadBack:
    """Digests of files, made by as many threads as there are CPUs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(available_cpus(), "read")
        self._digests: dict[Path, Future[str]] = {}
        self._compared: dict[Path, Future[_SideBySide]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask(self, paths: Iterable[Path]) -> None:
        """Begin to read files, the largest first; those that are read beside others, or gone, are left out."""
        there = [path for path in paths if path not in self._compared and path.is_file()]
        for path in sorted(there, key=lambda path: (-path.stat().st_size, path)):
            self._digests[path] = self._pool.submit(sha256_file, path)

    def ask_side_by_side(self, whole: Path, offset: int, pieces: Sequence[Piece]) -> None:
        """Begin to read a file and, beside it from `offset` on, those that it is to be the pieces of."""
        future = self._pool.submit(_read_side_by_side, whole, offset, pieces)
        self._compared |= dict.fromkeys([whole, *(piece.path for piece in pieces)], future)

    def sha256(self, path: Path) -> str:
        """The digest of a file, hexadecimal, when it is read. Raises OSError if that failed."""
        if path in self._compared:
            both = self._compared[path].result()
            return both.pieces.get(path, both.whole)
        future = self._digests.get(path)
        return sha256_file(path) if future is None else future.result()

    def difference(self, piece: Path) -> int | None:
        """Where a piece first differs from its place in the whole, in bytes after its offset; None if nowhere."""
        return self._compared[piece].result().differs.get(piece)


def _read_side_by_side(whole: Path, offset: int, pieces: Sequence[Piece]) -> _SideBySide:
    of_pieces: dict[Path, str] = {}
    differs: dict[Path, int] = {}
    # Two threads, since the whole's digest is one chain: nothing else would keep up with it.
    with whole.open("rb", buffering=0) as whole_file, ThreadPoolExecutor(1, "beside") as beside:
        of_whole = _Stream(whole_file, offset)
        for piece in pieces:
            at = 0
            with piece.path.open("rb", buffering=0) as file:
                of_piece = _Stream(file, piece.offset)
                rest = piece.path.stat().st_size - piece.offset
                while at < rest:
                    other = beside.submit(of_whole.read, min(rest - at, BLOCK_BYTES))
                    block, there = of_piece.read(BLOCK_BYTES), other.result()
                    if not len(block):
                        break  # it became shorter; its digest says so
                    if piece.path not in differs and not np.array_equal(block, there):
                        differs[piece.path] = at + _first_difference(block, there)
                    at += len(block)
            of_pieces[piece.path] = of_piece.sha256
        while len(of_whole.read(BLOCK_BYTES)):
            pass
    return _SideBySide(of_whole.sha256, of_pieces, differs)


class _Stream:
    """A file that is read and hashed on the way; its first `offset` bytes are hashed alone."""

    def __init__(self, file: FileIO, offset: int) -> None:
        self._file = file
        self._digest = hashlib.sha256(file.read(offset))
        self._buffer = np.empty(BLOCK_BYTES, np.uint8)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, size: int) -> Bytes:
        """The next bytes, as many as there are up to `size`; good until the next call."""
        count = read_into(self._file, self._buffer[:size].data)
        self._digest.update(self._buffer[:count].data)
        return self._buffer[:count]


def _first_difference(a: Bytes, b: Bytes) -> int:
    size = min(len(a), len(b))
    unequal = np.flatnonzero(a[:size] != b[:size])
    return int(unequal[0]) if len(unequal) else size
