"""Each chosen row is kept or dropped for one reason."""

import polars as pl

from embedkit.prepare.dropped_rows import count_reasons, gather_dropped, split_kept


def test_a_row_is_dropped_if_all_views_are_empty_or_one_too_long() -> None:
    counted = pl.DataFrame(
        {
            "row": [3, 4, 5, 6],
            "dataset_source": ["s"] * 4,
            "num_tokens": pl.Series([8, 0, 9, 0], dtype=pl.Int32),
            "num_tokens_think": pl.Series([0, 0, 2, 8], dtype=pl.Int32),
        }
    )
    kept, dropped = split_kept(counted, ("combined", "think"), max_length=8)
    assert kept["row"].to_list() == [3, 6]
    unused = pl.DataFrame({"row": [1, 2], "dataset_source": ["t", "t"], "reason": ["no_assistant", "not_a_chat"]})
    gathered = gather_dropped([dropped, unused])
    assert gathered.rows() == [
        (1, "t", "no_assistant", None),
        (2, "t", "not_a_chat", None),
        (4, "s", "empty", None),
        (5, "s", "too_long", 9),
    ]
    assert count_reasons(gathered) == {"no_assistant": 1, "empty": 1, "too_long": 1, "not_a_chat": 1}
    assert count_reasons(gather_dropped([])) == {"no_assistant": 0, "empty": 0, "too_long": 0}
