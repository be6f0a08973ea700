"""Parts with wrong rows under right digests, and files that no document of prepare names."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from embedkit.check.verify import verify
from embedkit.documents import Plan
from embedkit.documents.codec import file_record
from embedkit.run import RunFolder
from tests.support.reseal import record_part, reseal, rewrite_table


def found(run: RunFolder) -> list[tuple[str, str, str]]:
    return [(problem.file, problem.what, problem.fix) for problem in verify(run).problems]


def with_row(table: pa.Table, at: int, row: int) -> pa.Table:
    rows = table["row"].to_pylist()
    rows[at] = row
    return table.set_column(table.schema.get_field_index("row"), table.schema.field("row"), pa.array(rows, pa.int64()))


@pytest.mark.parametrize("row", [0, 23])
def test_rows_out_of_order_are_found(small_prepared: RunFolder, row: int) -> None:
    """The first row of the second part is that of the first part's first row, or of its last one, once more."""
    run = small_prepared
    rewrite_table(run.part_data(1), lambda table: with_row(table, 0, row))
    record_part(run, 1)
    what = "rows are not in data set order"
    assert found(run) == [("extracted_data.parquet", what, run.resume_command)]


def test_a_row_that_is_kept_and_dropped_is_found(small_prepared: RunFolder) -> None:
    run = small_prepared
    pl.read_parquet(run.dropped).with_columns(row=pl.col("row").replace(5, 4)).write_parquet(run.dropped)
    reseal(run.plan, Plan, dropped_rows=file_record(run.dropped))
    assert found(run) == [("dropped_rows.parquet", "names rows that were kept", run.resume_command)]


def test_dropped_rows_out_of_order_are_found(small_prepared: RunFolder) -> None:
    """They are compared with the kept rows in order, so that one would be missed."""
    run = small_prepared
    pl.read_parquet(run.dropped).reverse().write_parquet(run.dropped)
    reseal(run.plan, Plan, dropped_rows=file_record(run.dropped))
    fix = f"rm {run.plan} && {run.prepare_command}"
    assert found(run) == [("dropped_rows.parquet", "rows are not in data set order", fix)]


def test_dropped_rows_that_cannot_be_decoded_are_found(small_prepared: RunFolder) -> None:
    run = small_prepared
    run.dropped.write_bytes(b"PAR1 and no table")
    reseal(run.plan, Plan, dropped_rows=file_record(run.dropped))
    (problem,) = found(run)
    assert (problem[0], problem[2]) == ("dropped_rows.parquet", f"rm {run.plan} && {run.prepare_command}")
    assert problem[1].startswith("cannot be decoded: ")


def test_a_part_that_cannot_be_decoded_is_found(small_prepared: RunFolder) -> None:
    run = small_prepared
    run.part_data(3).write_bytes(b"PAR1 and no table")
    record_part(run, 3)
    (problem,) = found(run)
    fix = f"rm {run.part_manifest(3)} {run.plan} && {run.resume_command}"
    assert (problem[0], problem[2]) == ("extracted_data.parquet/part-00003.parquet", fix)
    assert problem[1].startswith("cannot be decoded: ")


@pytest.mark.parametrize("name", ["x.parquet", "notes.txt", ".hidden"])
def test_a_stray_file_among_the_parts_is_named(small_prepared: RunFolder, name: str) -> None:
    run = small_prepared
    stray = run.extracted / name
    stray.write_bytes(b"somebody's own")
    what = "no manifest names this file; it breaks reading the folder as one table; move it away"
    fix = f"mv -n {stray} {run.path}/extracted_data.parquet-{name}"
    assert found(run) == [(f"extracted_data.parquet/{name}", what, fix)]
    run.plan.unlink()
    assert found(run) == []


def changed(path: Path) -> str:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    return f"{path}: its bytes are not those that were written (sha256 differs)"


@pytest.mark.parametrize("has_plan", [True, False])
def test_damaged_files_of_prepare_are_named(small_prepared: RunFolder, has_plan: bool) -> None:
    run = small_prepared
    run.submissions.touch()  # so that the commands for prepare and for the whole run differ
    if not has_plan:
        run.plan.unlink()
    wanted = [
        ("extracted_data.parquet/part-00000.parquet", changed(run.part_data(0))),
        ("parts/dropped-00001.parquet", changed(run.part_dropped(1))),
    ]
    run.part_data(2).unlink()
    wanted.append(("extracted_data.parquet/part-00002.parquet", f"{run.part_data(2)}: missing"))
    run.part_manifest(3).write_bytes(b"{}")
    damaged = "its bytes are not those that were written (damaged, or edited by hand)"
    wanted.append(("parts/part-00003.json", f"{run.part_manifest(3)}: {damaged}"))
    if has_plan:
        wanted.append(("dropped_rows.parquet", changed(run.dropped)))
    assert found(run) == [(file, what, run.prepare_command) for file, what in wanted]


def test_without_an_index_nothing_is_compared_with_it(small_prepared: RunFolder) -> None:
    """The loss of the index is reported, and nothing else."""
    run = small_prepared
    run.submissions.touch()  # so that the commands for prepare and for the whole run differ
    run.data_index.unlink()
    what = "missing, though later stages were done"
    assert found(run) == [("parts/index.json", what, run.prepare_command)]
    run.data_index.write_bytes(b"{}")
    damaged = "its bytes are not those that were written (damaged, or edited by hand)"
    assert found(run) == [("parts/index.json", f"{run.data_index}: {damaged}", run.prepare_command)]


def test_a_missing_part_manifest_is_named_where_there_is_a_plan(small_prepared: RunFolder) -> None:
    run = small_prepared
    run.part_manifest(1).unlink()
    what = f"{run.part_manifest(1)}: no such file"
    assert found(run) == [("parts/part-00001.json", what, run.prepare_command)]
    run.plan.unlink()
    assert found(run) == []
