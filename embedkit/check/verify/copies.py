"""Vectors copied from earlier runs: they are the recorded ones, of the recorded rows, here and in the earlier run.

An earlier run that is gone, or was merged again with other rows, is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.check.verify.findings import Findings
from embedkit.documents import Plan, RunConfig, ShardManifest, View, open_matrix
from embedkit.errors import EmbedkitError
from embedkit.row_keys import (
    CopiedRows,
    EarlierRun,
    KeptKeys,
    Keys,
    open_earlier,
    read_view_keys,
    vector_keys,
)
from embedkit.run import RunFolder

ROWS_AT_ONCE = 16_384


def check_copies(
    run: RunFolder, config: RunConfig, plan: Plan, manifests: Sequence[ShardManifest], findings: Findings
) -> None:
    """Check the copied texts of all rows, and the copied vectors of finished shards.

    Memory holds the keys of token ids of one view of all earlier runs: 16 bytes per row, 36 of the one that is read.
    """
    if not plan.tokens_copied:
        return
    earlier = [_open(folder, config, place) for place, folder in enumerate(config.locations.reuse)]
    kept = KeptKeys(run, plan, len(config.request.views))
    for place, name in enumerate(config.request.views):
        view = _View(name, place)
        sources = list(_sources(earlier, view, findings))
        for source in sources:
            _check_texts(run, plan, view, kept, source, findings)
        for manifest in manifests:
            _check_vectors(run, manifest, view, kept, sources, findings)


@dataclass(frozen=True)
class _View:
    """A view and its place in the request."""

    name: View
    place: int


@dataclass(frozen=True)
class _Source:
    """One view of an earlier run: its place in the request, and the keys of its rows' token ids, uint64 (rows, 2)."""

    place: int
    earlier: EarlierRun
    tokens: Keys


def _open(folder: str, config: RunConfig, place: int) -> EarlierRun | None:
    try:
        return open_earlier(folder, config.request.reuse[place])
    except EmbedkitError:
        return None


def _sources(earlier: Sequence[EarlierRun | None], view: _View, findings: Findings) -> Iterator[_Source]:
    """The earlier runs that are there and have a view."""
    for place, found in enumerate(earlier):
        if found is None or view.name not in found.views:
            continue
        try:
            keys = read_view_keys(found.run, found.plan, len(found.views), found.views.index(view.name))
        except EmbedkitError as error:
            what = f"vectors were copied from this run, and its row keys cannot be read: {error}"
            findings.add(found.run.path, what, fix=found.run.command("verify"))
            continue
        yield _Source(place, found, keys.tokens[:, 0])


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    for first in range(start, stop, ROWS_AT_ONCE):
        yield first, min(first + ROWS_AT_ONCE, stop)


def _check_texts(run: RunFolder, plan: Plan, view: _View, kept: KeptKeys, source: _Source, findings: Findings) -> None:
    """Check that copied texts have the token ids of the rows from which they are copied, part by part."""
    for number, part in enumerate(plan.parts):
        keys = kept.keys(part.first_id, part.first_id + part.rows)
        copied = kept.copies(part.first_id, part.first_id + part.rows).of_run(source.place, view.place)
        if keys is None or not len(copied.rows):
            continue
        differing = _differing_texts(copied, keys.tokens[:, view.place], source.tokens)
        if len(differing):
            first = int(differing[0])
            row, there = part.first_id + copied.rows[first], copied.ids[first]
            what = f"id {row} is copied from id {there} of {source.earlier.run.path}, which has a different text"
            fix = findings.prepared_again(run.part_manifest(number), run.plan)
            findings.add(run.part_copies(number), f"{what} (view {view.name}, {len(differing)} such)", fix=fix)


def _differing_texts(copied: CopiedRows, tokens: Keys, there: Keys) -> npt.NDArray[np.int64]:
    """The positions of copied rows whose token ids are not those of the row that they name, which may not exist."""
    is_row = (copied.ids >= 0) & (copied.ids < len(there))
    found = there[np.where(is_row, copied.ids, 0)]
    return np.flatnonzero(~is_row | (found != tokens[copied.rows]).any(axis=1))


def _check_vectors(
    run: RunFolder,
    manifest: ShardManifest,
    view: _View,
    kept: KeptKeys,
    sources: Sequence[_Source],
    findings: Findings,
) -> None:
    """Check one view of a shard, a few thousand rows at a time."""
    matrix = manifest.matrices[view.name]
    path = run.shard(manifest.shard) / matrix.file.name
    if findings.has(path):
        return
    vectors = open_matrix(path, *matrix.shape, manifest.request.store)
    for start, stop in _blocks(manifest.start, manifest.stop):
        copies = kept.copies(start, stop)
        rows = np.flatnonzero(copies.are_copied[:, view.place])
        found = vector_keys(vectors[start - manifest.start + rows])
        differing = rows[(found != copies.vectors[rows, view.place]).any(axis=1)]
        if len(differing):
            what = f"the vector of id {start + differing[0]} is not the one that was copied ({len(differing)} such)"
            findings.add(path, what, manifest.shard, findings.remake(manifest.shard))
        for source in sources:
            _check_source(source, view, copies.of_run(source.place, view.place), start, findings)
    findings.copied += int(sum(views.get(view.name, 0) for views in manifest.copied.values()))


def _check_source(source: _Source, view: _View, copied: CopiedRows, start: int, findings: Findings) -> None:
    """Compare copied vectors with those that the earlier run has now."""
    run, success = source.earlier.run, source.earlier.success
    there = np.flatnonzero((copied.ids >= 0) & (copied.ids < success.rows))  # others are reported already
    if not len(there):
        return
    try:
        matrix = source.earlier.files.matrix(view.name)
        now = matrix.take(copied.ids[there])
    except (EmbedkitError, FileNotFoundError) as error:
        findings.add(run.embeddings, f"vectors were copied from it: {error}", fix=run.command("verify"))
        return
    differing = there[(vector_keys(now) != copied.vectors[there]).any(axis=1)]
    if len(differing):
        first = int(differing[0])
        what = f"the vector of id {copied.ids[first]} changed since it was copied to id {start + copied.rows[first]}"
        path = matrix.path_of(int(copied.ids[first]))
        findings.add(path, f"{what} ({len(differing)} such)", fix=run.command("verify"))
