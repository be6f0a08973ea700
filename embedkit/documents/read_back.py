"""Reads a run back: digests of many files in parallel. Each byte is read once, Parquet files over 256 MB twice.

A run is larger than memory. So `ahead` starts to read a few files before they are needed, and `forget` drops what was
read of a file when it was used. What is small for each file, such as its digests, may be requested of all files at
once, so that no CPU waits while the caller works.
"""

import contextlib
import hashlib
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from itertools import count, islice, pairwise
from pathlib import Path
from queue import PriorityQueue
from threading import Semaphore
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedkit.documents.checked_file import read_checked
from embedkit.documents.codec import size_problem
from embedkit.documents.matrix_file import NormRange, norm_range, row_norms
from embedkit.documents.schema import Dtype, FileRecord
from embedkit.documents.stored_numbers import item_bytes
from embedkit.documents.table_rows import NO_HASHES, Hashes, TableRows, hash_pieces, read_table_rows
from embedkit.errors import EmbedkitError
from embedkit.storage import BLOCK_BYTES, available_cpus, read_into, sha256_file

IN_MEMORY_BYTES = 256 << 20
"""A larger Parquet file is hashed first and decoded in a second reading."""
TABLES_AT_ONCE = 8
"""Each table may hold a whole part and one decoded column of a row group."""
AHEAD_PER_CPU = 2
MOST_AHEAD = 16
"""Files that are read before they are used, so that no CPU waits. What was read of them is in memory."""
TABLE_WORK = 32
"""Decoding and hashing the rows of a table without long texts takes as long as the sha256 of so many times its size."""

T = TypeVar("T")


class Digests(NamedTuple):
    """sha256 of a file and of each of its pieces, hexadecimal; if requested, what its rows have.

    rows: hash of each, uint64 (rows,). norms: range of the rows of each piece.
    """

    whole: str
    pieces: tuple[str, ...] = ()
    rows: Hashes = NO_HASHES
    norms: tuple[NormRange, ...] = ()


class Table(NamedTuple):
    """A Parquet file that was read: its sha256, and its rows or why they cannot be decoded.

    `rows` is None if the bytes are not those of the record: decoding a damaged file may crash the reader.
    """

    whole: str
    rows: TableRows | None = None
    problem: str = ""


class ReadBack:
    """Computes digests of files with one thread per CPU, and one more for while another waits for the disk.

    What the caller needs soon is read first, in the order of the requests, then what takes longest: a long file that is
    begun last would leave CPUs idle at the end.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(available_cpus() + 1, "read")
        self._waiting: PriorityQueue[tuple[float, int, Callable[[], None]]] = PriorityQueue()
        self._requests = count()
        self._files: dict[Path, Future[Digests]] = {}
        self._tables: dict[Path, Future[Table]] = {}
        self._table_slots = Semaphore(TABLES_AT_ONCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def submit_matrix(
        self,
        path: Path,
        row_bytes: int,
        borders: Sequence[int],
        hash_rows: bool = False,
        store: Dtype = "float32",
    ) -> None:
        """Start to read a matrix file and digest its pieces; for the arguments see digests_in_pieces."""
        read = partial(digests_in_pieces, path, borders, row_bytes, hash_rows, store=store, keep_cached=False)
        self._files[path] = self._start(read, _size(path))

    def submit_table(
        self, path: Path, record: FileRecord, hashed: Sequence[str], keep: Sequence[str], soon: bool = True
    ) -> None:
        """Start to read a Parquet file and, if it is as recorded, its rows.

        hashed, keep: see read_table_rows. soon: whether the caller needs it soon.
        """
        if path.is_file():
            read = partial(self._digest_table, path, record, hashed, keep)
            self._tables[path] = self._start(read, record.bytes * TABLE_WORK, soon)

    def submit(self, paths: Iterable[Path], soon: bool = False) -> None:
        """Start to read files. Skips those that are missing or already submitted. soon: as for submit_table."""
        for path in paths:
            if path not in self._files and path not in self._tables and path.is_file():
                self._files[path] = self._start(partial(_digest, path), _size(path), soon)

    def _start(self, read: Callable[[], T], work: int, soon: bool = False) -> Future[T]:
        """Have something read as soon as a thread is free and nothing is left that comes before it."""
        future: Future[T] = Future()
        self._waiting.put((-math.inf if soon else -work, next(self._requests), partial(_settle, future, read)))
        self._pool.submit(self._read_next)
        return future

    def _read_next(self) -> None:
        self._waiting.get_nowait()[-1]()

    def sha256(self, path: Path) -> str:
        """Digest of a file, hexadecimal; waits until it is read. Raises OSError if it cannot be read."""
        future = self._tables.get(path) or self._files.get(path)
        return sha256_file(path) if future is None else future.result().whole

    def pieces(self, path: Path) -> tuple[str, ...]:
        """Digests of a file's pieces; waits until it is read. Empty if it was not submitted in pieces."""
        future = self._files.get(path)
        return () if future is None else future.result().pieces

    def row_hashes(self, path: Path) -> Hashes:
        """Hashes of a matrix's rows, uint64 (rows,); waits until it is read. Empty if they were not requested."""
        future = self._files.get(path)
        return NO_HASHES if future is None else future.result().rows

    def norms(self, path: Path) -> tuple[NormRange, ...]:
        """Ranges of the lengths of the rows of a matrix's pieces; waits until it is read. Empty as for `pieces`."""
        future = self._files.get(path)
        return () if future is None else future.result().norms

    def table(self, path: Path) -> Table:
        """What is in a Parquet file; waits until it is read. Without rows if it is missing or was not submitted."""
        future = self._tables.get(path)
        return Table("") if future is None else future.result()

    def forget(self, path: Path) -> None:
        """Drop what was read of a file, except its sha256; waits until it is read. Raises nothing."""
        future = self._tables.pop(path, None) or self._files.get(path)
        if future is None:
            return
        whole: Future[Digests] = Future()
        error = future.exception()
        if error is None:
            whole.set_result(Digests(future.result().whole))
        else:
            whole.set_exception(error)
        self._files[path] = whole

    def _digest_table(self, path: Path, record: FileRecord, hashed: Sequence[str], keep: Sequence[str]) -> Table:
        with self._table_slots:
            source: Path | pa.Buffer = path
            if record.bytes > IN_MEMORY_BYTES or size_problem(path, record) is not None:
                whole = sha256_file(path, keep_cached=False)
                if whole != record.sha256:
                    return Table(whole)
            else:
                try:
                    source = pa.py_buffer(read_checked(path, record, keep_cached=False))
                except EmbedkitError:
                    return Table(sha256_file(path, keep_cached=False))
            try:
                return Table(record.sha256, read_table_rows(source, hashed, keep))
            except (pa.ArrowException, OSError) as error:
                return Table(record.sha256, None, f"cannot be decoded: {error}")


def ahead(items: Iterable[T], start: Callable[[T], None]) -> Iterator[T]:
    """Yield items in order. `start` is called with an item a few items before, for the first few at once."""
    coming = iter(items)
    started: deque[T] = deque()

    def start_next(count: int) -> None:
        for item in islice(coming, count):
            start(item)
            started.append(item)

    def rest() -> Iterator[T]:
        while started:
            start_next(1)
            yield started.popleft()

    start_next(min(AHEAD_PER_CPU * available_cpus(), MOST_AHEAD))
    return rest()


def _size(path: Path) -> int:
    """Bytes of a file; 0 if it is not there, which whoever reads it will notice."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _settle(future: Future[T], read: Callable[[], T]) -> None:
    try:
        future.set_result(read())
    except BaseException as error:  # whoever waits gets it
        future.set_exception(error)


def _digest(path: Path) -> Digests:
    return Digests(sha256_file(path, keep_cached=False))


def digests_in_pieces(
    path: Path,
    borders: Sequence[int],
    row_bytes: int = 1,
    hash_rows: bool = False,
    progress: Callable[[], None] = lambda: None,
    store: Dtype = "float32",
    keep_cached: bool = True,
) -> Digests:
    """Digests of a file and of its pieces, in one reading.

    Args:
        path: the file.
        borders: the pieces lie between these positions in bytes, ascending. The rows begin at the first.
        row_bytes: bytes of a row. If they are whole numbers of the stored type, pieces get the range of their norms.
        hash_rows: whether to hash each row, too.
        progress: called after each block that was read.
        store: type of the stored numbers.
        keep_cached: as for read_into.
    """
    digests, hashes, norms = StreamDigests(borders), [NO_HASHES], list[npt.NDArray[np.float32]]()
    buffer = memoryview(bytearray(max(BLOCK_BYTES // row_bytes, 1) * row_bytes))
    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(1, "whole") as beside:
        digests.update(memoryview(file.read(borders[0])))
        while filled := read_into(file, buffer, keep_cached):
            digests.update(buffer[:filled], beside)
            if hash_rows:
                hashes.append(hash_pieces(buffer[:filled], row_bytes))
            if row_bytes % item_bytes(store) == 0 and len(borders) > 1:
                norms.append(row_norms(buffer[:filled], row_bytes, store))
            progress()
    return digests.result()._replace(rows=np.concatenate(hashes), norms=_ranges(norms, borders, row_bytes))


def _ranges(norms: Sequence[npt.NDArray[np.float32]], borders: Sequence[int], row_bytes: int) -> tuple[NormRange, ...]:
    """The range of each piece. norms: of all rows from the first border on; none if they were not measured."""
    if not norms:
        return ()
    of_rows = np.concatenate(norms)
    rows = [(border - borders[0]) // row_bytes for border in borders]
    return tuple(norm_range(of_rows[first:last]) for first, last in pairwise(rows))


def drop_cached(path: Path) -> None:
    """Ask the system to forget its copy of a file in memory, so that the next reading is of what the disk has.

    The file must be durable (fsync) already. It is a request: tmpfs and some network file systems keep the bytes, and a
    disk or a server may answer from a cache of its own.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb", buffering=0) as file, contextlib.suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class StreamDigests:
    """Digests of a stream of bytes and of its pieces, for a reader that also uses the bytes, such as merge.

    Call `update` with every byte of the file in order, its header included, then `result`. The pieces lie between
    ascending borders in bytes; an incomplete piece counts as far as the stream went.
    """

    def __init__(self, borders: Sequence[int]) -> None:
        self._whole = hashlib.sha256()
        self._spans = list(pairwise(borders))
        self._pieces = [hashlib.sha256() for _ in self._spans]
        self._now = 0
        self._at = 0

    def update(self, data: memoryview, beside: Executor | None = None) -> None:
        """Add the next bytes. A digest cannot be split over threads: `beside` digests the whole, this one a piece."""
        if beside is None:
            self._whole.update(data)
            self._update_pieces(data)
            return
        whole = beside.submit(self._whole.update, data)
        self._update_pieces(data)
        whole.result()

    def _update_pieces(self, data: memoryview) -> None:
        stop = self._at + len(data)
        while self._now < len(self._spans):
            first, last = self._spans[self._now]
            if first < stop:
                self._pieces[self._now].update(data[max(first - self._at, 0) : last - self._at])
            if last > stop:
                break
            self._now += 1
        self._at = stop

    def result(self) -> Digests:
        """Digests of the bytes so far."""
        return Digests(self._whole.hexdigest(), tuple(piece.hexdigest() for piece in self._pieces))
