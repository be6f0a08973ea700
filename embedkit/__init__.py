"""embedkit: one checked embedding for every row of a chat data set, and the means to look at them."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedkit.merged_run import MergedRun

__all__ = ["__version__", "open_run"]

__version__ = "0.2.0"


def open_run(path: str | os.PathLike[str]) -> "MergedRun":
    """Open a merged run for reading. Reads its documents; rows, vectors and texts are read when they are used.

    Args:
        path: the run's folder, such as "output/demo". A run may have been moved or renamed.

    Raises:
        embedkit.errors.UsageError: there is no run at that path; the message lists the runs beside it.
        embedkit.errors.EmbedkitError: the run is not merged, or one of its documents is damaged.
    """
    from embedkit.merged_run import MergedRun  # imports polars and pyarrow, which `import embedkit` does not

    return MergedRun.open(path)
