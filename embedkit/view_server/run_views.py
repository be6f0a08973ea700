"""The views of a run, opened when they are first needed."""

from collections.abc import Iterator
from threading import Event, Lock

import numpy as np
import numpy.typing as npt

from embedkit.analysis import Merged, open_merged
from embedkit.analysis.similarity.neighbors import read_ahead
from embedkit.documents import View
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from embedkit.view_server.stop import held, until


class RunViews:
    """All rows of a run by view. Several threads may use it."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._opening = Lock()
        self._reading = Lock()
        self._opened: dict[View, Merged] = {}

    def merged(self, view: View) -> Merged:
        """A view. Raises as `open_merged`."""
        with self._opening:
            if view not in self._opened:
                self._opened[view] = open_merged(self._run, view)
            return self._opened[view]

    def position(self, merged: Merged, row_id: int) -> int:
        """The position of an id in `merged.rows`. Raises UsageError if there is no such id."""
        at = int(np.searchsorted(merged.ids, row_id))
        if at == len(merged.ids) or merged.ids[at] != row_id:
            raise UsageError(f"id {row_id}: the run has ids 0 to {len(merged.ids) - 1}")
        return at

    def blocks(self, merged: Merged, stop: Event) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Ids and vectors of all rows with a text. One pass at a time: two would only slow each other down.

        Raises Stopped once `stop` is set.
        """
        with held(self._reading, stop):
            yield from until(stop, read_ahead(merged))
