"""Where the chosen rows are cut into parts. The data alone decide it, and not who makes the parts."""

import math

import numpy as np
import numpy.typing as npt

PART_ROWS = 16_384
PART_BYTES = 128 << 20
SHARES, SHARES_OF_LAST = 8, 4
"""How small parts are near the end of the data: see `part_borders`."""


def part_borders(sizes: npt.NDArray[np.float32], *, even: bool = False) -> tuple[int, ...]:
    """Cut the positions [0, n) of the chosen rows into parts of at most PART_ROWS rows and PART_BYTES bytes.

    Near the end of the data parts are smaller, so that any number of workers ends at about the same time: a part has at
    most one of SHARES of the rows and of the bytes that are left, but may have one of SHARES_OF_LAST of the limits.

    Args:
        sizes: bytes per row, float32 (n,). A row that is larger than a part may be becomes a part of its own.
        even: cut all parts alike, as earlier versions did: one of SHARES_OF_LAST of PART_ROWS, and PART_BYTES.

    Returns the ascending borders, 0 and n included.
    """
    borders, before, rows = [0], 0.0, len(sizes)
    in_all = int(sizes.sum(dtype=np.int64))  # a sum of floats would depend on the CPU
    while borders[-1] < rows:
        start = borders[-1]
        most_bytes = float(PART_BYTES) if even else _most(in_all - before, PART_BYTES)
        most_rows = PART_ROWS // SHARES_OF_LAST if even else int(_most(rows - start, PART_ROWS))
        most_rows = max(most_rows, 1)
        # Bytes of all rows before each border of a row, 0 to most_rows rows from here.
        sums = np.concatenate([[before], sizes[start : start + most_rows]]).cumsum()
        fits = int(np.searchsorted(sums, before + most_bytes, side="right")) - 1
        taken = min(max(fits, 1), most_rows)
        borders.append(start + taken)
        before = float(sums[taken])
    return tuple(borders)


def _most(left: float, limit: int) -> float:
    """How much a part may have of what is left."""
    return min(max(left / SHARES, limit / SHARES_OF_LAST), limit)


def mean_part_bytes(in_all: float) -> float:
    """Bytes of a part in the mean, of data with so many bytes, at least 1, in parts that PART_ROWS does not limit."""
    return _mean_part(in_all, PART_BYTES)


def mean_part_rows(in_all: float) -> float:
    """Rows of a part in the mean, of so many rows, at least 1, in parts that PART_BYTES does not limit."""
    return _mean_part(in_all, PART_ROWS)


def _mean_part(in_all: float, limit: int) -> float:
    last, first = SHARES * limit / SHARES_OF_LAST, SHARES * limit
    alike = max(in_all - first, 0) / limit + min(in_all, last) / (limit / SHARES_OF_LAST)
    return in_all / (alike + SHARES * math.log(max(min(in_all, first) / last, 1)))
