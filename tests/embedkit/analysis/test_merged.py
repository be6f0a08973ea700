"""Texts of a merged run by id."""

import polars as pl
import pytest

from embedkit.analysis import merged as module
from embedkit.analysis.merged import open_merged
from embedkit.runfolder import RunFolder


@pytest.mark.parametrize("scan_from", [1, 10**9])
def test_texts_come_in_the_order_asked_from_row_groups_or_a_scan(
    hash_run: RunFolder, scan_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = open_merged(hash_run)
    metadata = pl.read_parquet(hash_run.metadata)
    monkeypatch.setattr(module, "SCAN_FROM", scan_from)
    for ids in ([17], [8000, 3, 3, 5], []):
        texts = merged.texts(ids)
        assert texts["id"].to_list() == ids
        assert texts.equals(metadata.select(texts.columns)[ids])
