"""Small programs that write durably, each by one function of embedkit. Their steps are recorded, and made to fail.

`before` makes what was there before; its steps are not recorded. `write` makes a folder `returned-N` after each call
that promises that its files are durable.
"""

import errno
import hashlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.stage import _write_npz, _write_parquet
from embedkit.documents import Chunk, EngineSettings, FileRecord, FileSet, PlanShard, Vectors, View, write
from embedkit.documents.file_set import atomic_write_hashed
from embedkit.embed.shard_file import ShardFile
from embedkit.engines.hash import HashEngine
from embedkit.run import RunFolder
from embedkit.storage import atomic_write, atomic_write_bytes, durable_mkdir, run_lock, write_once
from jobs.node.scratch import COMPILED, pack_compiled
from jobs.profiles import Resources, load_profile
from jobs.records import Submissions, new_submission, record_profile

SETTINGS = EngineSettings(
    device="cpu", dtype="float32", max_length=8, chunk_tokens=9, token_budget=9, max_sequences=9, eager=True
)
RECORD = HashEngine(SETTINGS).record
SHARD = PlanShard(start=100, stop=130, tokens=30, cost_seconds=1.0, chunks=(100, 110, 120, 130))
VIEWS: tuple[View, ...] = ("combined", "response")
CANARY = np.ones((3, RECORD.dim), np.float32).tobytes()
RECORDED_FILE = FileRecord(name="a", bytes=1, sha256="0")

Program = Callable[[Path], None]


@dataclass(frozen=True)
class SmallWrite:
    """A small program. slow: microseconds that each fsync takes at least, so that who does not wait is seen."""

    write: Program
    before: Program = lambda folder: None
    slow: int = 0


def returned(folder: Path) -> None:
    """Mark that a function has returned."""
    folder.joinpath(f"returned-{len(list(folder.glob('returned-*')))}").mkdir()


def write_bytes(folder: Path) -> None:
    atomic_write_bytes(folder / "file", b"new")
    returned(folder)


def write_beside(folder: Path) -> None:
    with atomic_write(folder / "data" / "file", temporary_folder=folder) as temporary:
        temporary.write_bytes(b"new")
    returned(folder)


def write_hashed(folder: Path) -> None:
    with atomic_write_hashed(folder / "file") as file:
        file.write(b"one")
        file.write(b"two")
    assert file.record.bytes == 6
    returned(folder)


def write_document(folder: Path) -> None:
    write(folder / "document.json", RECORDED_FILE)
    returned(folder)


def write_exclusively(folder: Path) -> None:
    assert write_once(folder / "manifest.json", b"first")
    returned(folder)
    assert not write_once(folder / "manifest.json", b"second")
    returned(folder)


def write_exclusively_without_links(folder: Path) -> None:
    """As where hard links are refused. The stand-in for link(2) stays in this process."""
    honest = os.link
    os.link = _refuse_link  # type: ignore[assignment]
    try:
        write_exclusively(folder)
    finally:
        os.link = honest


def _refuse_link(source: Path, target: Path) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(source))


def make_folders(folder: Path) -> None:
    durable_mkdir(folder / "one" / "two")
    atomic_write_bytes(folder / "one" / "two" / "file", b"new")
    returned(folder)


def write_set(folder: Path, expected: int = 4) -> None:
    with FileSet(expected) as files:
        for name in ("all", "sources/a/vectors", "sources/b/vectors", "sources/b/rows"):
            file = files.add(folder / name)
            file.write(name.encode())
            file.write(b"more")
        files.publish()
        returned(folder)


def write_set_reopened(folder: Path) -> None:
    """As where so many files cannot be open at once."""
    write_set(folder, expected=10**9)


def write_analysis(folder: Path) -> None:
    _write_parquet(folder / "table.parquet", pl.DataFrame({"a": [1, 2]}))
    returned(folder)
    _write_npz(folder / "arrays.npz", {"a": np.arange(3)})
    returned(folder)


def hold_lock(folder: Path) -> None:
    with run_lock(folder / "merge.lease", "testing"):
        assert (folder / "merge.lease").exists()


def vectors(start: int, view: View) -> npt.NDArray[np.float32]:
    """The vectors of a chunk, float32 (10, dim)."""
    return np.random.default_rng(start + len(view)).standard_normal((10, RECORD.dim)).astype(np.float32)


def chunk(start: int) -> Chunk:
    """A chunk of ten rows."""
    views = {
        view: Vectors(
            sha256=hashlib.sha256(vectors(start, view).tobytes()).hexdigest(), empty=0, norm_min=1, norm_max=1
        )
        for view in VIEWS
    }
    return Chunk(start=start, stop=start + 10, tokens=10, inputs_sha256="", views=views, seconds=1)


def _open_attempt(folder: Path, attempt: str) -> ShardFile:
    shard = folder / "embeddings" / "shards" / "00003"
    return ShardFile(shard, 3, SHARD, VIEWS, "plan", RECORD, CANARY, attempt)


def _append(folder: Path, file: ShardFile, starts: tuple[int, ...]) -> None:
    for start in starts:
        file.append(chunk(start), {view: vectors(start, view) for view in VIEWS})
        returned(folder)


def embed_shard(folder: Path) -> None:
    with _open_attempt(folder, "new") as file:
        _append(folder, file, SHARD.chunks[:-1])
        assert file.read_back() == []
        file.finish()
        returned(folder)


def leave_attempts(folder: Path) -> None:
    for attempt, starts in (("old-1", (100,)), ("old-2", (100, 110))):
        with _open_attempt(folder, attempt) as file:
            for start in starts:
                file.append(chunk(start), {view: vectors(start, view) for view in VIEWS})


def adopt_chunks(folder: Path) -> None:
    with _open_attempt(folder, "new") as file:
        file.adopt(lambda chunk, data: True)
        returned(folder)
        assert set(file.chunks) == {100, 110}
        _append(folder, file, (120,))
        assert file.read_back() == []
        file.finish()
        returned(folder)


def flip_bit(path: Path) -> None:
    """Damage a file as a disk does: no call of the system is recorded."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as data:
        data[3] ^= 1


def damage_after(folder: Path) -> None:
    """Each of the three files of an attempt is damaged before it is read back: they are written again."""
    with _open_attempt(folder, "new") as file:
        _append(folder, file, SHARD.chunks[:-1])
        for path in (folder / "embeddings" / "shards" / "00003").iterdir():
            flip_bit(path)
        assert len(file.read_back()) == 3
        returned(folder)


def add_submissions(folder: Path) -> None:
    line = new_submission("embed", "0-3", "", "submit", "x.toml", Resources())
    submissions = Submissions(RunFolder(folder))
    submissions.add(line)
    returned(folder)
    submissions.add_answer(line, "submitted", "17")
    returned(folder)


def leave_torn_line(folder: Path) -> None:
    (folder / "submissions.jsonl").write_bytes(b'{"torn')


def copy_profile(folder: Path) -> None:
    record_profile(RunFolder(folder), load_profile("cpu"))
    returned(folder)


def repair_profile(folder: Path) -> None:
    path = record_profile(RunFolder(folder), load_profile("cpu"))
    path.write_bytes(b"damaged")


def compile_kernels(folder: Path) -> None:
    for name in COMPILED.values():
        (folder / "compiled" / name).mkdir(parents=True)
        (folder / "compiled" / name / "kernel").write_bytes(b"compiled")


def pack_kernels(folder: Path) -> None:
    pack_compiled(RunFolder(folder), folder / "compiled")
    returned(folder)


SLOW = 20_000
SMALL_WRITES: dict[str, SmallWrite] = {
    "a file": SmallWrite(write_bytes),
    "a file over another": SmallWrite(write_bytes, lambda folder: atomic_write_bytes(folder / "file", b"old")),
    "a file written beside its folder": SmallWrite(write_beside, lambda folder: (folder / "data").mkdir()),
    "a hashed file": SmallWrite(write_hashed),
    "a document": SmallWrite(write_document),
    "a file of one writer": SmallWrite(write_exclusively),
    "a file of one writer, without links": SmallWrite(write_exclusively_without_links),
    "folders": SmallWrite(make_folders),
    "a set of files": SmallWrite(write_set, slow=SLOW),
    "a set of files over another": SmallWrite(write_set, write_set, slow=SLOW),
    "a set of files that are opened again": SmallWrite(write_set_reopened, slow=SLOW),
    "files of an analysis": SmallWrite(write_analysis),
    "a run lock": SmallWrite(hold_lock),
    "a shard": SmallWrite(embed_shard),
    "a shard with chunks of others": SmallWrite(adopt_chunks, leave_attempts),
    "a shard that was damaged": SmallWrite(damage_after),
    "lines of submissions": SmallWrite(add_submissions),
    "lines after a torn one": SmallWrite(add_submissions, leave_torn_line),
    "a copy of a profile": SmallWrite(copy_profile),
    "a damaged copy of a profile": SmallWrite(copy_profile, repair_profile),
    "packed kernels": SmallWrite(pack_kernels, compile_kernels),
}
