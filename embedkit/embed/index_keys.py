"""Adds row keys to a run that an earlier version made: a pass over its texts.

The token ids of every chunk are compared with the digest of what its engine got.
"""

import logging
from collections.abc import Iterator

import numpy as np

from embedkit.data import require_fetched
from embedkit.documents import (
    FORMAT,
    FileRecord,
    Plan,
    RowKeyIndex,
    RunConfig,
    ShardManifest,
    atomic_write_hashed,
    digest,
    read,
    write,
)
from embedkit.embed.inputs import InputReader, inputs_digest
from embedkit.embed.shard_state import ShardStates
from embedkit.errors import EmbedkitError
from embedkit.log_progress import LogProgress
from embedkit.model import require_same_model
from embedkit.prepare import read_plan
from embedkit.row_keys import RowKeys, joined, token_keys
from embedkit.run import RunFolder
from embedkit.storage import run_lock

log = logging.getLogger(__name__)


def index_keys(run: RunFolder) -> int:
    """Add row keys to a run whose shards are all finished. Returns the number of rows; 0 if it has keys.

    Raises:
        EmbedkitError: a shard is missing, the model is not the run's, or a text gives other token ids than it did.
    """
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    if all(part.row_keys is not None for part in plan.parts):
        return 0
    require_fetched(run, config, data=False)
    require_same_model(run, config)
    manifests, problems = ShardStates(run, plan).read_all("manifest")
    if problems:
        shard, what = next(iter(problems.items()))
        raise EmbedkitError(f"shard {shard}: {what}; finish the run first: {run.resume_command}")
    with run_lock(run.prepare_lock, "adding row keys to this run", run.path):
        files = _write_keys(run, config, plan, manifests)
        write(run.key_index, RowKeyIndex(format=FORMAT, plan_sha256=digest(plan), files=tuple(files)))
    return plan.rows_kept


def _write_keys(run: RunFolder, config: RunConfig, plan: Plan, manifests: list[ShardManifest]) -> list[FileRecord]:
    """Write a file of keys for each part."""
    keys = joined(list(_keys_of_chunks(run, config, plan, manifests)), len(config.request.views))
    files: list[FileRecord] = []
    for number, part in enumerate(plan.parts):
        with atomic_write_hashed(run.part_keys(number)) as file:
            file.write(keys.take(np.arange(part.first_id, part.first_id + part.rows)).to_bytes())
        files.append(file.record)
    return files


def _keys_of_chunks(run: RunFolder, config: RunConfig, plan: Plan, manifests: list[ShardManifest]) -> Iterator[RowKeys]:
    """The keys of all rows, chunk by chunk. Raises EmbedkitError if a chunk was embedded from other token ids."""
    reader, views = InputReader(run, config, plan), config.request.views
    progress = LogProgress(log, "index", plan.rows_kept, "rows")
    for chunk in (chunk for manifest in manifests for chunk in manifest.chunks):
        found = reader.read(chunk.start, chunk.stop)
        if inputs_digest(found) != chunk.inputs_sha256:
            raise EmbedkitError(
                f"{run.path}: ids {chunk.start} to {chunk.stop - 1} have other token ids now than when they were "
                f"embedded; {run.command('verify')} says more"
            )
        tokens = np.stack([token_keys(found.token_ids[view]) for view in views], axis=1)
        lengths = np.stack([found.token_ids[view].lengths for view in views], axis=1).astype(np.int32)
        yield RowKeys(reader.text_keys(chunk.start, chunk.stop), tokens, lengths)
        progress.add(chunk.stop - chunk.start)
