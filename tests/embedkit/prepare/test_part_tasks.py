"""Which parts are made in one pass over the data."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from embedkit.data import Columns, Dataset
from embedkit.data.reader import Block, IndexedFile
from embedkit.prepare.workers import part_tasks


def tasks_of(blocks: tuple[int, ...], borders: tuple[int, ...], workers: int) -> list[list[int]]:
    """Numbers of the parts of each task, of a file whose blocks have so many rows."""
    starts = np.cumsum([0, *blocks]).tolist()
    file = IndexedFile(
        Path("f"), tuple(Block(start, rows, rows, 0) for start, rows in zip(starts, blocks, strict=False)), None
    )
    dataset = Dataset((file,), Columns("messages", None))
    tasks = part_tasks(dataset, np.arange(borders[-1]), borders, workers)
    made = sorted((part for task in tasks for part in task), key=lambda part: part.part)
    assert [(part.start, len(part.rows)) for part in made] == [
        (start, stop - start) for start, stop in pairwise(borders)
    ]
    return [[part.part for part in task] for task in tasks]


def test_parts_that_begin_in_one_block_are_one_task() -> None:
    assert tasks_of((100, 100), (0, 30, 60, 120, 200), 1) == [[0, 1, 2], [3]]


@pytest.mark.parametrize(
    ("workers", "tasks"),
    [
        (1, [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (2, [[0, 1], [2, 3, 4, 5, 6, 7]]),
        (3, [[0], [1, 2], [3, 4, 5, 6, 7]]),
        (99, [[0], [1], [2], [3], [4], [5], [6], [7]]),
    ],
)
def test_a_large_block_is_shared_out_by_rows(workers: int, tasks: list[list[int]]) -> None:
    """Not by parts: those near the end are smaller. A file that is read only from its start is such a block."""
    assert tasks_of((100,), (0, 30, 55, 70, 80, 85, 90, 95, 100), workers) == tasks
