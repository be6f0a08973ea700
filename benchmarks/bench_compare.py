"""Comparison of two models, and coverage of one data set by another, on runs as large as the first user's.

Both runs have planted groups (benchmarks/planted_groups.py). compare: all rows of one run and of another one with other
vectors. coverage: B has a tenth as many rows as A; the radii of all rows of A are a part of it. On a smaller size, each
is measured beside a rival that does the same in memory.

    python -m benchmarks compare
    python -m benchmarks.bench_compare 20000      fewer rows, printed and not kept
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_analysis import GIB, ROWS, SOURCES
from benchmarks.corpus import FOLDER, demo_texts
from benchmarks.fabricate import TEXT_BYTES, Shape, fabricate
from benchmarks.measure import PYTHON, Figure, Took, cold, timed
from embedkit.analysis.merged import open_merged
from embedkit.compare.aligned import Aligned
from embedkit.compare.compare import compare
from embedkit.compare.coverage import DataPair, find_coverage
from embedkit.run import RunFolder

GROUPS = 60
"""Planted groups, each of eight subgroups, as in bench_findings."""
K = 5
PRDC_ROWS = 20_000
"""Rows of A beside prdc, which keeps a matrix of all distances within A: 3.2 GB of float64."""

Part = Callable[[RunFolder, RunFolder], dict[str, Any]]
"""Compares two runs, and returns facts about the result."""


def bench(most: int = ROWS) -> Iterator[Figure]:
    """Measure both commands on the whole runs, then each beside its rival."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = demo_texts()[:TEXT_BYTES]
    a = _merged("compare-a", most, texts)
    for part, rows in (("compare", most), ("coverage", most // 10)):
        b = _merged("compare-b", rows, texts)
        took = _measured(part, a, b)
        work = f"{part}, {most:,} rows and {rows:,}"
        yield Figure(work=work, value=took.wall, unit="s", measured=f"{_cell(took)}{_facts(took)}", rival="")
        shutil.rmtree(b.path)
    shutil.rmtree(a.path)
    for rival, (part, what, size) in RIVALS.items():
        rows = min(size, most)
        a, b = (_merged(name, rows, texts) for name in ("compare-a", "compare-b"))
        ours, theirs = (_measured(name, a, b) for name in (part, rival))
        yield Figure(
            work=f"{part}, {rows:,} rows and {rows:,}, beside {rival}",
            value=theirs.wall / ours.wall,
            measured=f"{_cell(ours)}{_facts(ours)}",
            rival=f"{what}: {_cell(theirs)}{_facts(theirs)}",
        )
        for run in (a, b):
            shutil.rmtree(run.path)


def _merged(name: str, rows: int, texts: str) -> RunFolder:
    shape = Shape(rows=rows, sources=min(SOURCES, rows // 20), text_bytes=100, shards=64, groups=GROUPS)
    run = fabricate(FOLDER / name, shape, texts)
    timed([PYTHON, "-m", "jobs", "merge", run.path])
    shutil.rmtree(run.embeddings / "shards")
    return run


def _measured(name: str, a: RunFolder, b: RunFolder) -> Took:
    cold(a.path, b.path)
    return timed([PYTHON, "-m", "benchmarks.bench_compare", name, a.path, b.path])


def _cell(took: Took) -> str:
    return f"{took.wall:,.0f} s, {took.cpu:,.0f} s of CPU, {took.peak_bytes / GIB:.2f} GiB"


def _facts(took: Took) -> str:
    facts = json.loads(took.output.strip().splitlines()[-1])
    return "".join(f", {name} {value:.4g}" for name, value in facts.items())


def _compare(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """Rows are matched by id: fabricated runs have no keys of texts."""
    one, other = open_merged(a), open_merged(b)
    found = compare(Aligned(one, other, one.ids, other.ids, 0, 0)).summary
    return {"CKA": found.cka, "moved": found.moved}


def _coverage(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    one, other = open_merged(a), open_merged(b)
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
    """The steps of prdc's compute_prdc for `recall`-like coverage: all distances in memory, then the k-th of each row.

    Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020, arXiv:2002.09797. Of its four
    numbers this is precision, with A as the real and B as the generated data. It does not say which row is nearest.
    """
    from sklearn.metrics import pairwise_distances

    x, y = (np.array(run.vectors(run.ids)) for run in map(open_merged, (a, b)))
    within = pairwise_distances(x, x, metric="euclidean", n_jobs=2)
    radii = np.take_along_axis(within, np.argpartition(within, K, axis=-1)[:, : K + 1], -1).max(axis=-1)
    del within
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
