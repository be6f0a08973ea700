"""certify: may shards that the engine here makes join those that a run has? Measured, and written down.

A sample of the finished rows is embedded again and compared with the stored vectors (tolerance.py). The certificate
stays with the run. If it passed, embed and merge take both engines for one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from embedkit.certificates import require_writable, write_certificate
from embedkit.data import require_fetched
from embedkit.diff.distances import Floats, compare
from embedkit.diff.embed_sample import embed_sample, engine_here
from embedkit.diff.run_now import ROWS
from embedkit.diff.sample import Ids, TextReader, sample_ids
from embedkit.diff.tolerance import agreement, coarser
from embedkit.documents import (
    FORMAT,
    Agreement,
    Certificate,
    ComparedEngine,
    Dtype,
    EngineRecord,
    Rejected,
    RunConfig,
    ShardManifest,
    View,
    digest,
    open_matrix,
    read,
    write,
)
from embedkit.embed import DIFFERENT_ENGINE, ChunkInput, ShardStates, rejected_shards
from embedkit.engines import Engine, check_installed
from embedkit.errors import EmbedkitError
from embedkit.job import current_job
from embedkit.merge import engine_groups
from embedkit.model import require_same_model
from embedkit.prepare import read_plan
from embedkit.run import RunFolder
from embedkit.storage import match_umask


def certify(
    run: RunFolder, rows: int = ROWS, seed: int = 0, tolerance: float | None = None
) -> tuple[Certificate, Path]:
    """Compare the finished shards with the engine that is installed here. Returns the certificate, and its new file.

    Args:
        run: a run, unfinished or merged.
        rows: rows of the sample, for each engine that the shards have.
        seed: chooses the sample.
        tolerance: the largest mean of 1 - cosine that passes; None for that of the dtype (tolerance.py).

    Raises EmbedkitError if the run cannot be written to, no shard is finished, the model changed, the engine fails, or
    its vectors are not as long.
    """
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    require_writable(run)
    check_installed(config.request.engine)
    require_fetched(run, config, data=False)
    require_same_model(run, config)
    match_umask(run.path)
    manifests, _ = ShardStates(run, plan, rejected={}).read_all("sizes")
    if not manifests:
        raise EmbedkitError(f"{run.path}: no shard is finished, so there is nothing to compare: {run.resume_command}")
    texts = TextReader.of_run(run, config, plan)
    groups = [[one for one in manifests if one.engine == engine] for engine in engine_groups(manifests)]
    samples = [_sample(run, config, texts, group, rows, seed) for group in groups]
    with engine_here(config, plan.settings.inexact, sum(len(sample.ids) for sample in samples)) as engine:
        compared = [_compared(run, sample, engine, plan.settings.chunk_tokens, tolerance) for sample in samples]
    certificate = Certificate(
        format=FORMAT,
        request_sha256=digest(config.request),
        plan_sha256=digest(plan),
        engine=engine.record,
        compared=tuple(compared),
        rows=rows,
        seed=seed,
        passed=all(one.passed for one in compared),
        job=current_job().name,
        host=current_job().node,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = write_certificate(run, certificate)
    if certificate.passed:
        _forget_refused_engines(run)
    return certificate, path


def _forget_refused_engines(run: RunFolder) -> None:
    """Take shards that merge refused for their engine alone out of `rejected.json`. The next merge decides anew."""
    # merge may write or remove the file meanwhile; no lock is shared, since it may run for hours. At worst a shard is
    # embedded again that need not be, or rejected once more: no merge reads this file. A merge that runs keeps to the
    # certificates of its start, and a later one names the first that proves something, so new ones change nothing.
    rejected = rejected_shards(run)
    others = {sha256: shard for sha256, shard in rejected.items() if shard.what != DIFFERENT_ENGINE}
    if len(others) == len(rejected):
        return
    document = read(run.rejected, Rejected)
    kept = {name: shard for name, shard in document.shards.items() if shard.manifest_sha256 in others}
    write(run.rejected, msgspec.structs.replace(document, shards=kept))


@dataclass(frozen=True)
class _Sample:
    """Rows of the shards of one engine: their ids, ascending, int64 (m,), and their texts."""

    engine: EngineRecord
    shards: Sequence[ShardManifest]
    ids: Ids
    texts: ChunkInput

    @property
    def store(self) -> Dtype:
        """Type of the stored numbers."""
        return self.shards[0].request.store


def _sample(
    run: RunFolder, config: RunConfig, texts: TextReader, shards: Sequence[ShardManifest], rows: int, seed: int
) -> _Sample:
    ranges = [(shard.start, shard.stop) for shard in shards]
    ids = sample_ids(run, config, texts.plan, ranges, rows, seed)
    return _Sample(shards[0].engine, shards, ids, texts.read(ids))


def _compared(
    run: RunFolder, sample: _Sample, engine: Engine, chunk_tokens: int, tolerance: float | None
) -> ComparedEngine:
    """Embed a sample here, and compare it with the stored vectors."""
    one, other = engine.record.dim, sample.engine.dim
    if one != other:
        raise EmbedkitError(
            f"the engine here gives vectors of {one} numbers, the shards have {other}: no matrix can hold both"
        )
    batches, alone = embed_sample(engine, sample.texts, chunk_tokens, sample.store)
    dtype = coarser(sample.engine.dtype, engine.record.dtype)
    views: dict[View, Agreement] = {}
    for view, token_ids in sample.texts.token_ids.items():
        at = np.flatnonzero(token_ids.lengths > 0)
        if len(at):
            stored = _stored(run, sample.shards, sample.ids[at], view)
            single = None if alone is None else alone[view][at]
            views[view] = _agreement(stored, batches[view][at], single, dtype, tolerance)
    shards = tuple(shard.shard for shard in sample.shards)
    return ComparedEngine(engine=sample.engine, shards=shards, rows=len(sample.ids), views=views)


def _agreement(stored: Floats, new: Floats, alone: Floats | None, dtype: Dtype, tolerance: float | None) -> Agreement:
    distances, lengths = compare(stored, new)
    if alone is None:
        return agreement(distances, lengths, dtype, tolerance)
    noise = compare(new, alone).distances
    return agreement(distances, lengths, dtype, tolerance, compare(stored, alone).distances, noise)


def _stored(run: RunFolder, shards: Sequence[ShardManifest], ids: Ids, view: View) -> Floats:
    """The stored vectors of some ids, ascending, float32 (n, dim)."""
    found = []
    for shard in shards:
        matrix = shard.matrices[view]
        at = ids[(ids >= shard.start) & (ids < shard.stop)] - shard.start
        path = run.shard(shard.shard) / matrix.file.name
        found.append(open_matrix(path, *matrix.shape, shard.request.store)[at])
    return np.concatenate(found)
