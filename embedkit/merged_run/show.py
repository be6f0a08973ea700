"""A merged run in one line of text, and as a small table of HTML for notebooks."""

import html
from collections.abc import Sequence
from pathlib import PurePath

from embedkit.documents import RunConfig
from embedkit.merged_files import MergedFiles

SHOWN_NAMES = 20
"""Names in a message; a run may have thousands of sources."""


def as_text(name: str, config: RunConfig, files: MergedFiles) -> str:
    """The run in one line."""
    return f"<embedkit run {name!r}: {', '.join(_facts(config, files).values())}>"


def as_html(name: str, config: RunConfig, files: MergedFiles) -> str:
    """The run as a table of HTML."""
    lines = {"run": name, **_facts(config, files)}
    cells = (f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>" for key, value in lines.items())
    return f"<table>{''.join(cells)}</table>"


def some_of(names: Sequence[str]) -> str:
    """Names for a message, the first 20 of them."""
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _facts(config: RunConfig, files: MergedFiles) -> dict[str, str]:
    success, views = files.success, config.request.views
    engines = dict.fromkeys(f"{engine.engine} on {engine.gpu or config.request.device}" for engine in success.engines)
    return {
        "vectors": f"{success.rows:,} x {success.dim} {config.request.store}",
        "views": f"view{'s' if len(views) > 1 else ''} {', '.join(views)}",
        "sources": f"{len(success.sources):,} source{'s' if len(success.sources) != 1 else ''}",
        "model": config.locations.model_repo or PurePath(config.locations.model).name,
        "engine": " and ".join(engines),
        "size": _size(sum(record.bytes for record in files.records.values())),
    }


def _size(count: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count / 1000:,.1f} kB"
