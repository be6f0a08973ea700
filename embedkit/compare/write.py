"""The files of compare."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from embedkit.analysis.write_files import write_json, write_parquet, write_text
from embedkit.compare.aligned import Aligned
from embedkit.compare.compare import Compared
from embedkit.compare.schema import Comparison
from embedkit.compare.text import as_text
from embedkit.documents import View
from embedkit.out_folder import OutFiles, Request, place_of


def _deciding(runs: tuple[str, str], views: tuple[View, View], sources: Sequence[str], seed: int) -> Request:
    return {
        "RUN": runs[0],
        "OTHER": runs[1],
        "view": views[0],
        "with-view": views[1],
        "sources": tuple(sources),
        "seed": seed,
    }


def _request_of(record: Path) -> Request:
    found = msgspec.json.decode(record.read_bytes(), type=Comparison)
    return _deciding((found.a, found.b), (found.view_a, found.view_b), found.chosen_sources, found.seed)


PAGE = "index.html"
FILES = OutFiles("compare.json", ("compared.parquet", "moved.txt", PAGE), _request_of)


def free_folder(out: Path, aligned: Aligned, seed: int) -> Path:
    """The real path of a folder outside both runs.

    Raises UsageError if it is in one of them, or has anything but an earlier result of the same request.
    """
    a, b = aligned.a, aligned.b
    folder = place_of(place_of(out, a.run), b.run)
    FILES.require_free(folder, _deciding((a.run.name, b.run.name), (a.view, b.view), aligned.sources, seed))
    return folder


def write_compared(found: Compared, folder: Path, page: str | None) -> None:
    """Write what was found to a folder, `compare.json` last. page: with two maps, None if there is none."""
    FILES.begin(folder)
    write_parquet(folder / "compared.parquet", found.rows)
    write_text(folder / "moved.txt", as_text(found.summary))
    if page is None:
        (folder / PAGE).unlink(missing_ok=True)  # of an earlier comparison
    else:
        write_text(folder / PAGE, page)
    write_json(folder / FILES.record, msgspec.to_builtins(found.summary))
