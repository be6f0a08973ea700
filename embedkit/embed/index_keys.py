"""Adds row keys to a run that an earlier version made: a pass over its texts.

The token ids of every chunk are compared with the digest of what its engine got.
"""

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np

from embedkit.data import require_fetched
from embedkit.documents import (
    FORMAT,
    Chunk,
    FileRecord,
    NewerFormat,
    Plan,
    RowKeyIndex,
    RunConfig,
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
from embedkit.row_keys import RowKeys, joined, key_records, read_key_file, read_keys, token_keys
from embedkit.run import RunFolder
from embedkit.storage import run_lock

log = logging.getLogger(__name__)


def index_keys(run: RunFolder) -> int:
    """Add row keys to a run whose shards are all finished, or make files of keys again that are missing or damaged.

    Returns the number of rows whose keys were made; 0 if all keys are there.

    Raises:
        EmbedkitError: a shard is missing, the model is not the run's, or a text gives other token ids than it did.
    """
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    if any(part.row_keys is not None for part in plan.parts):
        _require_keys_of_prepare(run, config, plan)
        return 0
    with run_lock(run.prepare_lock, "adding row keys to this run", run.path):
        files = _sound_files(run, config, plan)
        missing = [part for part, record in enumerate(files) if record is None]
        if not missing:
            return 0
        require_fetched(run, config, data=False)
        require_same_model(run, config)
        for part, record in _write_keys(run, config, plan, missing):
            files[part] = record
        made = tuple(record for record in files if record is not None)
        write(run.key_index, RowKeyIndex(format=FORMAT, plan_sha256=digest(plan), files=made))
    return sum(plan.parts[part].rows for part in missing)


def _require_keys_of_prepare(run: RunFolder, config: RunConfig, plan: Plan) -> None:
    """Raise EmbedkitError if a file of keys that prepare made is missing or damaged."""
    try:
        for _ in read_keys(run, plan, len(config.request.views)):
            pass
    except EmbedkitError as error:
        raise EmbedkitError(f"{error}; to make it again: {run.prepare_command}") from None


def _sound_files(run: RunFolder, config: RunConfig, plan: Plan) -> list[FileRecord | None]:
    """The record of each part's keys in `row_keys.json`; None where the file is not as it says."""
    try:
        records = key_records(run, plan)
    except NewerFormat:
        raise
    except EmbedkitError as error:
        if run.key_index.exists():
            log.warning("made again: %s", error)
        return [None] * len(plan.parts)
    found: list[FileRecord | None] = []
    for record, part in zip(records, plan.parts, strict=True):
        try:
            read_key_file(run.parts / record.name, record, part.rows, len(config.request.views))
            found.append(record)
        except EmbedkitError as error:
            log.warning("made again: %s", error)
            found.append(None)
    return found


def _write_keys(
    run: RunFolder, config: RunConfig, plan: Plan, parts: Sequence[int]
) -> Iterator[tuple[int, FileRecord]]:
    """Write the files of keys of some parts, ascending. A part's keys are in memory while it is written."""
    keys = _ChunkKeys(run, config, plan)
    progress = LogProgress(log, "index", sum(plan.parts[part].rows for part in parts), "rows")
    for number in parts:
        part = plan.parts[number]
        with atomic_write_hashed(run.part_keys(number)) as file:
            file.write(keys.read(part.first_id, part.first_id + part.rows).to_bytes())
        yield number, file.record
        progress.add(part.rows)


class _ChunkKeys:
    """Makes keys of kept rows chunk by chunk, since only a whole chunk can be compared with what was embedded."""

    def __init__(self, run: RunFolder, config: RunConfig, plan: Plan) -> None:
        """Raise EmbedkitError if a shard is not finished."""
        manifests, problems = ShardStates(run, plan).read_all("manifest")
        if problems:
            shard, what = next(iter(problems.items()))
            raise EmbedkitError(f"shard {shard}: {what}; finish the run first: {run.resume_command}")
        self._run = run
        self._reader = InputReader(run, config, plan)
        self._views = config.request.views
        self._chunks = [chunk for manifest in manifests for chunk in manifest.chunks]
        self._starts = [chunk.start for chunk in self._chunks]
        self._last: tuple[int, RowKeys] | None = None

    def read(self, start: int, stop: int) -> RowKeys:
        """The keys of rows with start <= id < stop. Raises EmbedkitError if they have other token ids now."""
        pieces: list[RowKeys] = []
        for number in range(bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop)):
            chunk = self._chunks[number]
            low, high = max(start, chunk.start), min(stop, chunk.stop)
            pieces.append(self._of_chunk(number).take(np.arange(low, high) - chunk.start))
        return joined(pieces, len(self._views))

    def _of_chunk(self, number: int) -> RowKeys:
        """The keys of a chunk. The last one is kept: the next part may begin in it."""
        if self._last is None or self._last[0] != number:
            self._last = number, self._make(self._chunks[number])
        return self._last[1]

    def _make(self, chunk: Chunk) -> RowKeys:
        found = self._reader.read(chunk.start, chunk.stop)
        if inputs_digest(found) != chunk.inputs_sha256:
            raise EmbedkitError(
                f"{self._run.path}: ids {chunk.start} to {chunk.stop - 1} have other token ids now than when they were "
                f"embedded; {self._run.command('verify')} says more"
            )
        tokens = np.stack([token_keys(found.token_ids[view]) for view in self._views], axis=1)
        lengths = np.stack([found.token_ids[view].lengths for view in self._views], axis=1).astype(np.int32)
        return RowKeys(self._reader.text_keys(chunk.start, chunk.stop), tokens, lengths)
