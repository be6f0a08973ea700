"""Attempts at a shard: the next one keeps what an earlier one made durable, and nothing else."""

import dataclasses
import errno
import hashlib
import os
import re
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from safetensors import safe_open

from embedkit.documents import read_back
from embedkit.documents.schema import Chunk, EngineRecord, EngineSettings, PlanShard, Vectors
from embedkit.embed import shard_file
from embedkit.embed.journal import JOURNAL, journals
from embedkit.embed.shard_file import ShardFile
from embedkit.engines.hash import HashEngine
from embedkit.errors import AttemptReplaced

SETTINGS = EngineSettings(
    device="cpu", dtype="float32", max_length=8, chunk_tokens=9, token_budget=9, max_sequences=9, eager=True
)
RECORD = HashEngine(SETTINGS).record
SHARD = PlanShard(start=100, stop=130, tokens=30, cost_seconds=1.0, chunks=(100, 110, 120, 130))


def vectors(start: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(start).standard_normal((10, RECORD.dim)).astype(np.float32)


def chunk(start: int) -> Chunk:
    digest = hashlib.sha256(vectors(start).tobytes()).hexdigest()
    return Chunk(
        start=start,
        stop=start + 10,
        tokens=10,
        inputs_sha256="",
        views={"combined": Vectors(sha256=digest, empty=0, norm_min=1, norm_max=1)},
        seconds=1,
    )


CANARY = np.ones((3, RECORD.dim), np.float32).tobytes()


@dataclasses.dataclass
class Attempts:
    folder: Path
    count: int = 0

    def start(
        self, plan: str = "plan", engine: EngineRecord = RECORD, canary: bytes = CANARY, wrong: tuple[int, ...] = ()
    ) -> ShardFile:
        self.count += 1
        file = ShardFile(self.folder, 3, SHARD, ["combined"], plan, engine, canary, f"attempt-{self.count}")
        file.adopt(lambda chunk, data: chunk.start not in wrong)
        return file


def fill(file: ShardFile) -> None:
    """Append all three chunks."""
    for start in (100, 110, 120):
        file.append(chunk(start), {"combined": vectors(start)})


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    return Attempts(tmp_path / "00003")


def test_a_whole_attempt_is_a_safetensors_file(attempts: Attempts) -> None:
    with attempts.start() as file:
        fill(file)
        file.read_back()
        path = attempts.folder / file.finish()["combined"].name
    with safe_open(path, "np") as tensors:
        assert np.array_equal(tensors.get_tensor("embeddings"), np.concatenate([vectors(s) for s in (100, 110, 120)]))


def test_a_chunk_is_in_the_files_when_append_returns(attempts: Attempts) -> None:
    """Not in a buffer of the process: its bytes and its line survive a kill at once."""
    with attempts.start() as file:
        matrix = attempts.folder / "attempt-1.combined.safetensors.partial"
        for count, start in enumerate((100, 110, 120), 1):
            file.append(chunk(start), {"combined": vectors(start)})
            rows = np.frombuffer(matrix.read_bytes(), "<f4", offset=matrix.stat().st_size - 30 * RECORD.dim * 4)
            assert np.array_equal(rows.reshape(30, -1)[start - 100 : start - 90], vectors(start))
            (journal,) = journals(attempts.folder)
            assert [one.start for one in journal.chunks] == [100, 110, 120][:count]


def test_durable_chunks_are_adopted_from_all_attempts(attempts: Attempts) -> None:
    with attempts.start() as first:
        first.append(chunk(100), {"combined": vectors(100)})
    with attempts.start() as second:
        assert set(second.chunks) == {100}
        second.append(chunk(120), {"combined": vectors(120)})
    with attempts.start() as third:
        assert set(third.chunks) == {100, 120}
        third.append(chunk(110), {"combined": vectors(110)})
        third.read_back()
        path = attempts.folder / third.finish()["combined"].name
    with safe_open(path, "np") as tensors:
        assert np.array_equal(tensors.get_tensor("embeddings")[10:20], vectors(110))


def test_a_torn_journal_line_counts_for_nothing(attempts: Attempts) -> None:
    with attempts.start() as first:
        first.append(chunk(100), {"combined": vectors(100)})
        first.append(chunk(110), {"combined": vectors(110)})
    journal = next(attempts.folder.glob("*.journal.jsonl"))
    whole = journal.read_bytes()
    for cut in range(1, 60, 7):
        journal.write_bytes(whole[:-cut])
        with attempts.start() as file:
            assert set(file.chunks) == {100}
        for path in attempts.folder.glob(f"attempt-{attempts.count}.*"):
            path.unlink()
    journal.write_bytes(whole[:20])
    assert journals(attempts.folder) == []


def test_a_flipped_byte_costs_its_chunk(attempts: Attempts) -> None:
    with attempts.start() as first:
        fill(first)
    matrix = next(attempts.folder.glob("*.partial"))
    data = bytearray(matrix.read_bytes())
    data[len(data) // 2] ^= 1
    matrix.write_bytes(data)
    with attempts.start() as second:
        assert set(second.chunks) == {100, 120}


def test_chunks_of_another_plan_or_engine_are_not_adopted(attempts: Attempts) -> None:
    with attempts.start() as first:
        first.append(chunk(100), {"combined": vectors(100)})
    with attempts.start(engine=msgspec.structs.replace(RECORD, gpu="another GPU")) as third:
        assert third.adopted == 0
    with attempts.start(plan="another") as second:
        assert second.adopted == 0


def test_chunks_of_another_canary_are_not_adopted(attempts: Attempts) -> None:
    with attempts.start() as first:
        first.append(chunk(100), {"combined": vectors(100)})
    for canary in (np.full((3, RECORD.dim), 1.1, np.float32).tobytes(), CANARY[: RECORD.dim * 4], b""):
        with attempts.start(canary=canary) as other:
            assert other.adopted == 0
    with attempts.start(canary=(np.frombuffer(CANARY, np.float32) * np.float32(1 + 1e-6)).tobytes()) as same:
        assert same.adopted == 1


def test_an_attempt_whose_last_chunk_is_not_right_is_not_adopted(attempts: Attempts) -> None:
    with attempts.start() as first:
        first.append(chunk(100), {"combined": vectors(100)})
    with attempts.start() as second:
        second.append(chunk(110), {"combined": vectors(110)})
    with attempts.start(wrong=(110,)) as third:
        assert set(third.chunks) == {100}  # of the first attempt
    with attempts.start(wrong=(100,)) as fourth:
        assert set(fourth.chunks) == {100, 110}  # a later chunk of the same attempt agrees


def test_chunks_wait_for_their_engine(attempts: Attempts) -> None:
    with attempts.start() as first:
        first.append(chunk(100), {"combined": vectors(100)})
    for _ in range(3):
        with attempts.start(engine=msgspec.structs.replace(RECORD, gpu="another GPU")) as other:
            assert other.adopted == 0
    with attempts.start() as last:
        assert last.adopted == 1


def test_attempts_do_not_pile_up(attempts: Attempts) -> None:
    for start in (100, 110, 120):
        with attempts.start() as file:
            file.append(chunk(start), {"combined": vectors(start)})
        for _ in range(5):
            attempts.start().__exit__(None, None, None)
        assert len(list(attempts.folder.iterdir())) <= 4
    with attempts.start() as last:
        assert set(last.chunks) == {100, 110, 120}


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))


def test_what_is_damaged_before_the_end_is_made_again(attempts: Attempts) -> None:
    """In header, chunk and journal, of a durable chunk; the digests are those of the bytes as they were computed."""
    with attempts.start() as file:
        fill(file)
        matrix, journal = (
            attempts.folder / "attempt-1.combined.safetensors.partial",
            attempts.folder / f"attempt-1{JOURNAL}",
        )
        before = matrix.read_bytes(), journal.read_bytes()
        flip(matrix, 3)
        flip(matrix, matrix.stat().st_size // 2)
        flip(journal, 700)
        with matrix.open("ab") as longer:
            longer.write(b"more")
        damaged = file.read_back()
        assert [re.search(r"header or size|ids \d+ to \d+|journal", what)[0] for what in damaged] == [  # type: ignore[index]
            "header or size",
            "ids 110 to 119",
            "journal",
        ]
        assert journal.read_bytes() == before[1]
        assert set(file.chunks) == {100, 120}
        file.append(chunk(110), {"combined": vectors(110)})
        assert file.read_back() == []
        record = file.finish()["combined"]
    whole = (attempts.folder / record.name).read_bytes()
    assert whole == before[0]
    assert (record.bytes, record.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


@pytest.mark.parametrize("what", ["header", "longer", "shorter", "journal"])
def test_each_damage_alone_is_made_good_durably(what: str, attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written again is flushed to the disk, so that the next reading is of the disk and not of memory."""
    with attempts.start() as file:
        fill(file)
        matrix, journal = (
            attempts.folder / "attempt-1.combined.safetensors.partial",
            attempts.folder / f"attempt-1{JOURNAL}",
        )
        damaged = journal if what == "journal" else matrix
        before, size = damaged.read_bytes(), damaged.stat().st_size
        if what in ("header", "journal"):
            flip(damaged, 3)
        elif what == "longer":
            os.truncate(damaged, size + 4)
        else:
            os.truncate(damaged, size - 1)
        synced: dict[int, bytes] = {}
        fsync = os.fsync

        def recorded(fd: int) -> None:
            synced[os.fstat(fd).st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()
            fsync(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", recorded)
            found = file.read_back()
        assert found[0].startswith(
            f"{damaged}: its {'bytes were' if what == 'journal' else 'header or size was'} damaged"
        )
        if what == "shorter":
            assert "ids 120 to 129 were damaged" in found[1]
            file.append(chunk(120), {"combined": vectors(120)})
        else:
            assert len(found) == 1
            assert synced == {damaged.stat().st_ino: before}
        assert damaged.read_bytes() == before
        assert file.read_back() == []


@pytest.mark.parametrize("removed", ["attempt-1.combined.safetensors.partial", f"attempt-1{JOURNAL}"])
def test_files_removed_during_the_read_back_end_the_attempt(
    removed: str, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another attempt may remove them at any moment, also after this one has looked whether they are there."""
    with attempts.start() as file:
        fill(file)
        assert file.read_back() == []
        monkeypatch.setattr(shard_file, "drop_cached", lambda path: (attempts.folder / removed).unlink(missing_ok=True))
        with pytest.raises(AttemptReplaced, match="another attempt at shard 3 took over"):
            file.read_back()
        if "partial" in removed:
            with pytest.raises(AttemptReplaced, match="another attempt at shard 3 took over"):
                file.finish()


@pytest.mark.parametrize(("is_there", "error"), [(True, OSError), (False, AttemptReplaced)])
def test_a_stale_handle_of_a_stand_in_counts_as_another_attempt_if_the_file_is_gone(
    is_there: bool, error: type[Exception], attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system gives ESTALE in both cases."""
    with attempts.start() as file:
        fill(file)
        journal = next(attempts.folder.glob(f"*{JOURNAL}"))

        def stale(path: Path) -> None:
            if not is_there:
                journal.unlink()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(journal))

        monkeypatch.setattr(shard_file, "drop_cached", stale)
        with pytest.raises(error, match="Stale file handle" if is_there else "another attempt at shard 3 took over"):
            file.read_back()


def test_reading_reports_progress_block_by_block(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog's limit is for a block or a chunk, not for all views of a large shard."""
    renewed: list[int] = []
    monkeypatch.setattr(shard_file, "renew_limit", lambda: renewed.append(1))
    monkeypatch.setattr(read_back, "BLOCK_BYTES", 1000)
    with attempts.start() as file:
        fill(file)
        file.read_back()
        assert len(renewed) > 30 * RECORD.dim * 4 // 1000
    renewed.clear()
    with attempts.start() as second:
        assert len(second.chunks) == 3
        assert len(renewed) >= 3
