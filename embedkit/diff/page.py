"""The result of diff as one self-contained page, which opens from a file."""

import math
import re
from pathlib import Path

from embedkit.diff.schema import Difference, Group
from embedkit.diff.text import NOTHING_DIFFERS, compared, headline, percent, rules, sampled
from embedkit.errors import UsageError
from embedkit.page_shell import page_environment
from embedkit.storage import atomic_write_bytes

NOT_IN_XML = re.compile("[^\t\n -\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LEAST_POWER, MOST_POWER = -8, 0
"""Powers of ten between which bars of distances grow."""


def require_folder(path: Path) -> None:
    """Raise UsageError if there is no folder for a page."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--html {path}: there is no folder {path.absolute().parent}")


def write_page(found: Difference, path: Path) -> None:
    """Write the page, whole or not at all."""
    atomic_write_bytes(path.absolute(), page(found).encode(errors="replace"))


def page(found: Difference) -> str:
    """The page as HTML."""
    environment = page_environment("embedkit.diff", finalize=_printable)
    functions = {"compared": compared, "sampled": sampled, "rules": rules, "percent": percent, "bar": bar}
    return environment.get_template("page.html.jinja").render(
        found=found, headline=headline(found), nothing=NOTHING_DIFFERS, has_groups=has_groups, **functions
    )


def bar(distance: float | None) -> float:
    """The width of a distance's bar in per cent, on a logarithmic scale: 1e-8 and less is nothing, 1 is all."""
    if not distance:
        return 0.0
    share = (math.log10(distance) - LEAST_POWER) / (MOST_POWER - LEAST_POWER)
    return round(100 * min(max(share, 0.0), 1.0), 1)


def has_groups(groups: tuple[Group, ...]) -> bool:
    """Whether a table of groups shows more than the sum does."""
    return len(groups) > 1


def _printable(value: object) -> object:
    """Replace characters that XML does not allow. Texts of rows may have them."""
    if isinstance(value, str) and (printable := NOT_IN_XML.sub("\ufffd", value)) != value:
        return type(value)(printable)
    return value
