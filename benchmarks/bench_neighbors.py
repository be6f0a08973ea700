"""The ten nearest rows to one row in a merged run as large as the first user's, beside faiss on the same vectors."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import DIM, TEXT_BYTES, Shape, fabricate
from benchmarks.measure import GIB, PYTHON, Figure, Took, cold, timed
from benchmarks.rounds import in_turns, of_rounds, quotients, seconds
from embedkit.documents.matrix_file import ITEM_BYTES
from embedkit.merge.stage import merge
from embedkit.run import RunFolder

ROWS = 2_268_178
K = 10


def bench() -> Iterator[Figure]:
    """Measure the command cold, the search in a process cold and warm, and faiss' exact index, filled first."""
    rows = min(ROWS, int((shutil.disk_usage(FOLDER.parent).free - 4 * GIB) / (3.2 * DIM * ITEM_BYTES)))
    shape = Shape(rows=rows, sources=16, text_bytes=2000, shards=8)
    run = fabricate(FOLDER / "neighbors", shape, demo_texts()[:TEXT_BYTES])
    merge(run)
    shutil.rmtree(run.embeddings / "shards")
    what = f"ten nearest of {rows:,} x {DIM}"
    how = cold(run.path)
    command = timed([PYTHON, "-m", "jobs", "neighbors", run.path, "--id", 17])
    ours, theirs = in_turns(partial(_measured, "ours", run), partial(_measured, "faiss", run))
    peak, rival_peak = (max(side.of_output("peak_bytes")) for side in (ours, theirs))
    our_warm, their_warm = (side.of_output("warm") for side in (ours, theirs))
    memory = f"{peak / GIB:.2f} GiB"
    yield of_rounds(
        quotients(their_warm, our_warm),
        work=f"{what}, warm",
        measured=f"{seconds(our_warm)}, {memory}; cold {seconds(ours.of_output('cold'))}",
        rival=f"faiss IndexFlatIP: {seconds(their_warm)}, {rival_peak / GIB:.2f} GiB, once it is filled, which "
        f"takes {seconds(theirs.of_output('fill'))} cold; {how}",
        note="Ours reads the file each time, takes vectors of any norm and breaks ties by id",
    )
    yield Figure(
        work=f"{what}, memory",
        value=peak / GIB,
        unit="GiB",
        target=1.0,
        at_most=True,
        measured=memory,
        rival=f"faiss: {rival_peak / GIB:.2f} GiB",
    )
    yield Figure(
        work=f"`embedkit neighbors`, {rows:,} rows, cold, with texts",
        value=command.wall,
        unit="s",
        measured=command.cell,
        rival="none",
    )
    shutil.rmtree(run.path)


def _measured(which: str, run: RunFolder) -> Took:
    cold(run.path)
    return timed([PYTHON, "-m", "benchmarks.bench_neighbors", which, run.path])


def main() -> None:
    """Measure one of the two in this process. Prints seconds and peak memory."""
    which, run = sys.argv[1], RunFolder(Path(sys.argv[2]))
    peak = _Peak()
    took = (_ours if which == "ours" else _faiss)(run)
    print(json.dumps(took | {"peak_bytes": peak.stop()}))


def _ours(run: RunFolder) -> dict[str, float]:
    from embedkit.analysis.merged import open_merged
    from embedkit.analysis.similarity.neighbors import nearest

    merged = open_merged(run)
    query = np.array(merged.matrix[17:18])
    return {name: _seconds(lambda: nearest(merged, query, K)) for name in ("cold", "warm")}


def _faiss(run: RunFolder) -> dict[str, float]:
    import faiss

    from embedkit.analysis.merged import open_merged

    merged = open_merged(run)
    query = np.array(merged.matrix[17:18])
    index = faiss.IndexFlatIP(merged.dim)

    def fill() -> None:
        for _, vectors in merged.blocks():
            index.add(vectors)

    return {"fill": _seconds(fill), "warm": _seconds(lambda: index.search(query, K))}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class _Peak:
    """Peak resident memory of this process during its work, sampled every 5 ms."""

    def __init__(self) -> None:
        self._most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        import psutil

        process = psutil.Process()
        while not self._done.wait(0.005):
            self._most = max(self._most, process.memory_info().rss)

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self._most


if __name__ == "__main__":
    main()
