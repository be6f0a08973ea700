"""The page put together: template, style, scripts, the data of the map, and the sections of the other tabs."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.optional_import import optional_import
from embedkit.analysis.page.inline import inside_script, json_inside_script, policy_hash, script_of
from embedkit.analysis.page.pack import Packed
from embedkit.analysis.page.sections import Section
from embedkit.page_shell import page_environment

TEMPLATE = "page.html.jinja"


def render(
    name: str,
    lead: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    data: Packed,
    texts: tuple[str, int],
    json_blocks: Mapping[str, str] | None = None,
    text_files: Sequence[int] = (),
) -> str:
    """Render the page of a run as HTML.

    Args:
        name: of the run.
        lead: the run in one line.
        facts: name and value of each fact about the run.
        sections: contents of the other tabs. Sections with the same tab, or without one the same title, share a tab.
        data: of the map.
        texts: the block of texts, and the number of its rows.
        json_blocks: blocks of packed JSON by name, for the places that sections have.
        text_files: the id of the first row of each file of whole texts.
    """
    json_blocks = json_blocks or {}
    script = script_of("main")
    has_figures = any(section.figures for section in sections)
    plotly_js = optional_import("plotly.offline").get_plotlyjs().replace("\r\n", "\n") if has_figures else ""
    meta = {
        "run": printable(name),
        "types": data.types | dict.fromkeys(["texts", *json_blocks], "JSON"),
        "layers": data.layers,
        "texts": texts[1],
        "text_files": list(text_files),
    }
    first, later = _in_order(data, {**json_blocks, "texts": texts[0]})
    page = (
        page_environment("embedkit.analysis.page", "static")
        .get_template(TEMPLATE)
        .render(
            name=printable(name),
            lead=lead,
            facts=facts,
            layers=data.layers,
            tabs=_tabs(sections),
            meta=json_inside_script(meta),
            first=first,
            later=later,
            script=script,
            plotly_js=plotly_js,
            hashes=" ".join(policy_hash(text) for text in (script, plotly_js)),
            rows=sum(layer["rows"] for layer in data.layers[:1]),
            rows_with_texts=texts[1],
        )
    )
    return page.encode("utf-8", "replace").decode()


def _in_order(data: Packed, json_blocks: Mapping[str, str]) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The blocks that the first picture needs, and the others, which may still be loading while it is drawn."""
    has_map = bool(data.layers) and data.layers[0]["map"] is not None
    needed = ["0-source", *(["0-mapx", "0-mapy"] if has_map else ["0-pc1", "0-pc2"])]
    first = [(name, data.blocks[name]) for name in needed if name in data.blocks]
    later = [(name, block) for name, block in data.blocks.items() if name not in needed]
    return first, [*later, *json_blocks.items()]


def _tabs(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """Tabs by title, each with its sections and their figures as JSON."""
    plotly = optional_import("plotly.io")
    tabs: dict[str, dict[str, Any]] = {}
    for at, section in enumerate(sections):
        title = section.tab or section.title
        tab = tabs.setdefault(title, {"title": title, "sections": []})
        drawn = [
            (caption, f"figure-{at}-{n}", figure.layout.height, inside_script(plotly.to_json(figure)))
            for n, (caption, figure) in enumerate(section.figures)
        ]
        tab["sections"].append({"section": section, "figures": drawn})
    return list(tabs.values())
