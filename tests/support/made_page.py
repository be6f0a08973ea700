"""The page of made rows: real blocks and template, without a run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from embedkit.analysis.groups import Groups, GroupSummary, NamedGroups
from embedkit.analysis.page.carried_texts import texts_block
from embedkit.analysis.page.columns import CategoryColumn
from embedkit.analysis.page.layer import choose_layer
from embedkit.analysis.page.pack import pack
from embedkit.analysis.page.render import render
from embedkit.analysis.page.sections import Section
from embedkit.analysis.similarity.umap import UmapLayout


def made_page(
    folder: Path,
    sources: Mapping[str, int],
    sections: tuple[Section, ...] = (),
    groups: NamedGroups | None = None,
    xy: npt.NDArray[np.float32] | None = None,
) -> Path:
    """Write the page of rows in random places, source by source; each text is "the row <id> of it".

    sources: rows by name. Every row with an odd id is followed by one that the run did not keep. groups: of all rows.
    xy: places on the UMAP, float32 (rows, 2); None for no UMAP.
    """
    names, counts = tuple(sorted(sources)), [sources[name] for name in sorted(sources)]
    ids = np.arange(sum(counts))
    frame = pl.DataFrame(
        {
            "id": ids,
            "row": ids + ids // 2,
            "num_tokens": ids + 1,
            "num_turns": np.ones(len(ids), np.int64),
            "source": np.repeat(np.arange(len(names)), counts).astype(np.int32),
        }
    )
    success = SimpleNamespace(sources={name: SimpleNamespace(rows=sources[name]) for name in names})
    merged: Any = SimpleNamespace(
        rows=frame, has_text=np.ones(len(ids), bool), sources=names, view="combined", success=success
    )
    places = np.random.default_rng(0).uniform(size=(len(ids), 2)).astype(np.float32)
    found: Any = SimpleNamespace(explained_variance_ratio=np.array([0.2, 0.1]))
    lines = pl.DataFrame({"id": ids, "prompt": [f"the row {i} of it" for i in ids]})
    block = texts_block(lines.with_columns(pl.lit(20).alias("prompt length")))
    fine = [] if groups is None else [one.name for one in groups.summaries["fine"]]
    columns = [] if groups is None else [CategoryColumn("group", "group", groups.groups.fine, fine)]
    umap_layout = None if xy is None else UmapLayout(ids, xy, np.zeros(len(ids), bool), 0, 15, 0.1)
    layer = choose_layer(merged, found, places, umap_layout, columns=columns)
    data = pack([replace(layer, snippets=lines["prompt"], groups=groups)])
    page = folder / "index.html"
    page.write_text(render("made", "made rows", [], sections, data, (block, len(ids))), encoding="utf-8")
    return page


def made_groups(
    fine: npt.NDArray[np.int32], names: Mapping[str, list[str]], parents: Mapping[str, list[int]], source: str
) -> NamedGroups:
    """Groups of rows that are all of one source.

    fine: the fine group of each row, int32 (n,); -1 for none. names: by level, coarse first. parents: by level, the
    group that each fine group lies in.
    """
    of_fine = {level: np.array(parents[level], np.int32) for level in names}
    groups = Groups(np.arange(len(fine)), fine, fine, fine < -1, of_fine, {}, len(fine), 1)
    summaries = {
        level: tuple(
            GroupSummary(
                level=level,
                group=group,
                name=name,
                words=((name, 1.0),),
                rows=int(groups.sizes(level)[group]),
                sources=((source, 1.0),),
                parent=None,
                examples=tuple(np.flatnonzero(groups.of_level(level) == group)[:1].tolist()),
            )
            for group, name in enumerate(of_level)
        )
        for level, of_level in names.items()
    }
    return NamedGroups(groups, summaries)
