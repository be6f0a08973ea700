"""The page of made rows: real blocks and template, without a run."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from embedkit.analysis.page.carried_texts import texts_block
from embedkit.analysis.page.layer import choose_layer
from embedkit.analysis.page.pack import pack
from embedkit.analysis.page.render import render
from embedkit.analysis.page.sections import Section


def made_page(folder: Path, sources: Mapping[str, int], sections: tuple[Section, ...] = ()) -> Path:
    """Write the page of rows in random places, source by source; each text is "the row <id> of it".

    sources: rows by name. Every row with an odd id is followed by one that the run did not keep.
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
    data = pack([replace(choose_layer(merged, found, places, None), snippets=lines["prompt"])])
    page = folder / "index.html"
    page.write_text(render("made", "made rows", [], sections, data, (block, len(ids))), encoding="utf-8")
    return page
