"""Reads a model folder: identity, limit, shapes of the weights. Nothing here loads weights."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from embedkit.documents import UNREADABLE, FileRecord, RunConfig
from embedkit.errors import EmbedkitError, UsageError
from embedkit.model.json_file import read_json
from embedkit.model.modules import WITHOUT_WEIGHTS, read_modules
from embedkit.storage import sha256_file

IDENTITY_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".safetensors"}
OTHER_RUNTIMES = {"onnx", "openvino"}
NO_LIMIT = 10**9
"""Limits from here on mean "no limit", for which tokenizers write about 1e30."""


def model_files(model: Path) -> tuple[FileRecord, ...]:
    """Name, size and sha256 of each file that decides the model's vectors, sorted by name."""
    paths = [
        path
        for path in sorted(model.rglob("*"))
        if path.is_file() and is_identity(PurePosixPath(path.relative_to(model)))
    ]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(sha256_file, paths)
    return tuple(
        FileRecord(name=path.relative_to(model).as_posix(), bytes=path.stat().st_size, sha256=sha256)
        for path, sha256 in zip(paths, digests, strict=True)
    )


def is_identity(path: PurePosixPath) -> bool:
    """Whether the file at a path in the folder decides the vectors. Hidden files and other runtimes' do not."""
    is_ours = not any(part in OTHER_RUNTIMES or part.startswith(".") for part in path.parts)
    return is_ours and path.suffix in IDENTITY_SUFFIXES


def model_limit(model: Path) -> int | None:
    """Most tokens of a text that the model takes, special tokens included; None if the folder does not say."""
    limits = [
        read_json(model, "sentence_bert_config.json").get("max_seq_length"),
        read_json(model, "config.json").get("max_position_embeddings"),
        read_json(model, "tokenizer_config.json").get("model_max_length"),
    ]
    known = [int(limit) for limit in limits if limit is not None and limit < NO_LIMIT]
    return min(known) if known else None


def vocabulary_size(model: Path) -> int | None:
    """Rows of the embedding table, from config.json; None if it does not say."""
    size = read_json(model, "config.json").get("vocab_size")
    return None if size is None else int(size)


def weight_folders(model: Path) -> list[Path]:
    """Folders that must hold weights: the model's own, and those of modules such as Dense."""
    further = [module.path for module in read_modules(model) if module.kind not in WITHOUT_WEIGHTS and module.path]
    return [model, *(model / path for path in further)]


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files in a folder, sorted. Engines read no hidden ones, such as macOS's `._model.safetensors`."""
    return sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))


class _Tensor(msgspec.Struct):
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]


def weight_shapes(model: Path) -> dict[str, list[int]]:
    """Shape of each tensor by name, read from the headers of the safetensors files.

    Source: the safetensors format (8 bytes little-endian length, then a JSON header). Raises UsageError naming the
    file if one is not in that format.
    """
    shapes: dict[str, list[int]] = {}
    for path in weight_files(model):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = file.read(length) if length < path.stat().st_size else b""
        try:
            tensors = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
            tensors.pop("__metadata__", None)
            shapes |= {name: msgspec.json.decode(raw, type=_Tensor).shape for name, raw in tensors.items()}
        except UNREADABLE as error:
            raise UsageError(f"{path}: not a whole safetensors file: {error}; fetch it again") from None
    return shapes


def require_same_model(config: RunConfig) -> None:
    """Raise EmbedkitError if the model's files are no longer those of the request."""
    model = Path(config.locations.model)
    if not model.is_dir():
        raise EmbedkitError(f"{model}: the model's folder is missing; put it back, or start a new run")
    if model_files(model) != config.request.model_files:
        raise EmbedkitError(f"{model}: its files are no longer those of the run's request; start a new run")
