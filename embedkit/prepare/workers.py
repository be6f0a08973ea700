"""prepare's worker processes: they make the missing parts in parallel. parts.py makes one part.

A worker that is killed loses the parts that it is making and nothing else.
"""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby, pairwise
from multiprocessing import active_children
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.data import Dataset, read_rows
from embedkit.documents import DataIndex, RunConfig, digest, write
from embedkit.errors import EmbedkitError
from embedkit.prepare.fork_server import worker_context
from embedkit.prepare.parts import Part, PartMaker, PartRows
from embedkit.prepare.worker_start import start_error, with_fewer
from embedkit.run import RunFolder
from embedkit.storage import exit_with_parent, ignore_interrupts, single_threads

POLL_SECONDS = 2.0
"""How often prepare looks whether it still has a worker."""


def make_parts(
    run: RunFolder,
    config: RunConfig,
    dataset: Dataset,
    rows: npt.NDArray[np.int64],
    index: DataIndex,
    workers: int,
) -> Iterator[Part]:
    """Make every part that is missing or damaged, in worker processes. Yields parts as they are done.

    Raises EmbedkitError if a part cannot be made, or if a worker does not start or dies; the parts that are done are
    kept.
    """
    tasks = part_tasks(dataset, rows, index.part_borders, workers)
    to_make = sum(any(not run.part_manifest(part.part).exists() for part in task) for task in tasks)
    with single_threads(), worker_context(Path(config.locations.model), min(workers, to_make)) as context:
        yield from _made_by(context, PartMaker(run, config, digest(index)), dataset, tasks, workers)


def _made_by(
    context: BaseContext, maker: PartMaker, dataset: Dataset, tasks: list[list[PartRows]], workers: int
) -> Iterator[Part]:
    """Make the parts of the tasks in processes of a context. As `make_parts`."""
    run, wanted, started = maker.run, min(workers, len(tasks)), context.Value("i", 0)
    with ProcessPoolExecutor(
        max_workers=wanted, mp_context=context, initializer=_start_worker, initargs=(maker, dataset, started)
    ) as pool:
        try:
            yield from _results(_submit(pool, run, tasks, wanted), run, wanted)
        except BrokenProcessPool:
            if not started.value:
                raise start_error(run, wanted, wanted) from None
            not_started = f" or could not start ({wanted - started.value} did not)" if started.value < wanted else ""
            raise EmbedkitError(
                f"a worker process of prepare was killed, perhaps for memory{not_started}; there were {workers}. The "
                f"parts that are done are kept\n{with_fewer(run, workers)}"
            ) from None
        except BaseException:
            # Do not wait for parts in the making. A pool with live workers raises errors of its own at exit.
            for worker in active_children():
                worker.kill()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _submit(
    pool: ProcessPoolExecutor, run: RunFolder, tasks: list[list[PartRows]], wanted: int
) -> set[Future[list[Part]]]:
    """Give the pool its tasks, for which it starts processes. Raises EmbedkitError if it cannot start them."""
    futures: set[Future[list[Part]]] = set()
    for task in tasks:
        try:
            futures.add(pool.submit(_ensure_parts, task))
        except (OSError, EOFError, MemoryError, RuntimeError) as error:  # RuntimeError: no thread can be started
            if isinstance(error, BrokenProcessPool):
                raise
            missing = max(wanted - len(futures), 1)
            raise start_error(run, wanted, missing, error) from None
    return futures


def _results(pending: set[Future[list[Part]]], run: RunFolder, wanted: int) -> Iterator[Part]:
    """Yield parts as tasks are done. Raises EmbedkitError if no worker is alive that could do the others.

    No future is kept after its task: it has the parts.
    """
    alone = 0
    while pending:
        done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in done:
            yield from future.result()
        # The pool waits for ever if it can start no thread of its own. If workers only died, it says so by itself.
        alone = 0 if done or active_children() else alone + 1
        if alone > 2:
            raise start_error(run, wanted, wanted)


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
    # The parts of a block in at most as many tasks as there are workers, of about as many rows.
    tasks: list[list[PartRows]] = []
    for parts in by_block.values():
        rows_of_parts = np.array([len(part.rows) for part in parts])
        middles = rows_of_parts.cumsum() - rows_of_parts / 2
        of_task = (middles * workers // rows_of_parts.sum()).tolist()
        tasks += [[parts[i] for i in group] for _, group in groupby(range(len(parts)), of_task.__getitem__)]
    return tasks


_worker: tuple[PartMaker, Dataset] | None = None
"""What this worker process needs for any part."""


def _start_worker(maker: PartMaker, dataset: Dataset, started: "Synchronized[int]") -> None:
    """Set up a worker process, and count it as started."""
    global _worker
    exit_with_parent()
    ignore_interrupts()
    _worker = maker, dataset
    with started.get_lock():
        started.value += 1


def _ensure_parts(parts: list[PartRows]) -> list[Part]:
    """Return the parts. Makes those that are missing or damaged in one pass over their rows."""
    try:
        return _make_missing(parts)
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of polars cannot be sent to the main process
        raise EmbedkitError(f"parts {parts[0].part} to {parts[-1].part}: a library failed: {error}") from None


def _make_missing(parts: list[PartRows]) -> list[Part]:
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
