"""Reads the JSON files of a model folder."""

import json
from pathlib import Path
from typing import Any

from embedkit.errors import UsageError


def read_json(model: Path, name: str) -> dict[str, Any]:
    """Read a JSON object of the model folder; empty if there is no such file. Raises UsageError if it is not one."""
    path = model / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path}: a JSON object was expected")
    return value
