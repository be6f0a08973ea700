"""Two merged runs: one of ordinary rows, and one with the same rows and planted strange ones."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.similarity.all_neighbors import RowNeighbors
from embedkit.run import RunFolder
from tests.conftest import made_once
from tests.support.chosen_run import DIM, Row, chosen_run
from tests.support.merged_runs import cosines_between
from tests.support.planted import plant, shifted, unit

SOURCES = ("alpha", "beta", "gamma")
ROWS = 40
"""Ordinary rows of each source."""
VIEWS = ("combined", "think", "response")
TWIN = ROWS * len(SOURCES)
"""Id of the first planted row; the others follow in the order of `planted_rows`."""
SAME_PROMPT, SAME_ANSWER = (TWIN, TWIN + 1), (TWIN + 2, TWIN + 3)
DUPLICATES = (TWIN + 4, TWIN + 5, TWIN + 6)
LOOP, LONG_THOUGHT = TWIN + 7, TWIN + 8
COPIES = tuple(range(TWIN + 9, TWIN + 15))
"""Rows of the source delta with the prompts of the first rows of alpha, and their answers."""
PHRASE = "I should check the sum of both sides once more before I answer."


def naive_neighbors(vectors: npt.NDArray[np.float32], k: int = 10) -> RowNeighbors:
    """The nearest rows by loops over cosines in float64. vectors: (n, D); rows of zeros take part in nothing."""
    positions = np.flatnonzero(vectors.any(axis=1))
    cosines = cosines_between(vectors[positions], vectors[positions])
    neighbors = np.full((len(positions), k), -1, np.int32)
    found = np.full((len(positions), k), np.nan, np.float32)
    for row in range(len(positions)):
        others = sorted((-cosines[row, other], other) for other in range(len(positions)) if other != row)
        for at, (cosine, other) in enumerate(others[:k]):
            neighbors[row, at], found[row, at] = other, -cosine
    return RowNeighbors(positions, neighbors, found, "exact")


def ordinary_rows() -> list[Row]:
    """Rows without anything strange: id i has the source SOURCES[i % 3]."""
    rng = random.Random(5)
    return [_row(rng, SOURCES[i % len(SOURCES)]) for i in range(ROWS * len(SOURCES))]


def planted_rows(ordinary: Sequence[Row]) -> list[Row]:
    rng = random.Random(6)
    one, two, three, four, five = (_row(rng, "beta") for _ in range(5))
    return [
        one,
        Row(one.prompt, two.response, two.think, "beta"),
        three,
        Row(four.prompt, three.response, four.think, "beta"),
        *[five] * 3,
        Row(_words(rng, 12), _words(rng, 30), f"{_words(rng, 30)} {' '.join([PHRASE] * 40)}", "beta"),
        Row(_words(rng, 12), "no", _words(rng, 500), "beta"),
        *(Row(row.prompt, row.response, _words(rng, 80), "delta") for row in ordinary[0:18:3]),
        *(_row(rng, "delta") for _ in range(4)),
    ]


def _row(rng: random.Random, source: str) -> Row:
    return Row(
        _words(rng, rng.randint(12, 20)), _words(rng, rng.randint(30, 50)), _words(rng, rng.randint(60, 100)), source
    )


def _words(rng: random.Random, count: int) -> str:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=rng.randint(3, 8))) for _ in range(count))


def clustered(sources: Sequence[str], seed: int = 0) -> npt.NDArray[np.float32]:
    """Unit vectors about one centre for each source, float32 (n, DIM): the cosine within a source is about 0.8."""
    rng = np.random.default_rng(seed)
    names = sorted(set(sources))
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][: len(names)]
    noise = rng.normal(size=(len(sources), DIM)) / np.sqrt(DIM) / 2
    return unit(centres[[names.index(source) for source in sources]] + noise)


def _make(folder: Path, rows: Sequence[Row]) -> None:
    run = chosen_run(folder, rows, views=VIEWS)
    combined = clustered([row.source for row in rows])
    plant(run, combined)
    plant(run, combined, "response")
    distances = np.random.default_rng(1).normal(0.3, 0.02, len(rows))
    plant(run, np.concatenate([shifted(combined[i : i + 1], d, i) for i, d in enumerate(distances)]), "think")


@pytest.fixture(scope="session")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    """The ordinary rows. Read only."""
    folder = made_once(tmp_path_factory, "ordinary-rows", lambda folder: _make(folder, ordinary_rows()))
    return open_merged(RunFolder(folder / "run"))


@pytest.fixture(scope="session")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Merged:
    """The ordinary rows and the planted ones. Read only."""
    rows = ordinary_rows()
    folder = made_once(tmp_path_factory, "strange-rows", lambda folder: _make(folder, rows + planted_rows(rows)))
    return open_merged(RunFolder(folder / "run"))
