"""Search by meaning: the rows nearest to a text, and how similar every row is to it."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Event, Lock

import numpy as np
import numpy.typing as npt

from embedkit.analysis.similarity.all_cosines import cosines_of_all, nearest_of_all
from embedkit.analysis.similarity.neighbors import Neighbors
from embedkit.analysis.similarity.search import Query
from embedkit.documents import View
from embedkit.view_server.run_views import RunViews
from embedkit.view_server.warm_engine import WarmEngine

MAX_COUNT = 200
"""Nearest rows that a search keeps."""
KEPT = 8
"""Searches whose results are kept: one byte per row each."""
LEVELS = 254
"""The largest level of a cosine above that of the smallest one."""
LOW_QUANTILE = 0.01
"""The coldest colour is for this share of the rows, so that a few odd ones do not take the range."""


@dataclass(frozen=True)
class Meaning:
    """The result of one search.

    near: the nearest rows, at most MAX_COUNT. low, high: cosines of the levels 1 and 255. levels: of all rows of the
    run by id, uint8 (n,), 0 for rows without a text.
    """

    query: Query
    near: Neighbors
    low: float
    high: float
    levels: npt.NDArray[np.uint8]


class MeaningSearch:
    """Searches views of a run, and keeps the last results."""

    def __init__(self, views: RunViews, engine: WarmEngine) -> None:
        self._views = views
        self._engine = engine
        self._lock = Lock()
        self._kept: OrderedDict[tuple[View, str], Meaning] = OrderedDict()

    def find(self, view: View, text: str, stop: Event) -> Meaning:
        """The result for a text. Raises as `WarmEngine.embed` and `open_merged`, and Stopped once `stop` is set."""
        key = view, text
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        found = self._search(view, text, stop)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _search(self, view: View, text: str, stop: Event) -> Meaning:
        merged = self._views.merged(view)
        query = self._engine.embed(text)
        cosines = cosines_of_all(merged, query.vector, self._views.blocks(merged, stop))
        near = nearest_of_all(merged, query.vector, cosines, MAX_COUNT)
        low, high = _range(cosines)
        levels = np.zeros(len(merged.matrix), np.uint8)
        levels[merged.ids] = levels_of(cosines, low, high)
        return Meaning(query, near, low, high, levels)


def levels_of(cosines: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.uint8]:
    """Cosines from low to high as 1 to 255, uint8 (n,); NaN as 0. Others are clipped."""
    scale = LEVELS / (high - low) if high > low else 0.0
    levels = 1 + np.rint((np.clip(cosines, low, high) - low) * scale)
    found: npt.NDArray[np.uint8] = np.nan_to_num(levels, nan=0).astype(np.uint8)
    return found


def _range(cosines: npt.NDArray[np.float32]) -> tuple[float, float]:
    known = cosines[~np.isnan(cosines)]
    return (float(np.quantile(known, LOW_QUANTILE)), float(known.max())) if len(known) else (0.0, 0.0)
