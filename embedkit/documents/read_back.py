"""Reads a run back: sha256 of many files in parallel, and of the pieces of a merged matrix. Each byte is read once."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from embedkit.storage import BLOCK_BYTES, available_cpus, read_into, sha256_file


class Digests(NamedTuple):
    """sha256 of a file and of each of its pieces, hexadecimal."""

    whole: str
    pieces: tuple[str, ...]


class ReadBack:
    """Computes digests of files with one thread per CPU."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(available_cpus(), "read")
        self._futures: dict[Path, Future[Digests]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit_in_pieces(self, path: Path, borders: Sequence[int]) -> None:
        """Start to read a file and digest its pieces, which lie between ascending borders in bytes."""
        self._futures[path] = self._pool.submit(_digests_in_pieces, path, borders)

    def submit(self, paths: Iterable[Path]) -> None:
        """Start to read files, the largest first. Skips files that are missing or already submitted."""
        there = [path for path in paths if path not in self._futures and path.is_file()]
        for path in sorted(there, key=lambda path: (-path.stat().st_size, path)):
            self._futures[path] = self._pool.submit(_digest, path)

    def sha256(self, path: Path) -> str:
        """Digest of a file, hexadecimal; waits until it is read. Raises OSError if it cannot be read."""
        future = self._futures.get(path)
        return sha256_file(path) if future is None else future.result().whole

    def pieces(self, path: Path) -> tuple[str, ...]:
        """Digests of a file's pieces; waits until it is read. Empty if it was not submitted in pieces."""
        future = self._futures.get(path)
        return () if future is None else future.result().pieces


def _digest(path: Path) -> Digests:
    return Digests(sha256_file(path), ())


def _digests_in_pieces(path: Path, borders: Sequence[int]) -> Digests:
    whole = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK_BYTES))
    pieces = PieceDigests(borders)
    # A digest cannot be split over threads. The whole file's gets a thread of its own, beside that of the pieces.
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1, "whole") as beside:
        while count := read_into(file, buffer):
            update = beside.submit(whole.update, buffer[:count])
            pieces.update(buffer[:count])
            update.result()
    return Digests(whole.hexdigest(), pieces.digests())


class PieceDigests:
    """Digests of the pieces between borders in a stream of bytes."""

    def __init__(self, borders: Sequence[int]) -> None:
        self._spans = list(pairwise(borders))
        self._digests = [hashlib.sha256() for _ in self._spans]
        self._now = 0
        self._at = 0

    def update(self, data: memoryview) -> None:
        """Add the next bytes of the stream."""
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
        """Digest of each piece; an incomplete piece counts as far as the stream went."""
        return tuple(digest.hexdigest() for digest in self._digests)
