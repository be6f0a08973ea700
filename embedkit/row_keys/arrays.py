"""Arrays of a safetensors file, by name, with the shapes that they must have."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load


def arrays_from_bytes(
    data: bytes | bytearray, shapes: Mapping[str, tuple[int, ...]], what: str
) -> list[npt.NDArray[Any]]:
    """The arrays in a file's bytes, in the order of `shapes`.

    what: the file has, in the message. Raises ValueError if one is missing, or has a different shape.
    """
    try:
        found = load(bytes(data))
        arrays = [found[name] for name in shapes]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no file of {what}: {error}") from None
    for array, (name, shape) in zip(arrays, shapes.items(), strict=True):
        if array.shape != shape:
            raise ValueError(f"{name} of shape {array.shape}, not {shape}, in a file of {what}")
    return arrays
