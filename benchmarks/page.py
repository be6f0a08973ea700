"""The page of results, from what was last measured."""

from pathlib import Path

from benchmarks.measure import Figure, library_versions, read_results

PAGE = Path("docs/benchmarks.md")

HEAD = """# What embedkit's own work costs

Everything that is not the GPU, beside a named rival in the same run on the same machine. `make bench` measures it
again and writes this page; a figure without a wanted value is only told. Wall seconds of whole processes, start
included, unless a line says otherwise; one run each, so a tenth more or less is noise, on shared machines more.

"""

TITLES = {
    "prepare": "prepare",
    "embed": "embed, all but the GPU",
    "merge": "merge and verify",
    "analysis": "analyze",
    "atlas": "the page of an analysis",
    "neighbors": "Nearest rows",
    "plan": "The plan",
    "balance": "Balance",
    "commands": "On the login node",
}

FOOT = """
How the rivals work is in `benchmarks/replaced.py`; the runs that merge, verify, status and the plan read are made by
`benchmarks/fabricate.py` with true digests and manifests; long rows are cut from the demo's texts by
`benchmarks/corpus.py`. What a GPU does is on a page of its own, [gpu.md](gpu.md).
"""


def write_page() -> None:
    """Write the page anew."""
    results = read_results()
    sections = [_section(TITLES[name], results[name]) for name in TITLES if name in results]
    PAGE.write_text(HEAD + "\n".join(sections) + FOOT + f"\nVersions: {library_versions()}.\n")


def _section(title: str, figures: list[Figure]) -> str:
    first = figures[0]
    lines = [
        f"## {title}",
        "",
        f"`{first.command}`, {first.day}, {first.machine}.",
        "",
        "| work | figure | wanted | measured | rival |",
        "| --- | --- | --- | --- | --- |",
        *map(_line, figures),
    ]
    misses = [f"- Missed: {figure.work}. {figure.note}" for figure in figures if not figure.is_met]
    return "\n".join([*lines, *(["", *misses] if misses else []), ""])


def _line(figure: Figure) -> str:
    number = f"{figure.value:.1f}" if figure.value >= 10 else f"{figure.value:.3g}"
    unit = "x" if figure.unit == "x" else f" {figure.unit}"
    wanted = "" if figure.target is None else f"{'at most' if figure.at_most else 'at least'} {figure.target:g}"
    value = f"{number}{unit}" if figure.is_met else f"**{number}{unit}, missed**"
    told = f"{figure.measured}" + (f" ({figure.note})" if figure.note and figure.is_met else "")
    return f"| {figure.work} | {value} | {wanted} | {told} | {figure.rival} |"
