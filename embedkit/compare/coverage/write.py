"""The files of coverage."""

from pathlib import Path

import msgspec
import polars as pl

from embedkit.analysis.write_files import write_json, write_parquet, write_text
from embedkit.compare.coverage.schema import Coverage
from embedkit.compare.coverage.summary import source_table
from embedkit.compare.coverage.text import as_text
from embedkit.compare.out_folder import begin

RECORD = "coverage.json"
FILES = ("coverage.parquet", "coverage_by_source.parquet", "far.txt", RECORD)


def write_coverage(summary: Coverage, rows: pl.DataFrame, folder: Path) -> None:
    """Write what was found to a folder, `coverage.json` last. rows: as `coverage_rows` gives them."""
    begin(folder, RECORD)
    write_parquet(folder / "coverage.parquet", rows)
    write_parquet(folder / "coverage_by_source.parquet", source_table(rows))
    write_text(folder / "far.txt", as_text(summary))
    write_json(folder / RECORD, msgspec.to_builtins(summary))
