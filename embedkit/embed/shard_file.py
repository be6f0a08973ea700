"""The files of one attempt at a shard: one matrix per view, filled chunk by chunk, and a journal.

An attempt writes `<attempt>.<view>.safetensors.partial`, sized for the whole shard from the start. Once a chunk's bytes
are durable in every view, it appends a line with their sha256 to `<attempt>.journal.jsonl`. A later attempt copies the
chunks of earlier journals, if plan and engine are the same and the bytes still match, and embeds the rest. So a kill
loses at most the chunk in progress, attempts never share a file, and a shard has few files.
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

from embedkit.documents import (
    FORMAT,
    ITEM_BYTES,
    Chunk,
    EngineRecord,
    JournalHeader,
    PlanShard,
    View,
    decode_line,
    encode_line,
    matrix_header,
)
from embedkit.embed.canary import canary_distance, canary_tolerance
from embedkit.errors import EmbedkitError
from embedkit.storage import add_file, durable_rename, fsync_folder, name_file

log = logging.getLogger(__name__)

JOURNAL = ".journal.jsonl"
MATRIX = ".safetensors"
PARTIAL = ".safetensors.partial"


@dataclass(frozen=True)
class Journal:
    """A journal up to its first damaged or incomplete line."""

    header: JournalHeader
    chunks: tuple[Chunk, ...]


def read_journal(path: Path) -> Journal | None:
    """Read a journal; None if it is missing or its header is damaged."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return None
    try:
        header = decode_line(lines[0], JournalHeader, path)
    except (IndexError, EmbedkitError):
        return None
    if f"{header.attempt}{JOURNAL}" != path.name:
        return None  # an attempt's files are found and removed by its name
    chunks = []
    for line in lines[1:]:
        try:
            chunks.append(decode_line(line, Chunk, path))
        except EmbedkitError:
            break
    return Journal(header, tuple(chunks))


def journals(folder: Path) -> list[Journal]:
    """The readable journals in a shard's folder, oldest attempt first."""
    found = [journal for path in folder.glob(f"*{JOURNAL}") if (journal := read_journal(path)) is not None]
    return sorted(found, key=lambda journal: (journal.header.started, journal.header.attempt))


def durable_chunks(folder: Path) -> dict[int, Chunk]:
    """The durable chunks of a shard by first id, from all attempts whose matrices still exist."""
    found = [journal for journal in journals(folder) if has_matrices(folder, journal)]
    return {chunk.start: chunk for journal in found for chunk in journal.chunks}


def matrix_path(folder: Path, attempt: str, view: View) -> Path | None:
    """The matrix of an attempt, finished or not; None if it is gone."""
    paths = (folder / f"{attempt}.{view}{ending}" for ending in (PARTIAL, MATRIX))
    return next((path for path in paths if path.is_file()), None)


def has_matrices(folder: Path, journal: Journal) -> bool:
    """Whether the matrices of a journal exist. Without one of them, none of its chunks can be adopted."""
    views = {view for chunk in journal.chunks[:1] for view in chunk.views}
    return all(matrix_path(folder, journal.header.attempt, view) is not None for view in views)


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
            with name_file(Path(matrix.name)):
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
        if isinstance(error, OSError):  # a failed write names no file
            add_file(error, self._folder / f"{self._attempt}.*")
        for file in (*self._matrices.values(), self._journal):
            file.close()

    def adopt(self, gives_same_vectors: Callable[[Chunk, dict[View, bytes]], bool]) -> None:
        """Copy the durable chunks of earlier attempts that fit this plan, engine record and canary.

        An attempt that was killed has no second canary. So `gives_same_vectors` embeds a row of its last chunk again.
        If the vector differs, none of that attempt's chunks are copied.

        Then the files of attempts that are not needed any more are removed, so that a shard that is stopped again and
        again does not fill the disk. The newest attempt's files stay: it may still run, on a node that seemed dead.
        """
        wanted = set(pairwise(self._plan_shard.chunks))
        others = [journal for journal in journals(self._folder) if journal.header.attempt != self._attempt]
        removable: list[Journal] = []
        for journal in others:
            header = journal.header
            # 1. No attempt can use a journal of another plan or shard.
            if (header.shard, header.plan_sha256) != (self._header.shard, self._header.plan_sha256):
                log.warning("attempt %s was made for another plan; its chunks are embedded again", header.attempt)
                removable.append(journal)
                continue
            # 2. Its engine and canary must be those of this attempt. If not, its files stay: a later attempt may match.
            # 3. The shortest row of its last chunk must give the same vector today.
            if not self._same_engine(header) or not self._last_chunk_agrees(journal, wanted, gives_same_vectors):
                continue
            # 4. Copy each chunk that is still missing and whose bytes match the journal.
            for chunk, data in self._whole_chunks(journal, wanted):
                self._write(chunk, data)
                wanted.discard((chunk.start, chunk.stop))
            removable.append(journal)
        self.adopted = len(self.chunks)
        # 5. Remove the files of these attempts, except the newest one's.
        for journal in [journal for journal in removable if journal is not others[-1]]:
            self._remove(journal.header.attempt)

    def _same_engine(self, header: JournalHeader) -> bool:
        """Whether an earlier attempt ran on this attempt's engine and got the same canary."""
        if header.engine != self._header.engine:
            log.warning("attempt %s ran on a different engine; its chunks are embedded again", header.attempt)
            return False
        if canary_distance(header.canary, self._header.canary, header.engine) > canary_tolerance(header.engine):
            log.warning(
                "attempt %s on %s had a different canary; its chunks are embedded again",
                *(header.attempt, header.host),
            )
            return False
        return True

    def _last_chunk_agrees(
        self,
        journal: Journal,
        wanted: set[tuple[int, int]],
        gives_same_vectors: Callable[[Chunk, dict[View, bytes]], bool],
    ) -> bool:
        """Whether the last wanted chunk of an earlier attempt passes the check; True if it has none."""
        last = next(self._whole_chunks(journal, wanted, newest_first=True), None)
        if last is None or gives_same_vectors(*last):
            return True
        log.warning(
            "attempt %s on %s: ids %d to %d have different vectors now; its chunks are embedded again",
            *(journal.header.attempt, journal.header.host, last[0].start, last[0].stop - 1),
        )
        return False

    def discard(self) -> None:
        """Remove the files of this attempt: its vectors cannot be trusted."""
        self._remove(self._attempt)

    def append(self, chunk: Chunk, vectors: Mapping[View, npt.NDArray[np.float32]]) -> None:
        """Make a chunk durable: its bytes first, then the journal line with their sha256."""
        self._write(chunk, {view: array.astype("<f4", copy=False).tobytes() for view, array in vectors.items()})

    def finish(self) -> dict[View, Path]:
        """Flush the matrices and rename them to their final names. Returns these paths."""
        paths = {view: self._folder / f"{self._attempt}.{view}{MATRIX}" for view in self._matrices}
        for view, path in paths.items():
            self._matrices[view].flush()
            durable_rename(path.with_name(f"{self._attempt}.{view}{PARTIAL}"), path)
        return paths

    def _whole_chunks(
        self, journal: Journal, wanted: set[tuple[int, int]], newest_first: bool = False
    ) -> Iterator[tuple[Chunk, dict[View, bytes]]]:
        """The journal's chunks that have wanted borders and whose bytes still match it, with these bytes per view."""
        with ExitStack() as stack:
            files: dict[View, BinaryIO] = {}
            for view in self._matrices:
                path = matrix_path(self._folder, journal.header.attempt, view)
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
                        "attempt %s: ids %d to %d are damaged and are embedded again",
                        *(journal.header.attempt, chunk.start, chunk.stop - 1),
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

    def _remove(self, attempt: str) -> None:
        for path in sorted(self._folder.glob(f"{attempt}.*")):
            path.unlink(missing_ok=True)

    def _append_line(self, line: bytes) -> None:
        self._journal.write(line)
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _bytes(self, start: int, stop: int) -> int:
        return (stop - start) * self._dim * ITEM_BYTES
