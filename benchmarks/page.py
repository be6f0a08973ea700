"""Write docs/benchmarks.md from the last measurements."""

from pathlib import Path

from benchmarks.measure import Figure, library_versions, read_results

PAGE = Path("docs/benchmarks.md")

HEAD = """# What embedkit's own work costs

This page covers everything except the GPU. Each figure is beside a named rival, in the same run on the same machine.
`make bench` measures it again and writes this page. A figure without a target is for information.

Times are wall seconds of whole processes, start included, unless a line says otherwise. Each figure is one run, so a
difference of a tenth is noise, and more than that on shared machines.

"""

TITLES = {
    "prepare": "Prepare",
    "embed": "Embed, without the GPU",
    "reuse": "A new revision of the data",
    "merge": "Merge and verify",
    "analysis": "Analyze",
    "atlas": "The page of an analysis",
    "neighbors": "Nearest rows",
    "plan": "The plan",
    "balance": "Balance",
    "commands": "On the login node",
}

FOOT = """
`benchmarks/replaced.py` has the rivals. `benchmarks/fabricate.py` makes the runs that merge, verify, status and the
plan read, with true digests and manifests. `benchmarks/corpus.py` cuts long rows from the demo's texts. The GPU has a
page of its own, [gpu.md](gpu.md).
"""


def write_page() -> None:
    """Write the page from all kept results."""
    results = read_results()
    sections = [_section(TITLES[name], results[name]) for name in TITLES if name in results]
    PAGE.write_text(HEAD + "\n".join(sections) + FOOT + f"\nVersions: {library_versions()}.\n", encoding="utf-8")


def _section(title: str, figures: list[Figure]) -> str:
    first = figures[0]
    lines = [
        f"## {title}",
        "",
        f"`{first.command}`, {first.day}, {first.machine}.",
        "",
        "| work | figure | target | measured | rival |",
        "| --- | --- | --- | --- | --- |",
        *map(_line, figures),
    ]
    misses = [f"- Missed: {figure.work}. {figure.note}" for figure in figures if not figure.is_met]
    return "\n".join([*lines, *(["", *misses] if misses else []), ""])


def _line(figure: Figure) -> str:
    number = f"{figure.value:.1f}" if figure.value >= 10 else f"{figure.value:.3g}"
    unit = "x" if figure.unit == "x" else f" {figure.unit}"
    target = "" if figure.target is None else f"{'at most' if figure.at_most else 'at least'} {figure.target:g}"
    value = f"{number}{unit}" if figure.is_met else f"**{number}{unit}, missed**"
    measured = f"{figure.measured}" + (f" ({figure.note})" if figure.note and figure.is_met else "")
    return f"| {figure.work} | {value} | {target} | {measured} | {figure.rival} |"
