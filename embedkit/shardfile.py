"""What one attempt at a shard leaves on disk: a matrix that fills up chunk by chunk, and its journal.

An attempt writes `<attempt>.safetensors.partial`, sized for the whole shard from the start, and appends a
line to `<attempt>.journal.jsonl` once a chunk's bytes are durable. A later attempt copies every chunk that
any journal of the same plan and engine record vouches for and whose bytes still hash to it, and computes the
rest. So a kill costs the chunk in hand, attempts never share a file, and a shard has few files.
"""

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from embedkit.errors import EmbedkitError
from embedkit.files import fsync_folder, rename_durably
from embedkit.matrix import ITEM_BYTES, matrix_header
from embedkit.records import FORMAT, Chunk, EngineRecord, JournalHeader, PlanShard, decode_line, encode_line

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


class ShardFile:
    """The matrix and journal of one attempt, open for writing."""

    def __init__(
        self, folder: Path, shard: int, plan_shard: PlanShard, plan_sha256: str, engine: EngineRecord, attempt: str
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
        self._matrix = (folder / f"{attempt}{PARTIAL}").open("xb+")
        self._matrix.write(header)
        self._matrix.truncate(len(header) + self._bytes(plan_shard.start, plan_shard.stop))
        self._journal = (folder / f"{attempt}{JOURNAL}").open("xb")
        self._header = JournalHeader(
            format=FORMAT,
            shard=shard,
            attempt=attempt,
            plan_sha256=plan_sha256,
            engine=engine,
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
        self._matrix.close()
        self._journal.close()

    def adopt(self) -> None:
        """Copy the durable chunks of earlier attempts that fit this plan and engine record.

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
            for chunk, data in self._whole_chunks(journal):
                if (chunk.start, chunk.stop) in wanted and chunk.start not in self.chunks:
                    self._write(chunk, data)
            useless.append(journal)
        self.adopted = len(self.chunks)
        for journal in [journal for journal in useless if journal is not others[-1]]:
            for path in sorted(self._folder.glob(f"{journal.header.attempt}.*")):
                path.unlink(missing_ok=True)

    def append(self, chunk: Chunk, vectors: npt.NDArray[np.float32]) -> None:
        """Make a chunk durable: its bytes first, then the journal line that vouches for them."""
        self._write(chunk, vectors.astype("<f4", copy=False).tobytes())

    def finish(self) -> Path:
        """Flush the matrix and give it its final name, which is returned."""
        self._matrix.flush()
        path = self._folder / f"{self._attempt}{MATRIX}"
        rename_durably(self._folder / f"{self._attempt}{PARTIAL}", path)
        return path

    def _whole_chunks(self, journal: Journal) -> Iterator[tuple[Chunk, bytes]]:
        """The journal's chunks whose bytes are still what the journal says."""
        names = [f"{journal.header.attempt}{ending}" for ending in (PARTIAL, MATRIX)]
        path = next((self._folder / name for name in names if (self._folder / name).is_file()), None)
        if path is None:
            return
        with path.open("rb") as file:
            for chunk in journal.chunks:
                file.seek(self._data_offset + self._bytes(self._plan_shard.start, chunk.start))
                data = file.read(self._bytes(chunk.start, chunk.stop))
                if hashlib.sha256(data).hexdigest() == chunk.vectors_sha256:
                    yield chunk, data
                else:
                    log.warning("%s: rows %d to %d are damaged; computed again", path, chunk.start, chunk.stop)

    def _write(self, chunk: Chunk, data: bytes) -> None:
        self._matrix.seek(self._data_offset + self._bytes(self._plan_shard.start, chunk.start))
        self._matrix.write(data)
        self._matrix.flush()
        os.fsync(self._matrix.fileno())
        self._append_line(encode_line(chunk))
        self.chunks[chunk.start] = chunk

    def _append_line(self, line: bytes) -> None:
        self._journal.write(line)
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def _bytes(self, start: int, stop: int) -> int:
        return (stop - start) * self._dim * ITEM_BYTES
