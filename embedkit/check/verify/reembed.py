"""verify --reembed: embed some rows of each finished shard again and compare with the stored vectors."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedkit.check.verify.findings import Findings
from embedkit.data import require_fetched, row_hash
from embedkit.documents import Plan, RunConfig, ShardManifest, open_matrix
from embedkit.embed import InputReader, differing_rows, embed_chunk, inputs_digest
from embedkit.engines import Engine, start_engine
from embedkit.errors import EmbedkitError
from embedkit.model import require_same_model
from embedkit.run import RunFolder


def reembed_rows(
    run: RunFolder,
    config: RunConfig,
    plan: Plan,
    manifests: Sequence[ShardManifest],
    rows: int,
    seed: int,
    findings: Findings,
) -> None:
    """Embed `rows` random rows of each shard again, and add each whose vector differs.

    Raises:
        EmbedkitError: the model is not the run's, or a row cannot be embedded.
    """
    require_fetched(run, config, data=False)
    require_same_model(run, config)
    engine = start_engine(config.request.engine, Path(config.locations.model), plan.settings.inexact)
    try:
        reader = InputReader(run, config, plan)
        for manifest in manifests:
            _reembed_shard(run, manifest, _sampled_ids(manifest, rows, seed), reader, engine, findings)
    finally:
        engine.close()


def _reembed_shard(
    run: RunFolder, manifest: ShardManifest, ids: list[int], reader: InputReader, engine: Engine, findings: Findings
) -> None:
    """Embed the rows with these ids again and compare."""
    folder = run.shard(manifest.shard)
    try:
        matrices = {
            view: open_matrix(folder / matrix.file.name, *matrix.shape, manifest.request.store)
            for view, matrix in manifest.matrices.items()
        }
    except (EmbedkitError, FileNotFoundError):
        return  # reported already
    for chunk in manifest.chunks:
        chosen = [i for i in ids if chunk.start <= i < chunk.stop]
        if not chosen:
            continue
        whole = reader.read(chunk.start, chunk.stop)
        if inputs_digest(whole) != chunk.inputs_sha256:
            what = f"ids {chunk.start} to {chunk.stop - 1} were embedded from different tokens"
            findings.add(folder, what, manifest.shard, findings.remake(manifest.shard))
        picked = reader.read_all(chunk.start, chunk.stop).take(chosen)
        again = embed_chunk(engine, picked)
        findings.reembedded += len(chosen)
        at = np.array(chosen) - manifest.start
        stored = {view: matrix[at] for view, matrix in matrices.items()}
        dtype, store = manifest.request.dtype, manifest.request.store
        for view, i, distance in differing_rows(picked, again, stored, dtype, store):
            what = f"row {picked.rows[i]} (id {chosen[i]}): its stored vector differs from a new one"
            data = folder / manifest.matrices[view].file.name
            findings.add(
                data,
                f"{what} (view {view}, 1 - cosine {distance:.2g})",
                manifest.shard,
                findings.remake(manifest.shard),
            )


def _sampled_ids(manifest: ShardManifest, rows: int, seed: int) -> list[int]:
    """`rows` random ids of a shard, ascending, chosen by the seed."""
    ids = np.arange(manifest.start, manifest.stop)
    chosen: list[int] = np.sort(ids[np.argsort(row_hash(seed, ids), kind="stable")[:rows]]).tolist()
    return chosen
