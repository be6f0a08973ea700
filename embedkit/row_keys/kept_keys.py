"""The row keys and copies of kept rows by id, read from the files of the parts."""

from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from embedkit.documents import FileRecord, Plan, PlanPart
from embedkit.row_keys.copies import Copies, joined_copies, no_copies
from embedkit.row_keys.key_files import read_copies, read_key_file
from embedkit.row_keys.keys import RowKeys, joined
from embedkit.run import RunFolder


class KeptKeys:
    """Reads any range of ids. Every file is compared with the plan when it is read."""

    def __init__(self, run: RunFolder, plan: Plan, views: int) -> None:
        self._folder = run.parts
        self._parts = plan.parts
        self._first_ids = [part.first_id for part in plan.parts]
        self._views = views

    def keys(self, start: int, stop: int) -> RowKeys | None:
        """The keys of rows with start <= id < stop; None if prepare made none. Raises EmbedkitError if damaged."""
        pieces: list[RowKeys] = []
        for part, rows in self._pieces(start, stop):
            if part.row_keys is None:
                return None
            keys = _keys(self._folder, part.row_keys, part.rows, self._views)
            pieces.append(RowKeys(keys.texts[rows], keys.tokens[rows], keys.lengths[rows]))
        return joined(pieces, self._views)

    def copies(self, start: int, stop: int) -> Copies:
        """From where the vectors of rows with start <= id < stop are copied. Raises EmbedkitError if damaged."""
        pieces: list[Copies] = []
        for part, rows in self._pieces(start, stop):
            if part.copies is None:
                pieces.append(no_copies(rows.stop - rows.start, self._views))
            else:
                pieces.append(_copies(self._folder, part.copies, part.rows, self._views).take(rows))
        return joined_copies(pieces, self._views)

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[PlanPart, slice]]:
        """The parts that have rows of a range, and which of their rows."""
        for part in self._parts[max(bisect_right(self._first_ids, start) - 1, 0) :]:
            if part.first_id >= stop:
                return
            low, high = max(start - part.first_id, 0), min(stop - part.first_id, part.rows)
            if low < high:
                yield part, slice(low, high)


@lru_cache(maxsize=2)
def _keys(folder: Path, record: FileRecord, rows: int, views: int) -> RowKeys:
    return read_key_file(folder / record.name, record, rows, views)


@lru_cache(maxsize=2)
def _copies(folder: Path, record: FileRecord, rows: int, views: int) -> Copies:
    return read_copies(folder / record.name, record, rows, views)
