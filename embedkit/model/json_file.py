"""Reads the JSON files of a model folder."""

import json
from pathlib import Path
from typing import Any

from embedkit.errors import UsageError

SENTENCE_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Files of the settings of sentence-transformers' Transformer module, in the order in which it looks for them."""


def read_sentence_config(model: Path) -> tuple[str, dict[str, Any]]:
    """Name and contents of the settings of sentence-transformers' Transformer module: the first file that is not empty.

    Empty if there is none.
    """
    for name in SENTENCE_CONFIGS:
        if config := read_json(model, name):
            return name, config
    return SENTENCE_CONFIGS[0], {}


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
