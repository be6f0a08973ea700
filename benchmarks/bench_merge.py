"""merge and verify on runs as large as the first user's, beside copying and hashing the same bytes."""

import hashlib
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import DIM, TEXT_BYTES, Shape, fabricate
from benchmarks.measure import GIB, PYTHON, Figure, Took, cold, timed
from benchmarks.rounds import in_turns, of_rounds, quotients
from embedkit.documents.matrix_file import ITEM_BYTES
from embedkit.run import RunFolder

ROWS = 2_268_178
COPY = FOLDER / "copy"
TEXTS_ARE_PACKED_BY_SOURCE = (
    "metadata.parquet takes the texts packed, as the parts have them. By source they are unpacked and packed again, "
    "because every part has rows of all sources; cp copies them packed. `--texts none` leaves them out of both. Of the "
    "CPU time in a profile zstd takes 32 %, copies in memory 13 %, sha256 17 %, the system 19 %, Python 13 %"
)


def bench() -> Iterator[Figure]:
    """Measure the whole run with 16 and with 445 sources, a tenth with long texts, and the replaced way on a tenth."""
    FOLDER.mkdir(parents=True, exist_ok=True)
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
    yield from _merge_beside_copy(run, f"{rows // 10:,} rows with 12 KB of text each", TEXTS_ARE_PACKED_BY_SOURCE)
    shutil.rmtree(run.path)


def _rows_that_fit() -> int:
    """Rows of the run: all, or as many as the disk can store four times (shards, both merged kinds, half a copy)."""
    free = shutil.disk_usage(FOLDER).free - 4 * GIB
    return min(ROWS, int(free / (5.2 * DIM * ITEM_BYTES)))


def _merge(run: RunFolder) -> Took:
    """Merge as if for the first time."""
    for path in (run.success, *_merged(run)):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    cold(run.path)
    return timed([PYTHON, "-m", "jobs", "merge", run.path])


def _merged(run: RunFolder) -> list[Path]:
    return [run.view_matrix("combined"), run.metadata, run.by_source]


def _copy(run: RunFolder) -> Took:
    """Copy what merge wrote."""
    COPY.mkdir(parents=True)
    cold(run.path)
    took = timed(["sh", "-c", 'cp -r "$@" && sync', "cp", *_merged(run), COPY])
    shutil.rmtree(COPY)
    return took


def _merge_beside_copy(run: RunFolder, what: str, note: str = "") -> Iterator[Figure]:
    shutil.rmtree(COPY, ignore_errors=True)
    merged, copied = in_turns(partial(_merge, run), partial(_copy, run))
    size = sum(file.stat().st_size for path in _merged(run) for file in (path, *path.rglob("*")) if file.is_file())
    yield of_rounds(
        quotients(copied.walls, merged.walls),
        work=f"merge, {what}",
        target=0.7,
        measured=f"{merged.cell} for {size / 1e9:.1f} GB written",
        rival=f"cp of the same {size / 1e9:.1f} GB, then sync: {copied.cell}; {cold()}",
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
    merged, theirs = in_turns(partial(_merge, run), partial(_replaced, run))
    return of_rounds(
        quotients(theirs.walls, merged.walls),
        work=f"merge, {what}",
        measured=merged.cell,
        rival=f"the replaced merge: {theirs.cell}; nothing checked or synced",
    )


def _replaced(run: RunFolder) -> Took:
    shutil.rmtree(COPY, ignore_errors=True)
    cold(run.path)
    took = timed([PYTHON, "-m", "benchmarks.replaced", "merge", run.path, COPY])
    shutil.rmtree(COPY)
    return took


def _verify_beside_sha256(run: RunFolder) -> Figure:
    def of(*command: object) -> Took:
        cold(run.path)
        return timed([PYTHON, "-m", *command, run.path])

    ours, theirs = in_turns(partial(of, "jobs", "verify"), partial(of, "benchmarks.bench_merge"))
    size = sum(file.stat().st_size for file in run.path.rglob("*") if file.is_file())
    return of_rounds(
        quotients(theirs.walls, ours.walls),
        work="verify of that run",
        target=0.85,
        measured=f"{ours.cell} for {size / 1e9:.1f} GB",
        rival=f"sha256 of every file on all cores: {theirs.cell}; {cold()}",
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
