"""Reading a run back: sha256 of many files at once, each byte read once; of a merged matrix, of its pieces too."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from embedkit.storage.atomic import BLOCK_BYTES, read_into, sha256_file
from embedkit.storage.cpus import available_cpus


class Digests(NamedTuple):
    """sha256 of a file and of each of its pieces, hexadecimal."""

    whole: str
    pieces: tuple[str, ...]


class ReadBack:
    """Digests of files, made by as many threads as there are CPUs."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(available_cpus(), "read")
        self._asked: dict[Path, Future[Digests]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def ask_in_pieces(self, path: Path, borders: Sequence[int]) -> None:
        """Begin to read a file; its pieces lie between ascending borders, in bytes."""
        self._asked[path] = self._pool.submit(_digests_in_pieces, path, borders)

    def ask(self, paths: Iterable[Path]) -> None:
        """Begin to read files, the largest first; those that were asked for already, or are gone, are left out."""
        there = [path for path in paths if path not in self._asked and path.is_file()]
        for path in sorted(there, key=lambda path: (-path.stat().st_size, path)):
            self._asked[path] = self._pool.submit(_digest, path)

    def sha256(self, path: Path) -> str:
        """The digest of a file, hexadecimal, when it is read. Raises OSError if that failed."""
        asked = self._asked.get(path)
        return sha256_file(path) if asked is None else asked.result().whole

    def pieces(self, path: Path) -> tuple[str, ...]:
        """The digests of a file's pieces, when it is read; none if it was not asked for in pieces."""
        asked = self._asked.get(path)
        return () if asked is None else asked.result().pieces


def _digest(path: Path) -> Digests:
    return Digests(sha256_file(path), ())


def _digests_in_pieces(path: Path, borders: Sequence[int]) -> Digests:
    whole = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    pieces = _Pieces(borders)
    # Each digest is one chain, so a thread for the whole's: nothing else would keep up with the file.
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1, "whole") as beside:
        while count := read_into(file, buffer):
            update = beside.submit(whole.update, buffer[:count])
            pieces.update(buffer[:count])
            update.result()
    return Digests(whole.hexdigest(), pieces.digests())


class _Pieces:
    """The digests of what lies between borders in a stream of bytes."""

    def __init__(self, borders: Sequence[int]) -> None:
        self._spans = list(pairwise(borders))
        self._digests = [hashlib.sha256() for _ in self._spans]
        self._now = 0
        self._at = 0

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        stop = self._at + len(data)
        while self._now < len(self._spans):
            first, last = self._spans[self._now]
            if first < stop:
                self._digests[self._now].update(data[max(first - self._at, 0) : last - self._at])
            if last > stop:
                break
            self._now += 1
        self._at = stop

    def digests(self) -> tuple[str, ...]:
        """Of each piece, as far as it was there."""
        return tuple(digest.hexdigest() for digest in self._digests)
