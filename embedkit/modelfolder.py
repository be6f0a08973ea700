"""What a model folder says of itself: identity, limit, size. Nothing here loads weights."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from embedkit.errors import EmbedkitError, UsageError
from embedkit.files import sha256_file
from embedkit.records import FileRecord, RunConfig

IDENTITY_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".safetensors", ".bin"}
OTHER_RUNTIMES = {"onnx", "openvino"}
NO_LIMIT = 10**9
"""Tokenizers write about 1e30 for "no limit"."""


def model_files(model: Path) -> tuple[FileRecord, ...]:
    """Name, size and sha256 of each file that decides the model's numbers, sorted by name."""
    paths = [
        path
        for path in sorted(model.rglob("*"))
        if path.is_file()
        and path.suffix in IDENTITY_SUFFIXES
        and not any(part in OTHER_RUNTIMES or part.startswith(".") for part in path.relative_to(model).parts)
    ]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(sha256_file, paths)
    return tuple(
        FileRecord(name=path.relative_to(model).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        for path, sha256 in zip(paths, digests, strict=True)
    )


def model_limit(model: Path) -> int | None:
    """The most tokens, special ones counted, that the model takes; None if the folder says nothing."""
    limits = [
        read_json(model, "sentence_bert_config.json").get("max_seq_length"),
        read_json(model, "config.json").get("max_position_embeddings"),
        read_json(model, "tokenizer_config.json").get("model_max_length"),
    ]
    known = [int(limit) for limit in limits if limit is not None and limit < NO_LIMIT]
    return min(known) if known else None


def vocabulary_size(model: Path) -> int | None:
    """Rows of the embedding table, from config.json; None if there is none."""
    size = read_json(model, "config.json").get("vocab_size")
    return None if size is None else int(size)


def read_json(model: Path, name: str) -> dict[str, Any]:
    """One JSON object of the model folder; empty if there is no such file."""
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


def weight_shapes(model: Path) -> dict[str, list[int]]:
    """Tensor names and shapes, read from the headers of the safetensors files.

    Source: the safetensors format (8 bytes little-endian length, then a JSON header).
    """
    shapes: dict[str, list[int]] = {}
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes |= {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
    return shapes


def require_same_model(config: RunConfig) -> None:
    """Raise EmbedkitError if the model's files are no longer those of the request."""
    model = Path(config.locations.model)
    if not model.is_dir():
        raise EmbedkitError(f"{model}: the model's folder is gone")
    if model_files(model) != config.request.model_files:
        raise EmbedkitError(f"{model}: its files are no longer those that the run was asked for; start a new run")
