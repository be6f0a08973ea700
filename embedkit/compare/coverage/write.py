"""The files of coverage."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import polars as pl

from embedkit.analysis.write_files import write_json, write_parquet, write_text
from embedkit.compare.coverage.find import CoverageOptions
from embedkit.compare.coverage.pair import DataPair
from embedkit.compare.coverage.schema import Coverage
from embedkit.compare.coverage.summary import source_table
from embedkit.compare.coverage.text import as_text
from embedkit.documents import View
from embedkit.out_folder import OutFiles, Request, place_of


def _deciding(runs: tuple[str, str], view: View, sources: Sequence[str], k: int, seed: int) -> Request:
    return {"RUN": runs[0], "OTHER": runs[1], "view": view, "sources": tuple(sources), "k": k, "seed": seed}


def _request_of(record: Path) -> Request:
    found = msgspec.json.decode(record.read_bytes(), type=Coverage)
    return _deciding((found.a, found.b), found.view, found.chosen_sources, found.k, found.seed)


FILES = OutFiles("coverage.json", ("coverage.parquet", "coverage_by_source.parquet", "far.txt"), _request_of)


def free_folder(out: Path, pair: DataPair, options: CoverageOptions) -> Path:
    """The real path of a folder outside both runs.

    Raises UsageError if it is in one of them, or has anything but an earlier result of the same request.
    """
    a, b = pair.a, pair.b
    folder = place_of(place_of(out, a.run), b.run)
    FILES.require_free(folder, _deciding((a.run.name, b.run.name), a.view, pair.sources, options.k, options.seed))
    return folder


def write_coverage(summary: Coverage, rows: pl.DataFrame, folder: Path) -> None:
    """Write what was found to a folder, `coverage.json` last. rows: as `coverage_rows` gives them."""
    FILES.begin(folder)
    write_parquet(folder / "coverage.parquet", rows)
    write_parquet(folder / "coverage_by_source.parquet", source_table(rows))
    write_text(folder / "far.txt", as_text(summary))
    write_json(folder / FILES.record, msgspec.to_builtins(summary))
