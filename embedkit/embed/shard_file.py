"""The files of one attempt at a shard: one matrix per view, filled chunk by chunk, and a journal.

An attempt writes `<attempt>.<view>.safetensors.partial`, sized for the whole shard from the start. Once a chunk's bytes
are durable in every view, it appends a line with their sha256 to `<attempt>.journal.jsonl`. A later attempt copies the
chunks of earlier journals, if plan and engine are the same and the bytes still match, and embeds the rest. So a kill
loses at most the chunk in progress, attempts never share a file, and a shard has few files.

A chunk's sha256 is computed from its vectors in memory. Before the matrices get their final names, they are read back
once, and each chunk is compared (`read_back`).
"""

import errno
import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from embedkit.documents import (
    FORMAT,
    Chunk,
    Dtype,
    EngineRecord,
    FileRecord,
    JournalHeader,
    PlanShard,
    Stored,
    View,
    digests_in_pieces,
    drop_cached,
    encode_line,
    item_bytes,
    matrix_header,
)
from embedkit.embed.canary import canary_distance, canary_tolerance
from embedkit.embed.journal import JOURNAL, MATRIX, PARTIAL, Journal, journals, matrix_path
from embedkit.embed.matrix_check import differing_chunks, has_right_header, matrix_borders
from embedkit.embed.watchdog import renew_limit
from embedkit.errors import AttemptReplaced
from embedkit.storage import durable_mkdir, durable_rename, fsync_folder, names_file

log = logging.getLogger(__name__)


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
        store: Dtype = "float32",
    ) -> None:
        self.chunks: dict[int, Chunk] = {}
        self.adopted = 0
        self._folder = folder
        self._plan_shard = plan_shard
        self._dim = engine.dim
        self._store = store
        self._attempt = attempt
        header = matrix_header(plan_shard.stop - plan_shard.start, engine.dim, store)
        self._matrix_header = header
        self._data_offset = len(header)
        self._lines: list[bytes] = []
        self._sha256: dict[View, str] = {}
        durable_mkdir(folder)
        self._matrices = {view: self._partial(view).open("xb") for view in views}
        for view, matrix in self._matrices.items():
            with names_file(self._partial(view)):
                matrix.write(header)
                matrix.truncate(len(header) + self._bytes(plan_shard.start, plan_shard.stop))
        self._journal_path = folder / f"{attempt}{JOURNAL}"
        self._journal = self._journal_path.open("xb")
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
        paths = [*map(self._partial, self._matrices), self._journal_path]
        for path, file in zip(paths, (*self._matrices.values(), self._journal), strict=True):
            with names_file(path):
                file.close()

    def adopt(self, gives_same_vectors: Callable[[Chunk, dict[View, bytes]], bool]) -> None:
        """Copy the durable chunks of earlier attempts that fit this plan, engine record and canary.

        An attempt that was killed has no second canary. So `gives_same_vectors` embeds a row of its last chunk again.
        If the vector differs, none of that attempt's chunks are copied.

        Then the files of attempts that are not needed any more are removed, so that a shard that is stopped again and
        again does not fill the disk. The newest attempt's files stay: it may still run, on a node that seemed dead.
        Finished matrices stay too, with their journal: their attempt may be about to publish its manifest.
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
            self._remove_unfinished(journal.header.attempt)

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
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith(f"{self._attempt}."):
                path.unlink(missing_ok=True)

    def append(self, chunk: Chunk, vectors: Mapping[View, Stored]) -> None:
        """Make a chunk durable: the bytes of its stored vectors first, then the journal line with their sha256."""
        self._write(chunk, {view: array.tobytes() for view, array in vectors.items()})

    def read_back(self) -> list[str]:
        """Read the whole matrices from the disk and compare header, chunks and journal with what was written.

        A damaged chunk does not count any more and must be appended again. A header or journal is written again here.
        Returns what was damaged, with file and ids; `finish` may follow once nothing is.
        """
        with self._replaced_if_gone():
            return self._read_matrices_back() + self._read_journal_back()

    def _read_matrices_back(self) -> list[str]:
        damaged: list[str] = []
        chunks = [self.chunks[start] for start in self._plan_shard.chunks[:-1]]
        rows = self._plan_shard.stop - self._plan_shard.start
        borders = matrix_borders(chunks, rows, self._dim, self._store)
        self._sha256 = {}
        for view, matrix in self._matrices.items():
            path = self._partial(view)
            drop_cached(path)
            digests = digests_in_pieces(path, borders, progress=renew_limit)
            size = os.fstat(matrix.fileno()).st_size
            if not has_right_header(rows, self._dim, digests, self._store) or size != borders[-1]:
                damaged.append(f"{path}: its header or size was damaged after it was written")
                with names_file(path):
                    matrix.seek(0)
                    matrix.write(self._matrix_header)
                    matrix.truncate(borders[-1])
                    matrix.flush()
                    os.fsync(matrix.fileno())
            for chunk in differing_chunks(chunks, view, digests):
                damaged.append(f"{path}: ids {chunk.start} to {chunk.stop - 1} were damaged after they were written")
                self.chunks.pop(chunk.start, None)
            self._sha256[view] = digests.whole
        return damaged

    def _read_journal_back(self) -> list[str]:
        """Compare the journal with the lines written to it. Write it again if it differs, and say so."""
        path = self._journal_path
        drop_cached(path)
        lines = b"".join(self._lines)
        if path.read_bytes() == lines:
            return []
        with names_file(path):
            self._journal.seek(0)
            self._journal.write(lines)
            self._journal.truncate()
            self._journal.flush()
            os.fsync(self._journal.fileno())
        return [f"{path}: its bytes were damaged after they were written"]

    def finish(self) -> dict[View, FileRecord]:
        """Rename the matrices to their final names. Returns name, size and sha256 of each, as `read_back` found them.

        The sha256 are those of a reading in which every chunk was as computed. A byte that goes bad later differs.
        """
        records = {}
        for view in self._matrices:
            path = self._folder / f"{self._attempt}.{view}{MATRIX}"
            with self._replaced_if_gone():
                durable_rename(self._partial(view), path)
            size = self._data_offset + self._bytes(self._plan_shard.start, self._plan_shard.stop)
            records[view] = FileRecord(name=path.name, bytes=size, sha256=self._sha256[view])
        return records

    def _partial(self, view: View) -> Path:
        return self._folder / f"{self._attempt}.{view}{PARTIAL}"

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
                try:
                    files[view] = stack.enter_context(path.open("rb"))
                except FileNotFoundError:  # a third attempt has just removed it
                    return
            for chunk in reversed(journal.chunks) if newest_first else journal.chunks:
                if (chunk.start, chunk.stop) not in wanted:
                    continue
                renew_limit()
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
            with names_file(self._partial(view)):
                matrix.seek(self._data_offset + self._bytes(self._plan_shard.start, chunk.start))
                matrix.write(data[view])
                matrix.flush()
                os.fsync(matrix.fileno())
        with self._replaced_if_gone():
            self._append_line(encode_line(chunk))
        self.chunks[chunk.start] = chunk

    def _remove_unfinished(self, attempt: str) -> None:
        """Remove the unfinished matrices of another attempt, then its journal, unless it has finished a matrix.

        Without one of its unfinished matrices it cannot finish any more. It notices at its next chunk.
        """
        for view in self._matrices:
            (self._folder / f"{attempt}.{view}{PARTIAL}").unlink(missing_ok=True)
        if not any((self._folder / f"{attempt}.{view}{MATRIX}").exists() for view in self._matrices):
            (self._folder / f"{attempt}{JOURNAL}").unlink(missing_ok=True)

    @contextmanager
    def _replaced_if_gone(self) -> Iterator[None]:
        """Raise AttemptReplaced if another attempt has removed a file of this one, before a step or during it."""
        try:
            for view, matrix in self._matrices.items():
                if not os.fstat(matrix.fileno()).st_nlink:  # it is still open here
                    raise FileNotFoundError(errno.ENOENT, "", str(self._partial(view)))
            yield
        except OSError as error:
            path = Path(error.filename or self._folder)
            # NFS gives ESTALE for a file that another host has removed, and for other reasons.
            if error.errno != errno.ENOENT and not (error.errno == errno.ESTALE and not path.exists()):
                raise
            raise AttemptReplaced(
                f"{path}: another attempt at shard {self._header.shard} took over the chunks "
                "of this one and removed this file. This attempt ends"
            ) from None

    def _append_line(self, line: bytes) -> None:
        self._lines.append(line)
        with names_file(self._journal_path):
            self._journal.write(line)
            self._journal.flush()
            os.fsync(self._journal.fileno())

    def _bytes(self, start: int, stop: int) -> int:
        return (stop - start) * self._dim * item_bytes(self._store)
