"""Sums over the rows of the parts, which come one after the other, are those of all rows at once."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from embedkit.check.verify.dropped import DroppedRows
from embedkit.check.verify.rows import RowSums
from embedkit.documents import FileRecord, Plan, PlanPart, PlanShard, Request, RunConfig, read
from embedkit.prepare.dropped_rows import gather_dropped
from embedkit.run import RunFolder


def write_dropped(path: Path, rows: list[int], reasons: list[str]) -> None:
    sources = ["a"] * len(rows)
    frame = pl.DataFrame(
        {"row": rows, "dataset_source": sources, "reason": reasons}, schema_overrides={"row": pl.Int64}
    )
    gather_dropped([frame.with_columns(token_count=pl.lit(None, pl.Int32))]).write_parquet(path)


@st.composite
def cut_rows(draw: st.DrawFn) -> tuple[list[list[int]], list[int], list[int]]:
    """Token counts of parts, some without rows; where shards begin and end; which rows of the data set were kept."""
    parts = draw(st.lists(st.lists(st.integers(0, 2**40), max_size=5), min_size=1, max_size=5).filter(any))
    rows = sum(map(len, parts))
    borders = draw(st.sets(st.integers(1, rows), max_size=4))
    kept = draw(st.lists(st.integers(0, 30), min_size=rows, max_size=rows, unique=True))
    return parts, sorted({0, rows, *borders}), sorted(kept)


@settings(max_examples=40, deadline=None)
@given(cut_rows(), st.lists(st.integers(0, 30), unique=True, max_size=20))
def test_sums_of_parts_are_those_of_all_rows(
    prepared: tuple[RunFolder, Request, Plan], cut: tuple[list[list[int]], list[int], list[int]], lost: list[int]
) -> None:
    (run, request, plan), (parts, borders, kept) = prepared, cut
    file = FileRecord(name="x", bytes=0, sha256="")
    plan = structs.replace(
        plan,
        rows_kept=borders[-1],
        parts=tuple(PlanPart(file=file, first_id=0, rows=len(part)) for part in parts),
        shards=tuple(
            PlanShard(start=a, stop=b, tokens=0, cost_seconds=0.0, chunks=(a, b)) for a, b in pairwise(borders)
        ),
    )
    with TemporaryDirectory() as folder:
        write_dropped(Path(folder, "d"), lost, ["empty"] * len(lost))
        sums = RowSums(run, request, plan, DroppedRows(Path(folder, "d")))
        at = 0
        for part in parts:
            sums.add(np.array(kept[at : at + len(part)], np.int64), np.array(part, np.int64))
            at += len(part)
    tokens = [count for part in parts for count in part]
    assert (sums.kept, sums.tokens, sums.rows) == (len(kept), sum(tokens), [len(part) for part in parts])
    assert sums.ascend
    assert sums.are_dropped == bool(set(kept) & set(lost))
    assert sums.embedded.tolist() == [sum(tokens[a:b]) for a, b in pairwise(borders)]
    assert sums.copied.tolist() == [0] * (len(borders) - 1)


@pytest.fixture(scope="module")
def prepared(small_embedded_run: RunFolder) -> tuple[RunFolder, Request, Plan]:
    return small_embedded_run, read(small_embedded_run.config, RunConfig).request, read(small_embedded_run.plan, Plan)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_dropped_rows_come_in_step(batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedkit.check.verify.dropped.BATCH_ROWS", batch)
    path = tmp_path / "d.parquet"
    write_dropped(path, [2, 3, 5, 8, 9], ["empty", "too_long", "empty", "not_text", "empty"])
    dropped = DroppedRows(path)
    assert [dropped.up_to(row).tolist() for row in (1, 3, 3, 8)] == [[], [2, 3], [], [5, 8]]
    dropped.finish()
    assert dropped.up_to(99).tolist() == []
    assert (dropped.count, dropped.ascend, dropped.problem) == (5, True, "")
    assert dict(dropped.reasons) == {"empty": 3, "too_long": 1, "not_text": 1}


@pytest.mark.parametrize("rows", [[3, 2], [2, 2], [1, 5, 4]])
@pytest.mark.parametrize("batch", [1, 100])
def test_dropped_rows_that_do_not_ascend_are_noticed(
    rows: list[int], batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedkit.check.verify.dropped.BATCH_ROWS", batch)
    path = tmp_path / "d.parquet"
    pl.DataFrame({"row": rows, "reason": ["empty"] * len(rows)}).write_parquet(path)
    dropped = DroppedRows(path)
    dropped.finish()
    assert (dropped.count, dropped.ascend) == (len(rows), False)


def test_dropped_rows_that_cannot_be_decoded_end_with_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    path.write_bytes(b"PAR1 and no table")
    assert DroppedRows(path).problem.startswith("cannot be decoded: ")
    pl.DataFrame({"number": [1]}).write_parquet(path)
    assert DroppedRows(path).problem.startswith("cannot be decoded: ")
    assert DroppedRows(tmp_path / "none").problem.startswith("cannot be decoded: ")
