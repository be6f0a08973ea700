"""Losses of each source, in the table of a notebook and in the warnings of a summary."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedkit
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan, Success
from embedkit.errors import EmbedkitError
from embedkit.merged_run import REASONS, loss_warnings, losses_by_source
from embedkit.merged_run.losses import count_dropped
from embedkit.prepare.dropped_rows import gather_dropped
from embedkit.run import RunFolder
from tests.conftest import chat, write_chats
from tests.conftest import embedkit as command
from tests.support.chosen_run import run_of_file
from tests.support.small_run import SOURCES, small, small_embedded_run, small_run, small_sharded_run

__all__ = ["small", "small_embedded_run", "small_run", "small_sharded_run"]  # fixtures

UNANSWERED = [{"role": "user", "content": "a river"}]
LONG = chat("a river", "stone " * 100)
EMPTY = chat(" ", "\n")
GOOD = chat("a river", "a stone")


def make_run(folder: Path, chats: list[tuple[str | None, list[dict[str, str]]]], **options: Any) -> RunFolder:
    folder.mkdir(exist_ok=True)
    data = write_chats(folder / "chats.parquet", [chat for _, chat in chats], [source for source, _ in chats])
    return run_of_file(folder, data, **{"max_length": 50, **options})


def test_losses_have_all_sources_the_worst_first(tmp_path: Path) -> None:
    planted: list[tuple[str | None, list[dict[str, str]]]] = [
        *[("half", GOOD)] * 3,
        *[("half", LONG)] * 2,
        ("half", UNANSWERED),
        *[("gone", EMPTY)] * 2,
        ("gone too", UNANSWERED),
        *[("whole", GOOD)] * 2,
        (None, GOOD),  # its name becomes ""
        *[("", UNANSWERED)] * 3,
    ]
    losses = embedkit.open_run(make_run(tmp_path, planted).path).losses
    assert losses.columns == ["dataset_source", "chosen", "kept", "dropped", "share_dropped", *REASONS]
    assert losses.select("dataset_source", "chosen", "kept", "dropped", "share_dropped").rows() == [
        ("gone", 2, 0, 2, 1.0),
        ("gone too", 1, 0, 1, 1.0),
        ("", 4, 1, 3, 0.75),
        ("half", 6, 3, 3, 0.5),
        ("whole", 2, 2, 0, 0.0),
    ]
    assert losses.select("no_assistant", "empty", "too_long", "not_a_chat", "not_text").rows() == [
        (0, 2, 0, 0, 0),
        (1, 0, 0, 0, 0),
        (3, 0, 0, 0, 0),
        (1, 0, 2, 0, 0),
        (0, 0, 0, 0, 0),
    ]


@pytest.mark.parametrize("layout", ["merged", "sharded"])
def test_losses_are_those_of_the_tables(small_run: RunFolder, small_sharded_run: RunFolder, layout: str) -> None:
    run = embedkit.open_run((small_run if layout == "merged" else small_sharded_run).path)
    lines = {line["dataset_source"]: line for line in run.losses.iter_rows(named=True)}
    assert sorted(lines) == SOURCES
    for source, line in lines.items():
        kept = [name for name in run.rows["dataset_source"] if name == source]
        reasons = [row["reason"] for row in run.dropped.iter_rows(named=True) if row["dataset_source"] == source]
        assert (line["chosen"], line["kept"], line["dropped"]) == (28, len(kept), len(reasons))
        assert {reason: line[reason] for reason in REASONS} == {reason: reasons.count(reason) for reason in REASONS}
        assert line["share_dropped"] == len(reasons) / 28


def test_a_run_without_losses_reads_no_file(tmp_path: Path) -> None:
    run = make_run(tmp_path, [("a", GOOD)])
    run.dropped.unlink()
    losses = losses_by_source(run, read(run.plan, Plan), read(run.success, Success))
    assert losses.rows() == [("a", 1, 1, 0, 0.0, 0, 0, 0, 0, 0)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "a", "b/c", "ü"]), st.sampled_from(REASONS)), max_size=40))
def test_dropped_rows_are_counted_as_in_a_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("dropped") / "[1] dropped.parquet"
    names = {"dataset_source": [source for source, _ in rows], "reason": [reason for _, reason in rows]}
    frame = pl.DataFrame(names, schema=dict.fromkeys(names, pl.String)).with_row_index("row").cast({"row": pl.Int64})
    gather_dropped([frame]).write_parquet(path)
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        counts[row] = counts.get(row, 0) + 1
    assert {line[:2]: line[2] for line in count_dropped(path, len(rows)).iter_rows()} == counts


@pytest.mark.parametrize(
    ("damage", "message"), [(b"no parquet", "cannot be read"), (None, r"has \d+ rows, plan\.json says")]
)
def test_a_damaged_table_of_dropped_rows_is_named(small: RunFolder, damage: bytes | None, message: str) -> None:
    if damage is None:
        pl.read_parquet(small.dropped).head(1).write_parquet(small.dropped)
    else:
        small.dropped.write_bytes(damage)
    with pytest.raises(EmbedkitError, match=rf"{re.escape(str(small.dropped))}: {message}.*run `embedkit verify`"):
        _ = embedkit.open_run(small.path).losses


def table(*lines: tuple[str, int, int, int]) -> pl.DataFrame:
    """Losses of sources: name, kept, too_long, empty."""
    return pl.DataFrame(
        [
            {"dataset_source": name, "chosen": kept + long + empty, "kept": kept, "dropped": long + empty}
            | {"share_dropped": (long + empty) / (kept + long + empty)}
            | dict.fromkeys(REASONS, 0)
            | {"too_long": long, "empty": empty}
            for name, kept, long, empty in lines
        ]
    )


def test_warnings_name_three_sources_and_count_the_rest() -> None:
    many = table(("x\n", 10, 189, 1), ("b", 2, 0, 8), ("c", 1999, 5_000, 6_000), ("d", 8, 2, 0), ("e", 8, 2, 0))
    assert loss_warnings(many, Path("run/dropped_rows.parquet")) == [
        r"source 'x\n' lost 190 of 200 rows (95 %): 189 too_long, 1 empty",
        "source 'b' lost 8 of 10 rows (80 %): 8 empty",
        "source 'c' lost 11,000 of 12,999 rows (85 %): 6,000 empty, 5,000 too_long",
        "2 more sources lost over a tenth of their rows: run/dropped_rows.parquet",
    ]
    assert loss_warnings(many.head(4), Path("d"))[3] == "1 more source lost over a tenth of its rows: d"


@pytest.mark.parametrize(
    ("kept", "dropped", "percent"), [(9, 1, None), (899, 101, 10), (1, 999, 99), (0, 3, 100), (10_000, 0, None)]
)
def test_a_source_is_named_above_a_tenth(kept: int, dropped: int, percent: int | None) -> None:
    lines = loss_warnings(table(("s", kept, dropped, 0)), Path("d"))
    expected = f"source 's' lost {dropped} of {kept + dropped:,} rows ({percent} %): {dropped} too_long"
    assert lines == ([] if percent is None else [expected])


def test_merge_prints_which_sources_lost_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path, [("a", GOOD)] * 30 + [("\u202ebad", LONG)] * 2)
    printed = command("merge", run.path).stdout
    assert "warning: source '\\u202ebad' lost 2 of 2 rows (100 %): 2 too_long\n" in printed
    assert "source 'a'" not in printed
