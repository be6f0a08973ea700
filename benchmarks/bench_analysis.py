"""`embedkit analyze` on a run as large as the first user's.

On a tenth of it: the map, near-duplicates, and the principal components beside rivals.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import DIM, TEXT_BYTES, Shape, fabricate
from benchmarks.measure import GIB, PYTHON, Figure, Took, cold, timed
from benchmarks.rounds import in_turns, of_rounds, quotients
from embedkit.analysis.components.pca import pca
from embedkit.analysis.merged import open_merged
from embedkit.documents import Success, read
from embedkit.documents.matrix_file import ITEM_BYTES
from embedkit.run import RunFolder

ROWS = 2_268_178
SOURCES = 445
COMPONENTS = 10
RIVALS = {"cov": "np.cov of all rows as float64, then eigh", "incremental": "sklearn's IncrementalPCA, approximate"}


def bench(most: int = ROWS) -> Iterator[Figure]:
    """Measure the command on the whole run without map and near-duplicates, and on a tenth with them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()[:TEXT_BYTES]
    rows = min(most, _rows_that_fit())
    run = _merged(rows, texts)
    how = cold(run.path)
    without = [f"--{part}=0" for part in ("umap", "groups", "neighbors", "findings", "duplicates")]
    took = timed([PYTHON, "-m", "jobs", "analyze", run.path, *without])
    what = f"analyze, no map nor near-duplicates, {rows:,} x {DIM} float32, {SOURCES} sources"
    yield Figure(
        work=what,
        value=took.wall / 60,
        unit="minutes",
        target=10,
        at_most=True,
        measured=f"{took.cell}; {how}",
        rival="none: the rivals below do part of it on a tenth of the rows",
    )
    yield Figure(
        work=f"{what}, memory",
        value=took.peak_bytes / GIB,
        unit="GiB",
        target=2,
        at_most=True,
        measured=f"{took.peak_bytes / GIB:.2f} GiB",
        rival=f"the vectors alone are {rows * DIM * ITEM_BYTES / GIB:.1f} GiB",
    )
    shutil.rmtree(run.path)
    run = _merged(rows // 10, texts)
    how = cold(run.path)
    took = timed([PYTHON, "-m", "jobs", "analyze", run.path])
    yield Figure(
        work=f"analyze, with map and near-duplicates, {rows // 10:,} rows",
        value=took.wall / 60,
        unit="minutes",
        measured=f"{took.cell}; {how}",
        rival="none",
    )
    yield from _rivals(run)
    shutil.rmtree(run.path)


def _rivals(run: RunFolder) -> Iterator[Figure]:
    """Measure the principal components of a run, then each rival's."""
    rows = read(run.success, Success).rows

    def of(way: str) -> Took:
        cold(run.path)
        return timed([PYTHON, "-m", "benchmarks.bench_analysis", way, run.path])

    ours, *rivals = in_turns(*(partial(of, way) for way in ("ours", *RIVALS)))
    for (rival, name), theirs in zip(RIVALS.items(), rivals, strict=True):
        yield of_rounds(
            quotients(theirs.walls, ours.walls),
            work=f"principal components of {rows:,} rows, beside {rival}",
            target=1.0,
            measured=ours.cell,
            rival=f"{name}: {theirs.cell}",
        )


def _merged(rows: int, texts: str) -> RunFolder:
    run = fabricate(FOLDER / "analysis", Shape(rows=rows, sources=SOURCES, text_bytes=100, shards=64), texts)
    timed([PYTHON, "-m", "jobs", "merge", run.path])
    shutil.rmtree(run.embeddings / "shards")
    return run


def _rows_that_fit() -> int:
    """Rows of the run: all, or as many as the disk can store three times (shards and both merged kinds)."""
    free = shutil.disk_usage(FOLDER).free - 4 * GIB
    return min(ROWS, int(free / (3.2 * DIM * ITEM_BYTES)))


def main() -> None:
    """Compute the principal components of a run in one of three ways."""
    way, path = sys.argv[1:]
    merged = open_merged(RunFolder(Path(path)))
    if way == "ours":
        variance: Iterable[float] = pca(merged, COMPONENTS).explained_variance
    elif way == "cov":
        variance = np.linalg.eigh(np.cov(np.asarray(merged.matrix, np.float64), rowvar=False))[0][-COMPONENTS:]
    else:
        from sklearn.decomposition import IncrementalPCA

        variance = IncrementalPCA(COMPONENTS, batch_size=8192).fit(np.asarray(merged.matrix)).explained_variance_
    print(list(variance))


if __name__ == "__main__":
    main()
