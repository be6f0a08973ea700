"""prepare's worker processes: they make the missing parts in parallel. parts.py makes one part.

A worker that is killed loses the parts that it is making and nothing else.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise
from multiprocessing import active_children, get_context

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data import Dataset, read_rows
from embedkit.documents import DataIndex, RunConfig, digest, write
from embedkit.errors import EmbedkitError
from embedkit.prepare.parts import Part, PartMaker, PartRows
from embedkit.run import RunFolder
from embedkit.storage import exit_with_parent, ignore_interrupts, single_threads


def make_parts(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    index: DataIndex,
    workers: int,
) -> Iterator[Part]:
    """Make every part that is missing or damaged, in worker processes. Yields parts as they are done.

    Raises EmbedkitError if a part cannot be made or a worker dies; the parts that are done are kept.
    """
    tasks = part_tasks(dataset, rows, index.part_borders, workers)
    with (
        single_threads(),
        ProcessPoolExecutor(
            max_workers=min(workers, len(tasks)),
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(PartMaker(run, config, digest(index)), dataset),
        ) as pool,
    ):
        futures = [pool.submit(_ensure_parts, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield from future.result()
        except BrokenProcessPool:
            raise EmbedkitError(
                f"a worker process died (out of memory? there were {workers}); the parts that are done are kept, to "
                f"continue: {run.resume_command}"
            ) from None
        except BaseException:
            # Do not wait for parts in the making. A pool with live workers raises errors of its own at exit.
            for worker in active_children():
                worker.kill()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def part_tasks(
    dataset: Dataset, rows: npt.NDArray[np.int64], borders: tuple[int, ...], workers: int
) -> list[list[PartRows]]:
    """Group the parts into tasks; a worker makes the parts of one task in one pass over the data.

    A block can be read only from its start. Parts that begin in the same block are therefore made in one pass, and a
    large block is read by no more passes than there are workers.
    """
    # The block in which each part begins.
    starts = np.array([block.first_row for file in dataset.files for block in file.blocks])
    by_block: dict[int, list[PartRows]] = {}
    for part, (start, stop) in enumerate(pairwise(borders)):
        block = int(np.searchsorted(starts, rows[start], side="right")) - 1
        by_block.setdefault(block, []).append(PartRows(part, start, rows[start:stop]))
    # The parts of a block in as many tasks as there are workers, of equal size.
    tasks: list[list[PartRows]] = []
    for parts in by_block.values():
        size = -(-len(parts) // workers)
        tasks += [parts[i : i + size] for i in range(0, len(parts), size)]
    return tasks


_worker: tuple[PartMaker, Dataset] | None = None
"""What this worker process needs for any part."""


def _start_worker(maker: PartMaker, dataset: Dataset) -> None:
    """Set up a worker process."""
    global _worker
    exit_with_parent()
    ignore_interrupts()
    _worker = maker, dataset


def _ensure_parts(parts: list[PartRows]) -> list[Part]:
    """Return the parts. Makes those that are missing or damaged in one pass over their rows."""
    assert _worker is not None
    maker, dataset = _worker
    found = {part.part: maker.sound_part(part.part) for part in parts}
    missing = [part for part in parts if found[part.part] is None]
    if missing:
        chats = RowStream(read_rows(dataset, np.concatenate([part.rows for part in missing])))
        for part in missing:
            made = maker.make(part, chats.take(len(part.rows)))
            write(maker.run.part_manifest(part.part), made.manifest)
            found[part.part] = made
    return [part for part in found.values() if part is not None]


class RowStream:
    """Cuts a stream of frames at given numbers of rows."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames = frames
        self._rest: pl.DataFrame | None = None

    def take(self, rows: int) -> Iterator[pl.DataFrame]:
        """Yield frames with the next `rows` rows, or with all that are left."""
        while rows > 0:
            frame = self._rest if self._rest is not None else next(self._frames, None)
            if frame is None:
                return
            self._rest = frame.slice(rows) if frame.height > rows else None
            rows -= min(frame.height, rows)
            yield frame if self._rest is None else frame.head(frame.height - self._rest.height)
