"""What subset is requested, and the folder that it has in the run unless another is chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from embedkit.data.source_folders import source_folders
from embedkit.documents import View
from embedkit.errors import UsageError

Rule = Literal["coverage", "density", "source"]
RULES: tuple[Rule, ...] = get_args(Rule)


@dataclass(frozen=True, kw_only=True)
class SubsetOptions:
    """Which rows to select.

    k: how many. by: coverage (farthest-first), density (a sample with probabilities that fall with the density) or
    source (equal shares). view: None for combined, or the run's first. sources: parts of source names, all sources if
    empty. seed: of all samples; `coverage` itself has none. out: None for the usual place. texts: whether they are
    written.
    """

    k: int
    by: Rule = "coverage"
    view: View | None = None
    sources: tuple[str, ...] = ()
    seed: int = 0
    out: Path | None = None
    texts: bool = True


def check_options(options: SubsetOptions) -> None:
    """Raise UsageError for options that are wrong for any run."""
    if options.k < 1:
        raise UsageError(f"-k {options.k}: expected 1 row or more")


def folder_name(options: SubsetOptions, view: View) -> str:
    """The usual name of a subset's folder: rule, rows, and whatever differs from the plainest request."""
    parts = [
        options.by,
        str(options.k),
        view if view != "combined" else "",
        f"seed{options.seed}" if options.seed else "",
        "" if options.texts else "no-texts",
        f"only-{'+'.join(sorted({part.lower() for part in options.sources}))}" if options.sources else "",
    ]
    name = "-".join(part for part in parts if part)
    return source_folders([name])[name]
