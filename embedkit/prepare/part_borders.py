"""Where the chosen rows are cut into parts. The data alone decide it, and not who makes the parts."""

import math

import numpy as np
import numpy.typing as npt

PART_ROWS = 4096
PART_BYTES = 128 << 20
SHARES, SHARES_OF_LAST = 8, 4
"""How small parts are near the end of the data: see `part_borders`."""


def part_borders(sizes: npt.NDArray[np.float32], *, even: bool = False) -> tuple[int, ...]:
    """Cut the positions [0, n) of the chosen rows into parts of at most PART_ROWS rows and PART_BYTES bytes.

    Near the end of the data parts have fewer bytes, so that any number of workers ends at about the same time: a part
    has at most one of SHARES of the bytes that are left, but may have one of SHARES_OF_LAST of PART_BYTES.

    Args:
        sizes: bytes per row, float32 (n,). A row that is larger than a part may be becomes a part of its own.
        even: cut all parts alike, as earlier versions did.

    Returns the ascending borders, 0 and n included.
    """
    borders, before = [0], 0.0
    in_all = int(sizes.sum(dtype=np.int64))  # a sum of floats would depend on the CPU
    while borders[-1] < len(sizes):
        start = borders[-1]
        most = PART_BYTES if even else min(max((in_all - before) / SHARES, PART_BYTES / SHARES_OF_LAST), PART_BYTES)
        # Bytes of all rows before each border of a row, 0 to PART_ROWS rows from here.
        sums = np.concatenate([[before], sizes[start : start + PART_ROWS]]).cumsum()
        fits = int(np.searchsorted(sums, before + most, side="right")) - 1
        taken = min(max(fits, 1), PART_ROWS)
        borders.append(start + taken)
        before = float(sums[taken])
    return tuple(borders)


def mean_part_bytes(in_all: float) -> float:
    """Bytes of a part in the mean, of data with so many bytes, at least 1, in parts that PART_ROWS does not limit."""
    last, first = SHARES * PART_BYTES / SHARES_OF_LAST, SHARES * PART_BYTES
    alike = max(in_all - first, 0) / PART_BYTES + min(in_all, last) / (PART_BYTES / SHARES_OF_LAST)
    return in_all / (alike + SHARES * math.log(max(min(in_all, first) / last, 1)))
