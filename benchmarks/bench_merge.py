"""merge and verify on runs as large as the first user's, beside copying and hashing the same bytes."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import DIM, TEXT_BYTES, Shape, fabricate
from benchmarks.measure import PYTHON, Figure, Took, cold, timed
from embedkit.documents.matrix_file import ITEM_BYTES
from embedkit.run import RunFolder

ROWS = 2_268_178
COPY = FOLDER / "copy"
TEXTS_ARE_PACKED_TWICE = (
    "The texts are unpacked and packed again, for metadata.parquet and by source, at some 300 MB/s per core each; cp "
    "copies them packed. `--texts none` leaves them out of both"
)
GIB = 2**30


def bench() -> Iterator[Figure]:
    """Measure the whole run with 16 and with 445 sources, a tenth with long texts, and the replaced way on a tenth."""
    texts = demo_texts()[:TEXT_BYTES]
    rows = _rows_that_fit()
    for sources in (16, 445):
        run = fabricate(FOLDER / "merge", Shape(rows=rows, sources=sources, text_bytes=100, shards=64), texts)
        yield from _merge_beside_copy(run, f"{rows:,} x {DIM} float32, {sources} sources")
        if sources == 16:
            yield _verify_beside_sha256(run)
        shutil.rmtree(run.path)
    for sources in (16, 445):
        run = fabricate(FOLDER / "merge", Shape(rows=rows // 10, sources=sources, text_bytes=100, shards=64), texts)
        yield _merge_beside_replaced(run, f"{rows // 10:,} rows, {sources} sources")
        shutil.rmtree(run.path)
    run = fabricate(FOLDER / "merge", Shape(rows=rows // 10, sources=16, text_bytes=12_000, shards=64), texts)
    yield from _merge_beside_copy(run, f"{rows // 10:,} rows with 12 KB of text each", TEXTS_ARE_PACKED_TWICE)
    shutil.rmtree(run.path)


def _rows_that_fit() -> int:
    """Rows of the run: all, or as many as the disk can store four times (shards, both merged kinds, half a copy)."""
    free = shutil.disk_usage(FOLDER).free - 4 * GIB
    return min(ROWS, int(free / (5.2 * DIM * ITEM_BYTES)))


def _merge(run: RunFolder) -> Took:
    cold(run.path)
    return timed([PYTHON, "-m", "jobs", "merge", run.path])


def _merge_beside_copy(run: RunFolder, what: str, note: str = "") -> Iterator[Figure]:
    merged = _merge(run)
    written = [run.view_matrix("combined"), run.metadata, run.by_source]
    size = sum(file.stat().st_size for path in written for file in (path, *path.rglob("*")) if file.is_file())
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    how = cold(run.path)
    copied = timed(["sh", "-c", 'cp -r "$@" && sync', "cp", *written, COPY])
    shutil.rmtree(COPY)
    yield Figure(
        work=f"merge, {what}",
        value=copied.wall / merged.wall,
        target=0.7,
        measured=f"{merged.wall:.1f} s for {size / 1e9:.1f} GB written ({merged.cpu:.0f} s of CPU)",
        rival=f"cp of the same {size / 1e9:.1f} GB, then sync: {copied.wall:.1f} s ({copied.cpu:.0f} s of CPU); {how}",
        note=note,
    )
    yield Figure(
        work=f"merge, {what}, memory",
        value=merged.peak_bytes / GIB,
        unit="GiB",
        target=1.0,
        at_most=True,
        measured=f"{merged.peak_bytes / GIB:.2f} GiB",
        rival="none",
    )


def _merge_beside_replaced(run: RunFolder, what: str) -> Figure:
    merged = _merge(run)
    shutil.rmtree(COPY, ignore_errors=True)
    cold(run.path)
    theirs = timed([PYTHON, "-m", "benchmarks.replaced", "merge", run.path, COPY])
    shutil.rmtree(COPY)
    return Figure(
        work=f"merge, {what}",
        value=theirs.wall / merged.wall,
        measured=f"{merged.wall:.1f} s, {merged.peak_bytes / GIB:.2f} GiB",
        rival=f"the replaced merge: {theirs.wall:.1f} s, {theirs.peak_bytes / GIB:.2f} GiB; nothing checked or synced",
    )


def _verify_beside_sha256(run: RunFolder) -> Figure:
    how = cold(run.path)
    ours = timed([PYTHON, "-m", "jobs", "verify", run.path])
    cold(run.path)
    theirs = timed([PYTHON, "-m", "benchmarks.bench_merge", run.path])
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    return Figure(
        work="verify of that run",
        value=theirs.wall / ours.wall,
        target=0.8,
        measured=f"{ours.wall:.1f} s ({ours.cpu:.0f} s of CPU) for {size / 1e9:.1f} GB",
        rival=f"sha256 of every file on all cores: {theirs.wall:.1f} s ({theirs.cpu:.0f} s of CPU); {how}",
        note="The merged matrix is hashed twice: as a file, and by chunk against the shards",
    )


def main() -> None:
    """Hash every file of a run with sha256 on all cores, the largest first."""
    from concurrent.futures import ThreadPoolExecutor

    from embedkit.storage.cpus import available_cpus

    files = [file for file in Path(sys.argv[1]).rglob("*") if file.is_file()]
    with ThreadPoolExecutor(available_cpus()) as pool:
        for _ in pool.map(sha256, sorted(files, key=lambda file: -file.stat().st_size)):
            pass


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
