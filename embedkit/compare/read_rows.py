"""Reads vectors of some rows of a merged run by position, in flat memory."""

import numpy as np

from embedkit.analysis.merged import Merged
from embedkit.compare.overlap import Floats, Ids, Read


def reader(merged: Merged, ids: Ids) -> Read:
    """A function that reads the vectors of some of these ids by position, and keeps none of the file in memory."""

    def read(at: Ids) -> Floats:
        order = np.argsort(ids[at], kind="stable")
        found = np.empty((len(at), merged.dim), np.float32)
        found[order] = merged.vectors(ids[at][order])
        merged.matrix.release()
        return found

    return read
