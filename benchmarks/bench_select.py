"""`embedkit select` on a run as large as the first user's, and its traversal beside a plain one on fewer rows.

The run has planted groups (benchmarks/planted_groups.py). Rows are selected without their texts, which is how long the
vectors take. The rival is the usual loop of k-center greedy in NumPy, as in code for core-sets (Sener and Savarese,
"Active learning for convolutional neural networks: a core-set approach", 2018): all vectors in memory, and one pass of
all of them per selected row. It must select the same rows, apart from near ties.

    python -m benchmarks select
    python -m benchmarks.bench_select 20000      fewer rows, printed and not kept
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_analysis import ROWS, SOURCES
from benchmarks.bench_findings import GROUPS
from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import DIM, TEXT_BYTES, Shape, fabricate
from benchmarks.measure import GIB, PYTHON, Figure, Took, cold, timed
from benchmarks.rounds import in_turns, of_rounds, quotients, seconds
from embedkit.analysis.merged import open_merged
from embedkit.run import RunFolder
from embedkit.subset.coverage import farthest_first
from embedkit.subset.row_tiles import RowTiles

SELECTED = 10_000
RIVAL_ROWS = 100_000
"""Rows beside the rival."""
RIVAL_SELECTED = 2_000


def bench(most: int = ROWS) -> Iterator[Figure]:
    """Measure both rules on the whole run, then the traversal beside its rival on fewer rows."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()[:TEXT_BYTES]
    run = _merged(most, texts)
    selected = min(SELECTED, most // 10)
    for by in ("coverage", "density"):
        yield from _command(run, by, selected, most)
    shutil.rmtree(run.path)
    rows = min(RIVAL_ROWS, most)
    selected = min(RIVAL_SELECTED, rows // 10)
    run = _merged(rows, texts)
    ours, theirs = in_turns(*(partial(_traversal, which, run, selected) for which in ("ours", "plain")))
    same = len(set(ours.json["selected"]) & set(theirs.json["selected"]))
    our_seconds, their_seconds = (side.of_output("seconds") for side in (ours, theirs))
    yield of_rounds(
        quotients(their_seconds, our_seconds),
        work=f"farthest-first traversal, {selected:,} of {rows:,} x {DIM}, beside a plain one",
        measured=f"{seconds(our_seconds)}, {ours.peak_bytes / GIB:.2f} GiB, in {ours.json['passes']:,} passes",
        rival=f"k-center greedy in NumPy, a pass per selected row: {seconds(their_seconds)}, "
        f"{theirs.peak_bytes / GIB:.2f} GiB; {same:,} of {selected:,} selected by both",
    )
    shutil.rmtree(run.path)


def _merged(rows: int, texts: str) -> RunFolder:
    shape = Shape(rows=rows, sources=SOURCES, text_bytes=100, shards=64, groups=GROUPS)
    run = fabricate(FOLDER / "select", shape, texts)
    timed([PYTHON, "-m", "jobs", "merge", run.path])
    shutil.rmtree(run.embeddings / "shards")
    return run


def _command(run: RunFolder, by: str, selected: int, rows: int) -> Iterator[Figure]:
    cold(run.path)
    took = timed([PYTHON, "-m", "jobs", "select", run.path, "-k", selected, "--by", by, "--no-texts", "--json"])
    record = json.loads(took.output[took.output.index("{") :])
    here, there = (record[name]["distances"] for name in ("selected", "random"))
    yield Figure(
        work=f"select --by {by} -k {selected}, {rows:,} x {DIM}",
        value=took.wall / 60,
        unit="minutes",
        measured=f"{took.cell}; the farthest row at {here['farthest']:.3f}, the mean at {here['mean']:.3f}",
        rival=f"a random subset: the farthest row at {there['farthest']:.3f}, the mean at {there['mean']:.3f}",
    )


def _traversal(which: str, run: RunFolder, selected: int) -> Took:
    cold(run.path)
    return timed([PYTHON, "-m", "benchmarks.bench_select", which, run.path, selected])


def _ours(run: RunFolder, selected: int) -> dict[str, Any]:
    rows = RowTiles(open_merged(run))
    found = farthest_first(rows, selected)
    return {"selected": found.selected.tolist(), "passes": found.passes}


def _plain(run: RunFolder, selected: int) -> dict[str, Any]:
    """The loop: the distances of all rows to the last selected one, and the smallest so far."""
    merged = open_merged(run)
    vectors = np.array(merged.vectors(merged.ids[merged.has_text]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = [int((vectors @ vectors.mean(axis=0)).argmax())]
    nearest = np.full(len(vectors), np.inf, np.float32)
    while len(found) < selected:
        np.minimum(nearest, 1 - vectors @ vectors[found[-1]], out=nearest)
        found.append(int(nearest.argmax()))
    return {"selected": found}


def main() -> None:
    """Do one of the two traversals and print what it selected; or measure all on so many rows, and print."""
    if len(sys.argv) == 2:
        for figure in bench(int(float(sys.argv[1]))):
            print(f"{figure.work}: {figure.value:.3g} {figure.unit}\n    {figure.measured}\n    {figure.rival}")
        return
    which, run, selected = sys.argv[1], RunFolder(Path(sys.argv[2])), int(sys.argv[3])
    started = time.perf_counter()
    found = (_ours if which == "ours" else _plain)(run, selected)
    print(json.dumps(found | {"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
