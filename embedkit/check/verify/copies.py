"""Vectors copied from earlier runs: they are the recorded ones, here and in the earlier run, if it is still there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.check.verify.findings import Findings
from embedkit.documents import Plan, RunConfig, ShardManifest, View, open_matrix
from embedkit.errors import EmbedkitError
from embedkit.row_keys import Copies, EarlierRun, KeptKeys, open_earlier, vector_keys
from embedkit.run import RunFolder

ROWS_AT_ONCE = 16_384


def check_copies(
    run: RunFolder, config: RunConfig, plan: Plan, manifests: Sequence[ShardManifest], findings: Findings
) -> None:
    """Check the copied vectors of finished shards. Earlier runs that are gone, or were merged again, are left out."""
    if not plan.tokens_copied:
        return
    earlier = [_open(folder, config, place) for place, folder in enumerate(config.locations.reuse)]
    kept = KeptKeys(run, plan, len(config.request.views))
    for manifest in manifests:
        for place, view in enumerate(config.request.views):
            _check_view(run, manifest, _View(view, place), kept, earlier, findings)


@dataclass(frozen=True)
class _View:
    """A view and its place in the request."""

    name: View
    place: int


def _open(folder: str, config: RunConfig, place: int) -> EarlierRun | None:
    try:
        return open_earlier(folder, config.request.reuse[place])
    except EmbedkitError:
        return None


def _check_view(
    run: RunFolder,
    manifest: ShardManifest,
    view: _View,
    kept: KeptKeys,
    earlier: Sequence[EarlierRun | None],
    findings: Findings,
) -> None:
    """Check one view of a shard, a few thousand rows at a time."""
    matrix = manifest.matrices[view.name]
    path = run.shard(manifest.shard) / matrix.file.name
    if findings.has(path):
        return
    vectors = open_matrix(path, *matrix.shape)
    for start in range(manifest.start, manifest.stop, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, manifest.stop)
        copies = kept.copies(start, stop)
        rows = np.flatnonzero(copies.are_copied[:, view.place])
        found = vector_keys(vectors[start - manifest.start + rows])
        differing = rows[(found != copies.vectors[rows, view.place]).any(axis=1)]
        if len(differing):
            what = f"the vector of id {start + differing[0]} is not the one that was copied ({len(differing)} such)"
            findings.add(path, what, manifest.shard, findings.remake(manifest.shard))
        for number, source in enumerate(earlier):
            if source is not None:
                chosen = rows[copies.runs[rows, view.place] == number]
                _check_source(source, view, copies, chosen, start, findings)
    findings.copied += int(sum(views.get(view.name, 0) for views in manifest.copied.values()))


def _check_source(
    source: EarlierRun, view: _View, copies: Copies, rows: npt.NDArray[np.int64], start: int, findings: Findings
) -> None:
    """Compare copied vectors with those that the earlier run has now."""
    if not len(rows):
        return
    path = source.run.view_matrix(view.name)
    ids = copies.ids[rows, view.place]
    try:
        now = open_matrix(path, source.success.rows, source.success.dim)[ids]
    except (EmbedkitError, FileNotFoundError) as error:
        findings.add(path, f"vectors were copied from it: {error}", fix=source.run.command("verify"))
        return
    differing = np.flatnonzero((vector_keys(now) != copies.vectors[rows, view.place]).any(axis=1))
    if len(differing):
        first = int(differing[0])
        what = f"the vector of id {ids[first]} changed since it was copied to id {start + rows[first]}"
        findings.add(path, f"{what} ({len(differing)} such)", fix=source.run.command("verify"))
