"""Reads a file that `embedkit curve` wrote."""

from pathlib import Path

from embedkit.documents import Curve, read
from embedkit.errors import EmbedkitError, UsageError


def read_curve(path: Path, source: str) -> Curve:
    """Read a curve. Raises UsageError naming the file, and the option or key (`source`) that names it, if it cannot."""
    try:
        return read(path, Curve)
    except (EmbedkitError, OSError, ValueError) as error:
        problem = f"{path}: {error.strerror}" if isinstance(error, OSError) else str(error)
    raise UsageError(
        f"{source}: {problem}. Such a file is made by `embedkit curve FILE --model MODEL` on the GPU that embeds"
    )
