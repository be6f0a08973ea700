"""diff A --now, diff A --model: the vectors of a run, and those that an engine gives here for a sample of its rows."""

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from embedkit.analysis.merged import Merged, open_merged
from embedkit.changes import Change, file_changes
from embedkit.compare.overlap import Floats, Ids
from embedkit.compare.read_rows import reader
from embedkit.data import find_model, require_fetched
from embedkit.diff.changes import engine_changes
from embedkit.diff.embed_sample import embed_sample, engine_here
from embedkit.diff.sample import TextReader, sample_ids
from embedkit.diff.schema import Difference, ViewDifference
from embedkit.diff.two_runs import problem
from embedkit.diff.view_difference import Sides, view_difference
from embedkit.documents import EngineRecord, EngineSettings, RunConfig, View
from embedkit.embed import ViewVectors
from embedkit.engines import check_installed
from embedkit.model import check_files, load_tokenizer, model_files, model_limit, require_same_model
from embedkit.row_keys import EarlierRun, open_earlier
from embedkit.run import RunFolder

ROWS = 500
"""Rows of a sample. tolerance.py says what they find."""


@dataclass(frozen=True)
class _Now:
    """Vectors of the sampled rows by view: in batches and perhaps alone, float32 (m, dim), of this engine."""

    ids: Ids
    record: EngineRecord
    batches: ViewVectors
    alone: ViewVectors | None


def diff_now(
    run: RunFolder, model: str | None = None, rows: int = ROWS, tolerance: float | None = None, seed: int = 0
) -> Difference:
    """Compare a merged run with a model and the engine that is installed here.

    Args:
        run: a merged run.
        model: folder or id of another model; None for the run's own.
        rows: rows of the sample, stratified by source and length.
        tolerance: the largest mean of 1 - cosine that passes; None for that of the dtype (tolerance.py).
        seed: chooses the sample.

    Raises:
        EmbedkitError: the run is not merged, its model changed, or the engine fails.
        UsageError: the engine is not installed, or there is no such model.
    """
    opened = open_earlier(str(run.path), use="compare")
    config = opened.config
    check_installed(config.request.engine)
    if model is None:
        require_fetched(run, config, data=False)
        require_same_model(run, config)
        texts, settings = TextReader.of_run(run, config, opened.plan), opened.plan.settings
        changes: list[Change] = []
    else:
        config, texts, settings = _with_model(opened, model)
        here = model_files(Path(config.locations.model))
        changes = file_changes("model file", opened.config.request.model_files, here)
    now = _embed(opened, config, texts, settings, rows, seed)
    dims = (opened.success.dim, now.record.dim)
    views = tuple(_view(opened, view, now, tolerance, seed) for view in config.request.views)
    return Difference(
        a=run.name,
        b="the engine here" if model is None else f"{model}, embedded here",
        passed=all(view.passed for view in views),
        problem=problem(dims, views, "all texts are too long for this model"),
        dims=dims,
        engines_a=opened.success.engines,
        engines_b=(now.record,),
        changes=(*changes, *engine_changes(opened.success.engines, [now.record])),
        views=views,
        rows=len(now.ids),
        seed=seed,
    )


def _with_model(opened: EarlierRun, model: str) -> tuple[RunConfig, TextReader, EngineSettings]:
    """The run's configuration with another model, a reader of texts for it, and settings that fit its limit."""
    folder, _, _ = find_model(model, None)
    check_files(folder)
    replace = msgspec.structs.replace
    config = replace(opened.config, locations=replace(opened.config.locations, model=str(folder)))
    limit = model_limit(folder)
    most = opened.plan.settings.max_length if limit is None else min(opened.plan.settings.max_length, limit.tokens)
    tokenizer = load_tokenizer(folder, config.request.prefix)
    texts = TextReader(opened.run, opened.config, opened.plan, tokenizer, most, is_same=False)
    return config, texts, replace(opened.plan.settings, max_length=most)


def _embed(
    opened: EarlierRun, config: RunConfig, texts: TextReader, settings: EngineSettings, rows: int, seed: int
) -> _Now:
    ids = sample_ids(opened.run, opened.config, opened.plan, [(0, opened.plan.rows_kept)], rows, seed)
    chunk = texts.read(ids)
    with engine_here(config, settings.inexact, len(ids)) as engine:
        batches, alone = embed_sample(engine, chunk, settings.chunk_tokens, config.request.store)
        return _Now(ids, engine.record, batches, alone)


def _view(opened: EarlierRun, view: View, now: _Now, tolerance: float | None, seed: int) -> ViewDifference:
    merged: Merged = open_merged(opened.run, view)
    at = np.flatnonzero(now.batches[view].any(axis=1))
    new = now.batches[view][at]
    has_text = merged.has_text[np.searchsorted(merged.ids, now.ids)]

    def read_new(positions: Ids) -> Floats:
        found: Floats = new[positions]
        return found

    sides = Sides(
        merged=merged,
        ids=now.ids[at],
        read_a=reader(merged, now.ids[at]),
        read_b=read_new,
        dims=(merged.dim, new.shape[1]),
        only=(int(has_text.sum()) - len(at), 0),
        dtype=now.record.dtype,
        alone=None if now.alone is None else now.alone[view][at],
    )
    return view_difference(sides, tolerance, seed)
