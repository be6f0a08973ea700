"""Comparison of two models, and coverage of one data set by another, on runs as large as the first user's.

Runs have planted groups (benchmarks/planted_groups.py). compare: two runs of as many rows, with unrelated vectors.
coverage: the last eleventh of the rows of one run, B, by the others, A, so B has a tenth of A's rows and its groups.
Finding the radii of A is part of it. On a smaller size, each is measured beside a rival that works in memory.

    python -m benchmarks compare
    python -m benchmarks.bench_compare 20000      fewer rows, printed and not kept
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_analysis import ROWS, SOURCES
from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import TEXT_BYTES, Shape, fabricate
from benchmarks.measure import PYTHON, Figure, Took, cold, timed
from benchmarks.rounds import in_turns, of_rounds, quotients
from embedkit.analysis.merged import Merged, open_merged
from embedkit.compare.aligned import Aligned, restricted
from embedkit.compare.compare import compare
from embedkit.compare.coverage import DataPair, find_coverage
from embedkit.run import RunFolder

GROUPS = 60
"""Planted groups, each of eight subgroups, as in bench_findings."""
K = 5
PRDC_ROWS = 22_000
"""Rows beside prdc, which keeps a matrix of all distances within A: 1.6 GB of float32."""

Part = Callable[[RunFolder, RunFolder], dict[str, Any]]
"""Compares two runs, and returns facts about the result. coverage splits the first."""


def bench(most: int = ROWS) -> Iterator[Figure]:
    """Measure both commands on the whole runs, then each beside its rival."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()[:TEXT_BYTES]
    sizes = {"compare": most, "coverage": most + most // 10}
    for part, rows in sizes.items():
        with _runs(rows, texts) as (a, b):
            took = _measured(part, a, b)
        yield Figure(
            work=_work(part, rows), value=took.wall, unit="s", measured=took.cell + _facts(took.json), rival=""
        )
    for rival, (part, what, size) in RIVALS.items():
        rows = min(size, most)
        with _runs(rows, texts) as (a, b):
            ours, theirs = in_turns(*(partial(_measured, name, a, b) for name in (part, rival)))
        yield of_rounds(
            quotients(theirs.walls, ours.walls),
            work=f"{_work(part, rows)}, beside {rival}",
            measured=ours.cell + _facts(ours.json),
            rival=f"{what}: {theirs.cell}{_facts(theirs.json)}",
        )


def _work(part: str, rows: int) -> str:
    if part == "compare":
        return f"compare, {rows:,} rows of two models"
    return f"coverage of {rows // 11:,} rows by {rows - rows // 11:,}"


@contextmanager
def _runs(rows: int, texts: str) -> Iterator[tuple[RunFolder, RunFolder]]:
    """Two merged runs of as many rows, which are removed at the end."""
    runs = []
    for seed in (0, 1):
        sources = max(min(SOURCES, rows // 20), 1)
        shape = Shape(rows=rows, sources=sources, text_bytes=100, shards=64, groups=GROUPS, seed=seed)
        run = fabricate(FOLDER / f"compare-{seed}", shape, texts)
        timed([PYTHON, "-m", "jobs", "merge", run.path])
        shutil.rmtree(run.embeddings / "shards")
        runs.append(run)
    yield runs[0], runs[1]
    for run in runs:
        shutil.rmtree(run.path)


def _measured(name: str, a: RunFolder, b: RunFolder) -> Took:
    cold(a.path, b.path)
    return timed([PYTHON, "-m", "benchmarks.bench_compare", name, a.path, b.path])


def _facts(facts: dict[str, Any]) -> str:
    return "".join(f", {name} {value:.4g}" for name, value in facts.items())


def _compare(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """Rows are matched by id: fabricated runs have no keys of texts."""
    one, other = open_merged(a), open_merged(b)
    found = compare(Aligned(one, other, one.ids, other.ids, 0, 0)).summary
    return {"CKA": found.cka, "moved": found.moved}


def _split(run: RunFolder) -> tuple[Merged, Merged]:
    """All rows but the last eleventh, and these."""
    merged = open_merged(run)
    at = len(merged.ids) - len(merged.ids) // 11
    return restricted(merged, merged.ids[:at]), restricted(merged, merged.ids[at:])


def _coverage(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    one, other = _split(a)
    found = find_coverage(DataPair(one, other, np.zeros(len(other.ids), bool)))
    facts = {"share": float(found.is_covered.mean())}
    if found.measured is not None:
        facts |= {"exact share": found.measured.exact / found.measured.rows, "missed": found.measured.missed}
        facts |= {"of": found.measured.rows, "wrong": found.measured.wrong}
    return facts


def _cka_in_memory(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """The paper's formula with features in float64, as its published notebook computes feature_space_linear_cka."""
    x, y = (np.array(run.vectors(run.ids), np.float64) for run in map(open_merged, (a, b)))
    x -= x.mean(axis=0)
    y -= y.mean(axis=0)
    cross = np.linalg.norm(x.T @ y) ** 2
    return {"CKA": cross / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))}


def _prdc(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """The steps of prdc's compute_prdc for its precision: all distances in memory, then the k-th of each row.

    Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020, arXiv:2002.09797. A is the real
    data, B the generated. It does not say which row is nearest.
    """
    from sklearn.metrics import pairwise_distances

    one, other = _split(a)
    x, y = np.array(one.vectors(one.ids)), np.array(other.vectors(other.ids))
    within = pairwise_distances(x, x, metric="euclidean", n_jobs=2)
    radii = np.partition(within, K, axis=-1)[:, K]  # the row itself is the nearest
    between = pairwise_distances(x, y, metric="euclidean", n_jobs=2)
    return {"share": float((between < radii[:, None]).any(axis=0).mean())}


PARTS: dict[str, Part] = {"compare": _compare, "coverage": _coverage}
RIVALS: dict[str, tuple[str, str, int]] = {
    "NumPy": ("compare", "linear CKA alone, float64 in memory, without neighbours or rows that moved", ROWS // 10),
    "prdc": ("coverage", "the steps of prdc with scikit-learn's distances, without nearest rows", PRDC_ROWS),
}
"""For each rival the part that it does, what it is, and on how many rows."""
RIVAL_WORK: dict[str, Part] = {"NumPy": _cka_in_memory, "prdc": _prdc}


def main() -> None:
    """Do one part or rival on two runs and print facts about its result; or measure all on so many rows, and print."""
    if len(sys.argv) == 2:
        for figure in bench(int(float(sys.argv[1]))):
            print(f"{figure.work}: {figure.value:.3g} {figure.unit}\n    {figure.measured}\n    {figure.rival}")
        return
    name, a, b = sys.argv[1], RunFolder(Path(sys.argv[2])), RunFolder(Path(sys.argv[3]))
    print(json.dumps((PARTS | RIVAL_WORK)[name](a, b)))


if __name__ == "__main__":
    main()
