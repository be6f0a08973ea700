"""The settings of an analysis, and the libraries that they need."""

from dataclasses import dataclass

from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.page.figures import MAX_POINTS
from embedkit.analysis.similarity.umap import MAP_ROWS
from embedkit.documents import View
from embedkit.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Settings of an analysis.

    views: the run's views if empty. sources: parts of source names, all sources if empty. components: principal
    components to compute. extremes: rows per end of a component. points: most points of the scatter of both views.
    map_rows: rows on which UMAP is fitted, 0 for no map. duplicates: smallest cosine of near-duplicates, 0 for none.
    neighbors: nearest rows of every row, 0 for none: then there are no findings by neighbours, and no intrinsic
    dimension. groups: rows on which groups are fitted, 0 for no groups. findings: rows worth reading of each kind, 0
    for none. columns: that the user adds to the page, each as FILE.parquet:NAME. text_files: gigabytes that files of
    whole texts beside the page may take, about; 0 for none.
    """

    views: tuple[View, ...] = ()
    sources: tuple[str, ...] = ()
    components: int = 10
    extremes: int = 10
    points: int = MAX_POINTS
    map_rows: int = MAP_ROWS
    duplicates: float = 0.95
    neighbors: int = 10
    groups: int = 50_000
    findings: int = 20
    columns: tuple[str, ...] = ()
    text_files: float = 1.0
    seed: int = 0


def check_options(options: Options) -> None:
    """Raise UsageError for options that are wrong for any run."""
    if not 0 <= options.duplicates <= 1:
        raise UsageError(f"--duplicates {options.duplicates}: expected a cosine from 0 (for none) to 1")


def require_libraries(options: Options) -> None:
    """Raise UsageError if a library that the options need is not installed."""
    for module in ("plotly.graph_objects", "scipy.linalg", "sklearn"):
        optional_import(module)
    if options.map_rows or options.groups:
        optional_import("umap")
    if options.map_rows:
        optional_import("contourpy")
    if options.duplicates or options.neighbors:
        optional_import("faiss")
