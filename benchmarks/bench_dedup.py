"""`embedkit dedup` on a run as large as the first user's, with planted near-duplicates whose decision is known.

On a tenth of the rows it is measured beside the plain recipe for embeddings, which NeMo Curator and text-dedup follow
in their own ways: a faiss IVF index in memory, all pairs above the threshold held in memory, connected components of
scipy, and one row per group. The rival's groups are compared with the planted ones.

    python -m benchmarks dedup
    python -m benchmarks.bench_dedup 20000      fewer rows, printed and not kept
"""

import json
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.bench_analysis import ROWS
from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import DIM, TEXT_BYTES, Shape, fabricate
from benchmarks.measure import PYTHON, Figure, Took, cold, timed
from benchmarks.planted_duplicates import THRESHOLD, PlantedDuplicates
from benchmarks.rounds import in_turns, of_rounds, quotients
from embedkit.analysis.merged import open_merged
from embedkit.documents.matrix_file import check_matrix
from embedkit.run import RunFolder

SOURCES = 12_000
"""So many that counts by all pairs of sources would not fit."""
PLANTED_ROWS = 8_192
OUT = "dedup-of-benchmark"
FLAGS = {"none near another": (), "one row per group": ("--one-per-group",)}


def bench(most: int = ROWS) -> Iterator[Figure]:
    """Measure both rules on the whole run, then on a tenth beside the rival."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()[:TEXT_BYTES]
    run = _merged(most, texts)
    for rule, flags in FLAGS.items():
        took = _measured(run, flags)
        facts = _facts(_result(run, flags))
        yield Figure(
            work=f"dedup of {most:,} rows, {rule}",
            value=took.wall,
            unit="s",
            measured=f"{took.cell}, {facts}",
            rival="",
        )
    shutil.rmtree(run.path)
    run = _merged(most // 10, texts)
    flags = FLAGS["one row per group"]
    ours, theirs = in_turns(partial(_measured, run, flags), partial(_measured_rival, run))
    yield of_rounds(
        quotients(theirs.walls, ours.walls),
        work=f"dedup of {most // 10:,} rows, beside faiss IVF and scipy",
        measured=f"{ours.cell}, {_facts(_result(run, flags))}",
        rival=f"IVF range search, pairs in memory, connected components: {theirs.cell}, {_facts(theirs.json)}",
    )
    shutil.rmtree(run.path)


def _merged(rows: int, texts: str) -> RunFolder:
    """A merged run whose vectors are replaced by planted ones."""
    run = fabricate(FOLDER / "dedup", Shape(rows=rows, sources=SOURCES, text_bytes=100, shards=16), texts)
    timed([PYTHON, "-m", "jobs", "merge", run.path])
    shutil.rmtree(run.embeddings / "shards")
    planted = PlantedDuplicates(rows, DIM)
    path = run.view_matrix("combined")
    offset = check_matrix(path, rows, DIM)
    with path.open("r+b") as file:
        file.seek(offset)
        for start in range(0, rows, PLANTED_ROWS):
            file.write(planted.vectors(start, min(start + PLANTED_ROWS, rows)).data)
    return run


def _measured_rival(run: RunFolder) -> Took:
    cold(run.path)
    return timed([PYTHON, "-m", "benchmarks.bench_dedup", "rival", run.path])


def _measured(run: RunFolder, flags: tuple[str, ...]) -> Took:
    shutil.rmtree(run.path.with_name(OUT), ignore_errors=True)
    cold(run.path)
    options = ("--threshold", THRESHOLD, "--keep", "first", "--out", run.path.with_name(OUT), *flags)
    return timed([PYTHON, "-m", "jobs", "dedup", run.path, *options])


def _result(run: RunFolder, flags: tuple[str, ...]) -> dict[str, Any]:
    """Removed rows beside the planted ones; the folder is removed."""
    out = run.path.with_name(OUT)
    removed = pl.read_parquet(out / "removed.parquet", columns=["id"])["id"].to_numpy()
    planted = PlantedDuplicates(open_merged(run).rows.height, DIM)
    recall = json.loads((out / "dedup.json").read_text(encoding="utf-8"))
    of_pairs = next(level["recall"] for level in recall["levels"] if level["threshold"] == THRESHOLD)
    shutil.rmtree(out)
    return _beside_planted(planted, removed, bool(flags)) | (
        {} if of_pairs is None else {"near pairs in one group": of_pairs}
    )


def _beside_planted(planted: PlantedDuplicates, removed: np.ndarray, one_per_group: bool) -> dict[str, Any]:
    """Share of the rows to be removed that are, and share of the removed rows that are to be."""
    expected = ~planted.stays
    if one_per_group:
        expected = np.ones(planted.rows, bool)
        expected[np.unique(planted.group, return_index=True)[1]] = False
    hits = int(expected[removed].sum())
    return {"removed": len(removed), "recall": hits / expected.sum(), "precision": hits / max(len(removed), 1)}


def _rival(run: RunFolder) -> dict[str, Any]:
    """An IVF index in memory with as many cells and probes as ours, all pairs of a range search, and scipy."""
    import faiss
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    merged = open_merged(run)
    vectors = np.array(merged.vectors(merged.ids))
    rows = len(vectors)
    cells = int(np.ceil(2 * np.sqrt(rows)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(merged.dim), merged.dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[np.random.default_rng(0).permutation(rows)[: 40 * cells]])
    index.add(vectors)
    index.nprobe = 8
    limits, _, near = index.range_search(vectors, THRESHOLD)
    row = np.repeat(np.arange(rows), np.diff(limits.astype(np.int64)))
    graph = coo_array((np.ones(len(row), np.int8), (row, near)), shape=(rows, rows)).tocsr()
    labels = connected_components(graph, directed=False)[1]
    removed = np.setdiff1d(np.arange(rows), np.unique(labels, return_index=True)[1])
    return _beside_planted(PlantedDuplicates(rows, DIM), removed, one_per_group=True) | {"pairs": len(row)}


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value:,}" for name, value in facts.items()
    )


def main() -> None:
    """Do the rival's work on a run and print facts about it; or measure all on so many rows, and print."""
    if sys.argv[1] == "rival":
        print(json.dumps(_rival(RunFolder(Path(sys.argv[2])))))
        return
    for figure in bench(int(float(sys.argv[1]))):
        print(f"{figure.work}: {figure.value:.3g} {figure.unit}\n    {figure.measured}\n    {figure.rival}")


if __name__ == "__main__":
    main()
