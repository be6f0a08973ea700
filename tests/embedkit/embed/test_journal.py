"""Journals of attempts: which lines count, in which order, and which matrices they need."""

from pathlib import Path

import msgspec
import pytest

from embedkit.documents import JournalHeader, ShardManifest, encode_line, read
from embedkit.embed.journal import Journal, durable_chunks, has_matrices, journals, matrix_path, read_journal
from embedkit.embed.matrix_check import matrix_borders
from embedkit.embed.shard_file import ShardFile
from embedkit.run import RunFolder


@pytest.fixture
def folder(small_embedded: RunFolder) -> Path:
    return small_embedded.shard(1)


@pytest.fixture
def journal(folder: Path) -> Journal:
    (found,) = journals(folder)
    return found


def write(folder: Path, header: JournalHeader, lines: list[bytes]) -> Path:
    path = folder / f"{header.attempt}.journal.jsonl"
    path.write_bytes(b"".join([encode_line(header), *lines]))
    return path


def test_lines_count_up_to_the_first_damaged_one(folder: Path, journal: Journal) -> None:
    lines = [encode_line(chunk) for chunk in journal.chunks]
    torn = [lines[0], lines[1][:-1], lines[2]]
    assert read_journal(write(folder, journal.header, lines)) == journal
    assert read_journal(write(folder, journal.header, torn)) == Journal(journal.header, journal.chunks[:1])
    assert read_journal(write(folder, journal.header, [lines[0], b"\n", lines[2]])) == Journal(
        journal.header, journal.chunks[:1]
    )
    assert read_journal(write(folder, journal.header, [])) == Journal(journal.header, ())


def test_a_journal_without_its_header_is_none(folder: Path, journal: Journal) -> None:
    """Nor is one under the name of another attempt: its files could not be found."""
    path = folder / "x.journal.jsonl"
    assert read_journal(path) is None
    for data in (
        b"",
        b"\n",
        encode_line(journal.header)[:-1],
        encode_line(journal.chunks[0]),
        encode_line(journal.header),
    ):
        path.write_bytes(data)
        assert read_journal(path) is None
    assert journals(folder) == [journal]


def test_journals_are_ordered_by_their_start(folder: Path, journal: Journal) -> None:
    def add(attempt: str, later: float) -> str:
        header = msgspec.structs.replace(journal.header, attempt=attempt, started=journal.header.started + later)
        write(folder, header, [])
        return attempt

    own = journal.header.attempt
    names = [add("z", -5.0), add("b", -1.0), add("c", -1.0), own, add("a", 1.0)]
    assert [one.header.attempt for one in journals(folder)] == names


def test_chunks_are_durable_while_their_matrices_exist(folder: Path, journal: Journal) -> None:
    """Finished or not. Of two attempts the later one's line counts."""
    attempt = journal.header.attempt
    assert durable_chunks(folder) == {chunk.start: chunk for chunk in journal.chunks}
    later = msgspec.structs.replace(journal.header, attempt="later", started=journal.header.started + 1)
    changed = msgspec.structs.replace(journal.chunks[0], seconds=9.0)
    write(folder, later, [encode_line(changed)])
    assert durable_chunks(folder)[journal.chunks[0].start] == journal.chunks[0]
    for view in ("combined", "response"):
        (folder / f"later.{view}.safetensors.partial").touch()
    assert durable_chunks(folder)[journal.chunks[0].start] == changed
    assert len(durable_chunks(folder)) == 3
    (folder / f"{attempt}.response.safetensors").unlink()
    assert durable_chunks(folder) == {changed.start: changed}
    assert not has_matrices(folder, journal)
    assert has_matrices(folder, Journal(journal.header, ()))


def test_an_unfinished_matrix_is_found_before_a_finished_one(folder: Path, journal: Journal) -> None:
    attempt = journal.header.attempt
    finished = folder / f"{attempt}.combined.safetensors"
    partial = folder / f"{attempt}.combined.safetensors.partial"
    assert matrix_path(folder, attempt, "combined") == finished
    partial.touch()
    assert matrix_path(folder, attempt, "combined") == partial
    partial.unlink()
    finished.unlink()
    assert matrix_path(folder, attempt, "combined") is None


def test_borders_of_a_matrix_are_those_of_its_chunks(small_run: RunFolder) -> None:
    manifest = read(small_run.shard_manifest(1), ShardManifest)
    borders = matrix_borders(manifest.chunks, 25, 64)
    size = manifest.matrices["combined"].file.bytes
    header = size - 25 * 64 * 4
    assert borders == [0, header, header + 9 * 256, header + 17 * 256, size]


def test_a_journal_stays_while_its_attempt_has_a_finished_matrix(tmp_path: Path) -> None:
    """Files that are gone already, removed by a third attempt, are no error."""
    shard_file = ShardFile.__new__(ShardFile)
    shard_file._folder, shard_file._matrices = tmp_path, {"combined": None, "response": None}  # type: ignore[dict-item]
    shard_file._remove_unfinished("x")
    for name in ("x.journal.jsonl", "x.combined.safetensors.partial", "x.response.safetensors"):
        (tmp_path / name).touch()
    shard_file._remove_unfinished("x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.journal.jsonl", "x.response.safetensors"]
    (tmp_path / "x.response.safetensors").unlink()
    shard_file._remove_unfinished("x")
    assert list(tmp_path.iterdir()) == []
