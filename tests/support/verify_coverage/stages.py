"""A run at each of its stages, made from one finished run, and the kinds of its files."""

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from embedkit.diff.certify import certify
from embedkit.documents import (
    FORMAT,
    Certificate,
    DataIndex,
    Document,
    MergedIndex,
    PartManifest,
    Plan,
    Preflight,
    Rejected,
    RejectedShard,
    RowKeyIndex,
    RunConfig,
    ShardManifest,
    Success,
    digest,
    read,
    write,
)
from embedkit.embed.publish import REFUSED
from embedkit.merge import merge
from embedkit.run import RunFolder
from tests.support.reseal import reseal, reseal_request

KINDS = {
    "run_config.json": r"run_config\.json",
    "extracted_data.parquet/": r"extracted_data\.parquet/part-.*",
    "parts/index.json": r"parts/index\.json",
    "parts/part-*.json": r"parts/part-.*\.json",
    "parts/dropped-*.parquet": r"parts/dropped-.*",
    "parts/keys-*.safetensors": r"parts/keys-.*",
    "parts/copies-*.safetensors": r"parts/copies-.*",
    "row_keys.json": r"row_keys\.json",
    "dropped_rows.parquet": r"dropped_rows\.parquet",
    "plan.json": r"plan\.json",
    "shards/: matrix": r"embeddings/shards/.*\.safetensors",
    "shards/: manifest.json": r"embeddings/shards/.*/manifest\.json",
    "shards/: journal": r"embeddings/shards/.*\.journal\.jsonl",
    "shards/: unfinished matrix": r"embeddings/shards/.*\.partial",
    "all.safetensors": r"embeddings/all.*\.safetensors",
    "metadata.parquet": r"embeddings/metadata\.parquet",
    "by_source/: matrix": r"embeddings/by_source/.*\.safetensors",
    "by_source/: metadata.parquet": r"embeddings/by_source/.*\.parquet",
    "index.json": r"embeddings/index\.json",
    "metadata/": r"embeddings/metadata/part-.*",
    "_SUCCESS.json": r"embeddings/_SUCCESS\.json",
    "rejected.json": r"embeddings/rejected\.json",
    "certificates/": r"certificates/.*",
    "preflight.json": r"preflight\.json",
    "submissions.jsonl": r"submissions\.jsonl",
    "profiles/": r"profiles/.*",
    "compile_cache.tar": r"compile_cache\.tar",
    "compile_cache.tar.sha256": r"compile_cache\.tar\.sha256",
    "refused.json": r"embeddings/shards/.*/refused.*\.json",
    "*.lease": r".*\.lease",
    "logs/": r"logs/.*",
    "analysis/": r"analysis/.*",
    "dedup/": r"dedup/.*",
}
"""Names of the kinds of files, as docs/guarantees.md has them, and what their paths look like."""


DOCUMENTS: dict[str, type[Document]] = {
    "run_config.json": RunConfig,
    "parts/index.json": DataIndex,
    "parts/part-*.json": PartManifest,
    "row_keys.json": RowKeyIndex,
    "plan.json": Plan,
    "shards/: manifest.json": ShardManifest,
    "index.json": MergedIndex,
    "_SUCCESS.json": Success,
    "rejected.json": Rejected,
    "certificates/": Certificate,
    "preflight.json": Preflight,
}
"""The kinds that are sealed documents. A journal's lines are sealed one by one."""


def kind_of(path: Path, run: RunFolder) -> str:
    """The kind of a file. Every file of a run has one."""
    name = path.relative_to(run.path).as_posix()
    kind = next((kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, name)), None)
    assert kind is not None, f"{name} is a file of no kind: add it to KINDS"
    return kind


def files_by_kind(run: RunFolder) -> dict[str, list[Path]]:
    """The files of a run by kind, in order."""
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in run.path.rglob("*") if path.is_file()):
        found.setdefault(kind_of(path, run), []).append(path)
    return found


def _without_merged(run: RunFolder) -> None:
    for path in (run.success, run.metadata, run.view_matrix("combined")):
        path.unlink()
    shutil.rmtree(run.by_source)


def _prepared(run: RunFolder) -> None:
    shutil.rmtree(run.embeddings)


def _half_embedded(run: RunFolder) -> None:
    """As a kill leaves it: one shard is finished, one has its chunks and no manifest, the last one is not begun."""
    _without_merged(run)
    shutil.rmtree(run.shard(2))
    run.shard_manifest(1).unlink()
    matrix = next(run.shard(1).glob("*.safetensors"))
    matrix.rename(f"{matrix}.partial")
    shutil.copy(run.shard_manifest(0), run.shard(1) / REFUSED)
    (run.path / "run.lease").write_bytes(b"{}")


def _merged(run: RunFolder) -> None:
    """On a cluster, and analyzed: with a certificate, and the documents of preflight, submissions and profiles."""
    certify(run, rows=50)
    config, manifest = read(run.config, RunConfig), read(run.shard_manifest(0), ShardManifest)
    write(
        run.preflight,
        Preflight(
            format=FORMAT,
            request_sha256=digest(config.request),
            engine=manifest.engine,
            job="1",
            host="node",
            start_seconds=1.0,
            checks=(("gpu", "sound"),),
        ),
    )
    rejected = RejectedShard(manifest_sha256="0" * 64, what="an earlier attempt", remake=False)
    write(run.rejected, Rejected(format=FORMAT, shards={"1": rejected}))
    run.submissions.write_bytes(b'{"event":"submitted","job":"1"}\n{"event":"submitted","job":"2"}\n')
    run.profiles.mkdir()
    (run.profiles / "site-0123456789ab.toml").write_bytes(b'[all]\npartition = "gpu"\n')
    run.compile_cache.write_bytes(bytes(10_240))
    run.compile_cache_hash.write_bytes(hashlib.sha256(bytes(10_240)).hexdigest().encode())
    run.analysis.mkdir()  # stand-ins: verify does not read them
    run.analysis_page.write_bytes(b"<!doctype html><title>analysis</title>")
    (run.analysis / "health.json").write_bytes(b'{"rows": 9000}')


def indexed(run: RunFolder) -> None:
    """As an earlier version made it, without row keys; `embedkit index` added them."""
    plan = read(run.plan, Plan)
    keys = tuple(part.row_keys for part in plan.parts if part.row_keys is not None)
    index = digest(reseal(run.data_index, DataIndex, row_keys=False))
    for part in range(len(plan.parts)):
        reseal(run.part_manifest(part), PartManifest, row_keys=None, index_sha256=index)
    plan = reseal(run.plan, Plan, parts=tuple(structs.replace(part, row_keys=None) for part in plan.parts))
    sha256 = digest(plan)
    shards = [reseal(run.shard_manifest(i), ShardManifest, plan_sha256=sha256) for i in range(len(plan.shards))]
    manifests = {str(shard.shard): digest(shard) for shard in shards}
    reseal(run.success, Success, plan_sha256=sha256, shard_manifests=manifests)
    write(run.key_index, RowKeyIndex(format=FORMAT, plan_sha256=sha256, files=keys))


def _sharded(run: RunFolder) -> None:
    """As it had been made with `--layout sharded`."""
    _without_merged(run)
    reseal_request(run, layout="sharded")
    merge(run)


STAGES: dict[str, Callable[[RunFolder], None]] = {
    "prepared": _prepared,
    "half embedded": _half_embedded,
    "embedded": _without_merged,
    "merged": _merged,
    "indexed": indexed,
    "sharded": _sharded,
}


def run_at(stage: str, finished: RunFolder, folder: Path) -> RunFolder:
    """A copy of a finished run as it was at a stage."""
    run = RunFolder(folder / stage.replace(" ", "-"))
    shutil.copytree(finished.path, run.path)
    STAGES[stage](run)
    return run
