"""The files that attempts at a shard leave: their names, and what a journal says is durable."""

from dataclasses import dataclass
from pathlib import Path

from embedkit.documents import Chunk, JournalHeader, View, decode_line
from embedkit.errors import EmbedkitError

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
