"""The files of compare."""

from pathlib import Path

import msgspec

from embedkit.analysis.write_files import write_json, write_parquet, write_text
from embedkit.compare.compare import Compared
from embedkit.compare.out_folder import begin
from embedkit.compare.text import as_text

RECORD = "compare.json"
FILES = ("compared.parquet", "moved.txt", RECORD)


def write_compared(found: Compared, folder: Path) -> None:
    """Write what was found to a folder, `compare.json` last."""
    begin(folder, RECORD)
    write_parquet(folder / "compared.parquet", found.rows)
    write_text(folder / "moved.txt", as_text(found.summary))
    write_json(folder / RECORD, msgspec.to_builtins(found.summary))
