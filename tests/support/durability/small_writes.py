"""Small programs that write durably, each by one function of embedkit. Their steps are recorded, and made to fail.

`before` makes what was there before; its steps are not recorded. `write` makes a folder `returned-N` after each call
that promises that its files are durable.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from embedkit.analysis.write_files import write_npz, write_parquet
from embedkit.certificates import write_certificate
from embedkit.documents import FORMAT, Certificate, EngineRecord, FileRecord, FileSet, write
from embedkit.documents.file_set import atomic_write_hashed
from embedkit.run import RunFolder
from embedkit.storage import (
    atomic_write,
    atomic_write_bytes,
    durable_mkdir,
    fsync_file,
    names_file,
    run_lock,
    write_once,
)
from jobs.node.scratch import COMPILED, pack_compiled
from jobs.profiles import Resources, load_profile
from jobs.records import Submissions, new_submission, record_profile
from tests.support.durability.shard_writes import (
    VIEWS,
    adopt_chunks,
    damage_after,
    embed_shard,
    leave_attempts,
    returned,
)

RECORDED_FILE = FileRecord(name="a", bytes=1, sha256="0")

Program = Callable[[Path], None]


@dataclass(frozen=True)
class SmallWrite:
    """A small program.

    gives: the names that it gives to files by rename or link, in order. returns: how many calls return. before: makes
    what was there before. slow: microseconds that each fsync takes at least, so that who does not wait is seen.
    """

    write: Program
    gives: tuple[str, ...] = ()
    returns: int = 1
    before: Program = lambda folder: None
    slow: int = 0


def write_bytes(folder: Path) -> None:
    atomic_write_bytes(folder / "file", b"new")
    returned(folder)


def write_old(folder: Path) -> None:
    atomic_write_bytes(folder / "file", b"old")


def make_data_folder(folder: Path) -> None:
    (folder / "data").mkdir()


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


def lose_to_another(folder: Path) -> None:
    """Another writer has just linked its file, and its name is not durable yet. This one acts on it all the same."""
    other = folder / ".other.tmp"
    with names_file(other):
        other.write_bytes(b"first")
    fsync_file(other)
    os.link(other, folder / "manifest.json")
    other.unlink()
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
    write_parquet(folder / "table.parquet", pl.DataFrame({"a": [1, 2]}))
    returned(folder)
    write_npz(folder / "arrays.npz", {"a": np.arange(3)})
    returned(folder)


def hold_lock(folder: Path) -> None:
    with run_lock(folder / "merge.lease", "testing"):
        assert (folder / "merge.lease").exists()


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


def leave_damaged_profile(folder: Path) -> None:
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
SET = ("/all", "/sources/a/vectors", "/sources/b/vectors", "/sources/b/rows")
KERNELS = ("/compile_cache.tar", "/compile_cache.tar.sha256")
SHARD_MATRICES = tuple(f"/embeddings/shards/00003/new.{view}.safetensors" for view in VIEWS)
PROFILE = f"/profiles/cpu-{load_profile('cpu').sha256[:12]}.toml"


CERTIFICATES = ("/certificates/001.json", "/certificates/002.json")


def write_two_certificates(folder: Path) -> None:
    engine = EngineRecord(
        engine="hash",
        engine_version="1",
        torch="",
        cuda="",
        gpu="",
        attention="",
        compile="",
        dtype="float32",
        token_budget=1,
        dim=1,
    )
    certificate = Certificate(
        format=FORMAT,
        request_sha256="0",
        plan_sha256="0",
        engine=engine,
        compared=(),
        rows=1,
        seed=0,
        passed=False,
        job="",
        host="",
        at="",
    )
    for _ in range(2):
        write_certificate(RunFolder(folder), certificate)
        returned(folder)


SMALL_WRITES: dict[str, SmallWrite] = {
    "a file": SmallWrite(write_bytes, ("/file",)),
    "a file over another": SmallWrite(write_bytes, ("/file",), before=write_old),
    "a file written beside its folder": SmallWrite(write_beside, ("/data/file",), before=make_data_folder),
    "a hashed file": SmallWrite(write_hashed, ("/file",)),
    "a document": SmallWrite(write_document, ("/document.json",)),
    "a file of one writer": SmallWrite(write_exclusively, ("/manifest.json",), returns=2),
    "a file of another writer": SmallWrite(lose_to_another, ("/manifest.json",)),
    "a file of one writer, no links": SmallWrite(write_exclusively_without_links, ("/manifest.json",), returns=2),
    "folders": SmallWrite(make_folders, ("/one/two/file",)),
    "a set of files": SmallWrite(write_set, SET, slow=SLOW),
    "a set of files over another": SmallWrite(write_set, SET, before=write_set, slow=SLOW),
    "a set of files opened again": SmallWrite(write_set_reopened, SET, slow=SLOW),
    "files of an analysis": SmallWrite(write_analysis, ("/table.parquet", "/arrays.npz"), returns=2),
    "a run lock": SmallWrite(hold_lock, returns=0),
    "a shard": SmallWrite(embed_shard, SHARD_MATRICES, returns=4),
    "a shard with chunks of others": SmallWrite(adopt_chunks, SHARD_MATRICES, returns=3, before=leave_attempts),
    "a shard that was damaged": SmallWrite(damage_after, returns=4),
    "certificates": SmallWrite(write_two_certificates, CERTIFICATES, returns=2),
    "lines of submissions": SmallWrite(add_submissions, returns=2),
    "lines after a torn one": SmallWrite(add_submissions, returns=2, before=leave_torn_line),
    "a copy of a profile": SmallWrite(copy_profile, (PROFILE,)),
    "a damaged copy of a profile": SmallWrite(copy_profile, (PROFILE,), before=leave_damaged_profile),
    "packed kernels": SmallWrite(
        pack_kernels, ("/compile_cache.tar", "/compile_cache.tar.sha256"), before=compile_kernels
    ),
}
