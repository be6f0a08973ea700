"""How the files of an analysis are written: atomically, and the same bytes for the same content."""

from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.storage import atomic_write, atomic_write_bytes


def write_npz(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write as numpy.savez does. It dates every member 1980, so that the bytes are reproducible."""
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    atomic_write_bytes(path, buffer.getvalue())


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Write a frame as Parquet."""
    with atomic_write(path) as temporary:
        frame.write_parquet(temporary)


def write_json(path: Path, plain: dict[str, Any]) -> None:
    """Write JSON with sorted keys. Numbers that are not finite become null."""
    encoded = msgspec.json.encode(plain, order="sorted", enc_hook=np.generic.item)  # numbers of NumPy
    atomic_write_bytes(path, msgspec.json.format(encoded, indent=1) + b"\n")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8. What UTF-8 cannot hold becomes a question mark."""
    atomic_write_bytes(path, text.encode(errors="replace"))
