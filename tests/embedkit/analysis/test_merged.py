"""Texts of a merged run by id."""

import polars as pl

from embedkit.analysis.merged import open_merged
from embedkit.run import RunFolder


def test_texts_come_in_the_requested_order(hash_run: RunFolder) -> None:
    merged = open_merged(hash_run)
    metadata = pl.read_parquet(hash_run.metadata)
    for ids in ([17], [8000, 3, 3, 5], []):
        texts = merged.texts(ids)
        assert texts["id"].to_list() == ids
        assert texts.equals(metadata.select(texts.columns)[ids])
