"""Kept rows by id: any range over the borders of parts, and never fewer rows than were requested."""

import re

import numpy as np
import polars as pl
import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import Plan
from embedkit.errors import EmbedkitError
from embedkit.prepare.kept_rows import KeptRows
from embedkit.run import RunFolder


def test_ids_are_read_over_the_borders_of_parts(hash_run: RunFolder) -> None:
    plan = read(hash_run.plan, Plan)
    rows = pl.read_parquet(hash_run.extracted)["row"].to_list()
    second = plan.parts[1].first_id
    kept = KeptRows(hash_run, plan.parts)
    for start, stop in ((0, 1), (second - 1, second), (second, second + 1), (second - 3, second + 3)):
        assert kept.read(start, stop, ["row"])["row"].to_list() == rows[start:stop]
    everything = kept.read(0, plan.rows_kept, ["row"])
    assert everything["row"].to_list() == rows


def test_ids_that_no_part_has_are_an_error(hash_run: RunFolder) -> None:
    """Ids behind the last row, and a plan that lacks a part in the middle."""
    plan = read(hash_run.plan, Plan)
    message = rf"^{re.escape(str(hash_run.extracted))}: ids %d to %d have %d rows; run `embedkit verify`$"
    last, second = plan.rows_kept - 1, plan.parts[1].first_id
    with pytest.raises(EmbedkitError, match=message % (last, last + 1, 1)):
        KeptRows(hash_run, plan.parts).read(last, last + 2, ["row"])
    without_second = (plan.parts[0], *plan.parts[2:])
    with pytest.raises(EmbedkitError, match=message % (second - 2, second + 4, 2)):
        KeptRows(hash_run, without_second).read(second - 2, second + 5, ["row"])


def test_scattered_ids_are_read_from_all_parts(hash_run: RunFolder) -> None:
    plan = read(hash_run.plan, Plan)
    rows = pl.read_parquet(hash_run.extracted)["row"].to_list()
    second = plan.parts[1].first_id
    ids = np.array([0, 7, second - 1, second, second + 1500, plan.rows_kept - 1])
    kept = KeptRows(hash_run, plan.parts)
    assert pl.concat(kept.take(ids, ["row"]))["row"].to_list() == [rows[i] for i in ids]
    assert list(kept.take(ids[:0], ["row"])) == []


def test_scattered_ids_that_no_part_has_are_an_error(hash_run: RunFolder) -> None:
    plan = read(hash_run.plan, Plan)
    with pytest.raises(EmbedkitError, match=r"\.parquet: cannot be read: it has \d+ rows, and row \d+ was requested"):
        list(KeptRows(hash_run, plan.parts).take(np.array([plan.rows_kept]), ["row"]))
