"""Reading a run back: sha256 of many files at once, each byte read once, a matrix beside the shards it is made of."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from embedkit.cpus import available_cpus
from embedkit.files import BLOCK_BYTES, sha256_file

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
    of_whole = hashlib.sha256()
    of_pieces: dict[Path, str] = {}
    differs: dict[Path, int] = {}
    buffers = np.empty((2, BLOCK_BYTES), np.uint8)
    # Two digests are made at a time: the whole's is one chain, so nothing else would keep up with it.
    with whole.open("rb", buffering=0) as whole_file, ThreadPoolExecutor(1, "beside") as beside:
        of_whole.update(whole_file.read(offset))
        for piece in pieces:
            of_piece = hashlib.sha256()
            at = 0
            with piece.path.open("rb", buffering=0) as file:
                of_piece.update(file.read(piece.offset))
                while len(block := _read(file, buffers[0])):
                    there = _read(whole_file, buffers[1][: len(block)])
                    update = beside.submit(of_whole.update, there.data)
                    of_piece.update(block.data)
                    update.result()
                    if piece.path not in differs and not np.array_equal(block, there):
                        differs[piece.path] = at + _first_difference(block, there)
                    at += len(block)
            of_pieces[piece.path] = of_piece.hexdigest()
        while len(rest := _read(whole_file, buffers[1])):
            of_whole.update(rest.data)
    return _SideBySide(of_whole.hexdigest(), of_pieces, differs)


def _read(file: BinaryIO, buffer: Bytes) -> Bytes:
    """Fill the buffer, or as much as there is; the part that was filled."""
    filled = 0
    while filled < len(buffer) and (count := file.readinto(buffer[filled:].data)):  # type: ignore[attr-defined]
        filled += count
    return buffer[:filled]


def _first_difference(a: Bytes, b: Bytes) -> int:
    size = min(len(a), len(b))
    unequal = np.flatnonzero(a[:size] != b[:size])
    return int(unequal[0]) if len(unequal) else size
