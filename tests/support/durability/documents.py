"""Which files a document of a run names, by path inside the run."""

import re
from collections.abc import Callable

from embedkit.documents import PartManifest, Plan, ShardManifest, Success, read
from embedkit.run import RunFolder

REQUEST = "/run_config.json"
INDEX = "/parts/index.json"
PLAN = "/plan.json"


def _part(run: RunFolder, path: str) -> list[str]:
    manifest = read(run.path / path[1:], PartManifest)
    dropped = [] if manifest.dropped_rows is None else [f"/parts/{manifest.dropped_rows.name}"]
    return [INDEX, f"/extracted_data.parquet/{manifest.extracted.name}", *dropped]


def _plan(run: RunFolder, path: str) -> list[str]:
    plan = read(run.path / path[1:], Plan)
    data = [f"/extracted_data.parquet/{part.file.name}" for part in plan.parts]
    manifests = [f"/parts/part-{number:05d}.json" for number in range(len(plan.parts))]
    return [REQUEST, *data, *manifests, f"/{plan.dropped_rows.name}"]


def _shard(run: RunFolder, path: str) -> list[str]:
    manifest = read(run.path / path[1:], ShardManifest)
    folder = path.rpartition("/")[0]
    matrices = [f"{folder}/{matrix.file.name}" for matrix in manifest.matrices.values()]
    return [PLAN, REQUEST, *matrices, f"{folder}/{manifest.attempt}.journal.jsonl"]


def _success(run: RunFolder, path: str) -> list[str]:
    success = read(run.path / path[1:], Success)
    shards = [f"/embeddings/shards/{int(shard):05d}/manifest.json" for shard in success.shard_manifests]
    return [PLAN, REQUEST, *shards, *(f"/embeddings/{file.name}" for file in success.files)]


NAMED: dict[str, Callable[[RunFolder, str], list[str]]] = {
    r"/parts/index\.json": lambda run, path: [REQUEST],
    r"/parts/part-\d+\.json": _part,
    r"/plan\.json": _plan,
    r"/embeddings/shards/\d+/manifest\.json": _shard,
    r"/embeddings/_SUCCESS\.json": _success,
    r"/compile_cache\.tar\.sha256": lambda run, path: ["/compile_cache.tar"],
}
"""How the files that a document names are found, by a pattern of the document's path."""


def files_of(run: RunFolder) -> list[str]:
    """All files of a run, by path inside it."""
    return sorted(f"/{path.relative_to(run.path).as_posix()}" for path in run.path.rglob("*") if path.is_file())


def named_files(run: RunFolder) -> dict[str, list[str]]:
    """The files that each document of a run names, by the document's path."""
    paths = files_of(run)
    return {path: names(run, path) for path in paths for kind, names in NAMED.items() if re.fullmatch(kind, path)}
