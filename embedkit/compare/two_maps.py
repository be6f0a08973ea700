"""The page with the maps of both sets of vectors side by side, linked by row."""

import os
from pathlib import Path
from urllib.parse import quote

from embedkit.analysis.merged import Merged
from embedkit.analysis.page.two_maps import Half, link_of_view, render_two_maps
from embedkit.compare.aligned import Aligned
from embedkit.run import RunFolder


def runs_without_page(aligned: Aligned) -> list[RunFolder]:
    """The runs that have no page yet, or one that an earlier version made, which cannot be linked."""
    runs = {os.path.realpath(run.path): run for run in (aligned.a.run, aligned.b.run)}
    return [run for run in runs.values() if not (run.analysis_page.exists() and run.two_maps_page.exists())]


def two_maps(aligned: Aligned, folder: Path) -> str:
    """The page as HTML. It shows the pages of both runs by their paths from a folder. folder: its real path."""
    a, b = aligned.a.run, aligned.b.run
    is_one = os.path.realpath(a.path) == os.path.realpath(b.path)
    halves = _half(aligned.a, folder, is_one), _half(aligned.b, folder, is_one)
    if is_one:
        return render_two_maps(a.name, halves)
    return render_two_maps(f"{a.name} and {b.name}", halves, (aligned.ids_a, aligned.ids_b))


def _half(merged: Merged, folder: Path, is_one: bool) -> Half:
    page = os.path.relpath(os.path.realpath(merged.run.analysis_page), folder)
    title = merged.view if is_one else f"{merged.run.name}, {merged.view}"
    return Half(title, link_of_view(merged.view), quote(os.fsencode(page)))
