"""The shell of every HTML page: head, content policy, colours of both themes, typography and tables.

A page's template extends `base.html.jinja` and fills its blocks.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

__all__ = ["page_environment"]


def page_environment(package: str, folder: str = ".", finalize: Callable[[Any], Any] | None = None) -> Environment:
    """The Jinja environment of a page: everything is escaped, and an undefined name is an error.

    Args:
        package: the package that has the page's templates, as a dotted name.
        folder: their folder in the package.
        finalize: called with each value before it is written into the page.
    """
    return Environment(
        loader=ChoiceLoader([PackageLoader(package, folder), PackageLoader("embedkit.page_shell", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
