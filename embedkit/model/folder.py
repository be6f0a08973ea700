"""Reads a model folder: its identity."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from embedkit.documents import FileRecord
from embedkit.model.json_file import read_json
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
