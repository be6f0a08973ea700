"""Which rows of a merged run are chosen, and their texts by id."""

import polars as pl
import pytest

from embedkit.analysis.merged import open_merged
from embedkit.errors import UsageError
from embedkit.run import RunFolder


def test_texts_come_in_the_requested_order(hash_run: RunFolder) -> None:
    merged = open_merged(hash_run)
    metadata = pl.read_parquet(hash_run.metadata)
    for ids in ([17], [8000, 3, 3, 5], []):
        texts = merged.texts(ids)
        assert texts["id"].to_list() == ids
        assert texts.equals(metadata.select(texts.columns)[ids])


@pytest.mark.parametrize("sources", [("",), ("", ""), ("a", " ")])
def test_an_empty_name_of_a_source_does_not_stand_for_all(sources: tuple[str, ...], hash_run: RunFolder) -> None:
    """`--sources ,` chose all rows."""
    with pytest.raises(UsageError, match="--sources: expected names"):
        open_merged(hash_run, sources=sources)
