"""What one attempt at a shard leaves on disk: a matrix a view that fills up chunk by chunk, and a journal.

An attempt writes `<attempt>.<view>.safetensors.partial`, sized for the whole shard from the start, and appends
a line to `<attempt>.journal.jsonl` once a chunk's bytes are durable in every view. A later attempt copies every
chunk that any journal of the same plan and engine record vouches for and whose bytes still hash to it, and
computes the rest. So a kill costs the chunk in hand, attempts never share a file, and a shard has few files.
"""

import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from embedkit.documents.codec import decode_line, encode_line
from embedkit.documents.matrix_file import ITEM_BYTES, matrix_header
from embedkit.documents.schema import FORMAT, Chunk, EngineRecord, JournalHeader, PlanShard, View
from embedkit.embed.canary import distance, tolerance
from embedkit.errors import EmbedkitError
from embedkit.storage.atomic import durable_rename, fsync_folder

log = logging.getLogger(__name__)

JOURNAL = ".journal.jsonl"
MATRIX = ".safetensors"
PARTIAL = ".safetensors.partial"


@dataclass(frozen=True)
class Journal:
    """A journal as far as it is whole; a line that is damaged or that a kill cut short ends it."""

    header: JournalHeader
    chunks: tuple[Chunk, ...]


def read_journal(path: Path) -> Journal | None:
    """Read a journal; None if not even its header is whole."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    try:
        header = decode_line(lines[0], JournalHeader, path)
    except (IndexError, EmbedkitError):
        return None
    if f"{header.attempt}{JOURNAL}" != path.name:
        return None  # files are found, and removed, by the attempt's name
    chunks = []
    for line in lines[1:]:
        try:
            chunks.append(decode_line(line, Chunk, path))
        except EmbedkitError:
            break
    return Journal(header, tuple(chunks))


def journals(folder: Path) -> list[Journal]:
    """All readable journals of a shard's folder, oldest attempt first."""
    found = [journal for path in folder.glob(f"*{JOURNAL}") if (journal := read_journal(path)) is not None]
    return sorted(found, key=lambda journal: (journal.header.started, journal.header.attempt))


def durable_chunks(folder: Path) -> int:
    """How many chunks of a shard some attempt made durable."""
    return len({chunk.start for journal in journals(folder) for chunk in journal.chunks})


class ShardFile:
    """The matrices and journal of one attempt, open for writing."""

    def __init__(
        self,
        folder: Path,
        shard: int,
        plan_shard: PlanShard,
        views: Sequence[View],
        plan_sha256: str,
        engine: EngineRecord,
        canary: bytes,
        attempt: str,
    ) -> None:
        self.chunks: dict[int, Chunk] = {}
        self.adopted = 0
        self._folder = folder
        self._plan_shard = plan_shard
        self._dim = engine.dim
        self._attempt = attempt
        header = matrix_header(plan_shard.stop - plan_shard.start, engine.dim)
        self._data_offset = len(header)
        folder.mkdir(parents=True, exist_ok=True)
        self._matrices = {view: (folder / f"{attempt}.{view}{PARTIAL}").open("xb") for view in views}
        for matrix in self._matrices.values():
            matrix.write(header)
            matrix.truncate(len(header) + self._bytes(plan_shard.start, plan_shard.stop))
        self._journal = (folder / f"{attempt}{JOURNAL}").open("xb")
        self._header = JournalHeader(
            format=FORMAT,
            shard=shard,
            attempt=attempt,
            plan_sha256=plan_sha256,
            engine=engine,
            canary=canary,
            host=socket.gethostname(),
            started=time.time(),
        )
        self._append_line(encode_line(self._header))
        fsync_folder(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (*self._matrices.values(), self._journal):
            file.close()

    def adopt(self, is_right: Callable[[Chunk, dict[View, bytes]], bool]) -> None:
        """Copy the durable chunks of earlier attempts that fit this plan, engine record and canary.

        An attempt that was killed had no second canary, so `is_right` is asked about the last chunk that each made;
        if it is not, none of that attempt's chunks is copied.

        The files of attempts that are of no more use are removed, so that a shard that is stopped again and again
        does not fill the disk; but not the newest: it may be alive, on a node that was thought dead.
        """
        wanted = set(pairwise(self._plan_shard.chunks))
        useless: list[Journal] = []
        others = [journal for journal in journals(self._folder) if journal.header.attempt != self._attempt]
        for journal in others:
            header = journal.header
            if (header.shard, header.plan_sha256) != (self._header.shard, self._header.plan_sha256):
                log.warning("attempt %s was made for another plan; its chunks are computed again", header.attempt)
                useless.append(journal)
                continue
            if header.engine != self._header.engine:
                log.warning("attempt %s ran on another engine; its chunks are computed again", header.attempt)
                continue
            if distance(header.canary, self._header.canary, header.engine) > tolerance(header.engine):
                log.warning(
                    "attempt %s had another canary (%s); its chunks are computed again", *(header.attempt, header.host)
                )
                continue
            last = next(self._whole_chunks(journal, wanted, newest_first=True), None)
            if last is not None and not is_right(*last):
                log.warning(
                    "attempt %s on %s: ids %d to %d have other vectors now; its chunks are computed again",
                    *(header.attempt, header.host, last[0].start, last[0].stop - 1),
                )
                continue
            for chunk, data in self._whole_chunks(journal, wanted):
                self._write(chunk, data)
                wanted.discard((chunk.start, chunk.stop))
            useless.append(journal)
        self.adopted = len(self.chunks)
        for journal in [journal for journal in useless if journal is not others[-1]]:
            for path in sorted(self._folder.glob(f"{journal.header.attempt}.*")):
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what this attempt wrote: it is not to be trusted."""
        for path in sorted(self._folder.glob(f"{self._attempt}.*")):
            path.unlink(missing_ok=True)

    def append(self, chunk: Chunk, vectors: Mapping[View, npt.NDArray[np.float32]]) -> None:
        """Make a chunk durable: its bytes first, then the journal line that vouches for them."""
        self._write(chunk, {view: array.astype("<f4", copy=False).tobytes() for view, array in vectors.items()})

    def finish(self) -> dict[View, Path]:
        """Flush the matrices and give them their final names, which are returned."""
        paths = {view: self._folder / f"{self._attempt}.{view}{MATRIX}" for view in self._matrices}
        for view, path in paths.items():
            self._matrices[view].flush()
            durable_rename(path.with_name(f"{self._attempt}.{view}{PARTIAL}"), path)
        return paths

    def _whole_chunks(
        self, journal: Journal, wanted: set[tuple[int, int]], newest_first: bool = False
    ) -> Iterator[tuple[Chunk, dict[View, bytes]]]:
        """The journal's chunks with wanted borders whose bytes are still what the journal says."""
        with ExitStack() as stack:
            files: dict[View, BinaryIO] = {}
            for view in self._matrices:
                names = [f"{journal.header.attempt}.{view}{ending}" for ending in (PARTIAL, MATRIX)]
                path = next((self._folder / name for name in names if (self._folder / name).is_file()), None)
                if path is None:
                    return
                files[view] = stack.enter_context(path.open("rb"))
            for chunk in reversed(journal.chunks) if newest_first else journal.chunks:
                if (chunk.start, chunk.stop) not in wanted:
                    continue
                data = {view: self._read(file, chunk) for view, file in files.items()}
                hashes = {view: hashlib.sha256(view_data).hexdigest() for view, view_data in data.items()}
                if hashes == {view: vectors.sha256 for view, vectors in chunk.views.items()}:
                    yield chunk, data
                else:
                    log.warning(
                        "attempt %s: rows %d to %d are damaged; computed again",
                        *(journal.header.attempt, chunk.start, chunk.stop),
                    )

    def _read(self, file: BinaryIO, chunk: Chunk) -> bytes:
        file.seek(self._data_offset + self._bytes(self._plan_shard.start, chunk.start))
        return file.read(self._bytes(chunk.start, chunk.stop))

    def _write(self, chunk: Chunk, data: Mapping[View, bytes]) -> None:
        for view, matrix in self._matrices.items():
            matrix.seek(self._data_offset + self._bytes(self._plan_shard.start, chunk.start))
            matrix.write(data[view])
            matrix.flush()
            os.fsync(matrix.fileno())
        self._append_line(encode_line(chunk))
        self.chunks[chunk.start] = chunk

    def _append_line(self, line: bytes) -> None:
        self._journal.write(line)
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _bytes(self, start: int, stop: int) -> int:
        return (stop - start) * self._dim * ITEM_BYTES
