"""Reads a model folder: its identity and its pooling."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from embedkit.documents import FileRecord, RunConfig
from embedkit.errors import EmbedkitError, UsageError
from embedkit.storage import sha256_file

IDENTITY_SUFFIXES = {".json", ".jinja", ".txt", ".model", ".safetensors"}
OTHER_RUNTIMES = {"onnx", "openvino"}


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


def vocabulary_size(model: Path) -> int | None:
    """Rows of the embedding table, from config.json; None if it does not say."""
    size = read_json(model, "config.json").get("vocab_size")
    return None if size is None else int(size)


@dataclass(frozen=True)
class Pooling:
    """How a text's vector is computed from its tokens' hidden states, and whether it is scaled to unit norm."""

    mode: Literal["last", "mean", "cls"]
    normalize: bool


POOLING_MODES: dict[str, Literal["last", "mean", "cls"]] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "lasttoken": "last",
    "mean": "mean",
    "cls": "cls",
}
"""Names in a pooling module's config.json: one flag per mode, or (newer folders) one `pooling_mode`."""


def read_modules(model: Path) -> dict[str, str]:
    """Folder of each sentence-transformers module, by its kind; empty if there is no modules.json."""
    path = model / "modules.json"
    if not path.is_file():
        return {}
    try:
        return {str(module["type"]).rpartition(".")[2]: str(module["path"]) for module in json.loads(path.read_bytes())}
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: not a list of modules with type and path: {error!r}") from None


def read_pooling(model: Path) -> Pooling:
    """Pooling of a sentence-transformers folder.

    Source: `modules.json` lists the modules in order with their folders; the pooling module's folder has a config.json.

    Raises:
        UsageError: the folder does not say, or has modules that are not Transformer, Pooling, Normalize.
    """
    path = model / "modules.json"
    if not path.is_file():
        raise UsageError(
            f"--model {model}: no modules.json there, which says how vectors are pooled; use --engine vllm"
        )
    modules = read_modules(model)
    foreign = sorted(set(modules) - {"Transformer", "Pooling", "Normalize"})
    if foreign or "Pooling" not in modules:
        wrong = f"the module {foreign[0]} is not known" if foreign else "there is no Pooling module"
        raise UsageError(f"{path}: {wrong} to the transformers engine; use --engine vllm")
    config = read_json(model, f"{modules['Pooling']}/config.json")
    modes = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
    modes = [str(config["pooling_mode"])] if "pooling_mode" in config else modes
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise UsageError(
            f"{model / modules['Pooling'] / 'config.json'}: pooling {' + '.join(modes) or 'of no kind'} is not known "
            "to the transformers engine (last token, mean, cls); use --engine vllm"
        )
    return Pooling(POOLING_MODES[modes[0]], "Normalize" in modules)


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


def require_same_model(config: RunConfig) -> None:
    """Raise EmbedkitError if the model's files are no longer those of the request."""
    model = Path(config.locations.model)
    if not model.is_dir():
        raise EmbedkitError(f"{model}: the model's folder is missing; put it back, or start a new run")
    if model_files(model) != config.request.model_files:
        raise EmbedkitError(f"{model}: its files are no longer those of the run's request; start a new run")
