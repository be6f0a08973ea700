"""How the kept rows of a new run differ from those of an earlier one: by their texts, not by their places."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from embedkit.documents import Plan, RunConfig, View
from embedkit.prepare.kept_rows import KeptRows
from embedkit.row_keys import EarlierRun, joined, read_keys
from embedkit.run import RunFolder

TEXT, OCCURRENCE, PROMPT = "text", "occurrence", "prompt"
"""Columns of rows that are compared: hash of the texts, how many earlier rows have the same, the user's prompt."""


@dataclass(frozen=True)
class RowChanges:
    """Numbers of kept rows.

    kept: with the same texts in both runs. changed: with another text, but the prompt or the place of a row that is
    gone. added, removed: all other rows that only the new, or only the earlier run has.
    """

    kept: int
    changed: int
    added: int
    removed: int


def row_changes(run: RunFolder, config: RunConfig, plan: Plan, earlier: EarlierRun) -> RowChanges:
    """Compare the kept rows of a prepared run with those of an earlier run, over the views that both have.

    Raises EmbedkitError if a file of either run is damaged.
    """
    shared = [view for view in config.request.views if view in earlier.views]
    new = _texts(run, plan, config.request.views, shared)
    old = _texts(earlier.run, earlier.plan, earlier.views, shared)
    only_new = new.join(old, on=[TEXT, OCCURRENCE], how="anti")
    only_old = old.join(new, on=[TEXT, OCCURRENCE], how="anti")
    changed = _changed(_with_prompts(run, plan, only_new), _with_prompts(earlier.run, earlier.plan, only_old))
    return RowChanges(
        kept=new.height - only_new.height,
        changed=changed,
        added=only_new.height - changed,
        removed=only_old.height - changed,
    )


def _texts(run: RunFolder, plan: Plan, views: tuple[View, ...], shared: list[View]) -> pl.DataFrame:
    """(id, text, occurrence) of all kept rows. Of equal rows, each has its own number of occurrence."""
    keys = joined(list(read_keys(run, plan, len(views))), len(views))
    places = [views.index(view) for view in shared]
    numbers = np.where(keys.lengths[:, places, None] > 0, keys.texts[:, places], 0).reshape(plan.rows_kept, -1)
    columns = pl.DataFrame({f"{i}": numbers[:, i] for i in range(numbers.shape[1])})
    texts = pl.DataFrame({"id": np.arange(plan.rows_kept), TEXT: columns.select(pl.struct(pl.all())).to_series()})
    return texts.with_columns(pl.int_range(pl.len()).over(TEXT).alias(OCCURRENCE))


def _with_prompts(run: RunFolder, plan: Plan, rows: pl.DataFrame) -> pl.DataFrame:
    """(row, prompt) of the rows with these ids, in order. Of plain text the prompt is null: the text is all it has."""
    kept, ids = KeptRows(run, plan.parts), np.sort(rows["id"].to_numpy())
    prompt = pl.when(pl.col("num_turns") > 0).then(pl.col("user_prompt").hash(0)).alias(PROMPT)
    found = [pl.DataFrame(schema={"row": pl.Int64, PROMPT: pl.UInt64})]
    for part in plan.parts:
        low, high = np.searchsorted(ids, [part.first_id, part.first_id + part.rows])
        if low == high:
            continue
        first, stop = int(ids[low]), int(ids[high - 1]) + 1
        frame = kept.read(first, stop, ["row", "user_prompt", "num_turns"])
        found.append(frame[ids[low:high] - first].select("row", prompt))
    return pl.concat(found)


def _changed(new: pl.DataFrame, old: pl.DataFrame) -> int:
    """How many of the new rows have the prompt of an old one, or, of the others, its place in the data set."""
    by_prompt = pl.int_range(pl.len()).over(PROMPT).alias(OCCURRENCE)
    new, old = new.with_columns(by_prompt), old.with_columns(by_prompt)
    same_prompt = new.join(old, on=[PROMPT, OCCURRENCE], how="semi")
    rest = new.join(old, on=[PROMPT, OCCURRENCE], how="anti")
    old_rest = old.join(new, on=[PROMPT, OCCURRENCE], how="anti")
    return same_prompt.height + rest.join(old_rest, on="row", how="semi").height
