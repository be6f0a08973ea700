"""The page, put together: template, style and scripts, the map's data, and the sections of the other tabs."""

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.page.pack import Packed
from embedkit.analysis.page.sections import Section

TEMPLATE = "page.html.jinja"
SCRIPTS = ("arrays", "scatter", "grid", "axes", "panels", "tabs", "link", "input", "main")
"""In this order: each uses only what stands before it, or waits until all is there."""


def render(
    name: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    data: Packed,
    texts: tuple[str, int],
) -> str:
    """The page of a run.

    Args:
        name: the run's.
        lead: what the run was, in a line.
        facts: all that it was, by name.
        sections: of the other tabs; sections of one title share a tab.
        data: of the map.
        texts: block of texts, and how many rows it has.
    """
    assets = files("embedkit.analysis.page") / "static"
    script = "\n".join(
        assets.joinpath(f"{part}.js").read_text(encoding="utf-8").replace('"use strict";', "") for part in SCRIPTS
    )
    script = '"use strict";\n' + script
    plotly_js = (
        optional_import("plotly.offline").get_plotlyjs().replace("\r\n", "\n")
        if any(s.figures for s in sections)
        else ""
    )
    meta = {
        "run": printable(name),
        "types": data.types | {"texts": "JSON"},
        "layers": data.layers,
        "texts": texts[1],
    }
    environment = Environment(
        loader=PackageLoader("embedkit.analysis.page", "static"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first, later = _in_order(data, texts[0])
    page = environment.get_template(TEMPLATE).render(
        name=printable(name),
        lead=lead,
        facts=facts,
        layers=data.layers,
        tabs=_tabs(sections),
        meta=_json(meta),
        first=first,
        later=later,
        style=assets.joinpath("atlas.css").read_text(encoding="utf-8"),
        script=script,
        plotly_js=plotly_js,
        # Only these scripts run, whatever else should find its way into the page.
        hashes=" ".join(
            f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in (script, plotly_js)
        ),
        rows=sum(layer["rows"] for layer in data.layers[:1]),
        carried=texts[1],
    )
    return page.encode("utf-8", "replace").decode()


def _in_order(data: Packed, texts: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Blocks that the first picture needs, and the others, which the page may still be reading when it draws."""
    has_map = bool(data.layers) and data.layers[0]["map"] is not None
    wanted = ["0-source", *(["0-mapx", "0-mapy"] if has_map else ["0-pc1", "0-pc2"])]
    first = [(name, data.blocks[name]) for name in wanted if name in data.blocks]
    later = [(name, block) for name, block in data.blocks.items() if name not in wanted]
    return first, [*later, ("texts", texts)]


def _tabs(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Tabs by title; of a section its figures as JSON."""
    plotly = optional_import("plotly.io")
    tabs: dict[str, dict[str, Any]] = {}
    for at, section in enumerate(sections):
        tab = tabs.setdefault(section.title, {"title": section.title, "sections": []})
        drawn = [
            (caption, f"figure-{at}-{n}", figure.layout.height, _safe(plotly.to_json(figure)))
            for n, (caption, figure) in enumerate(section.figures)
        ]
        tab["sections"].append({"section": section, "figures": drawn})
    return list(tabs.values())


def _json(plain: Any) -> str:
    return _safe(json.dumps(plain, separators=(",", ":")))


def _safe(text: str) -> str:
    """JSON that ends no script element, whatever strings it holds."""
    return text.replace("<", "\\u003c")
