"""Write docs/benchmarks.md from the last measurements."""

import math
from pathlib import Path

from benchmarks.measure import Figure, library_versions, read_results
from benchmarks.rounds import shown

PAGE = Path("docs/benchmarks.md")

HEAD = """# What embedkit's own work costs

This page covers everything except the GPU. Each figure is beside a named rival, in the same run on the same machine.
`make bench` measures it again and writes this page. A figure without a target is for information.

Times are wall seconds of whole processes, start included, unless a line says otherwise. A figure with a spread is the
median of several rounds; in each, both sides ran once, in turns. A figure without was measured once: a difference of a
tenth is noise there, and more than that on shared machines. `make bench` ends with the figures that got worse by more
than their noise: the best of the new rounds is worse than the worst on this page.

"""

TITLES = {
    "prepare": "Prepare",
    "embed": "Embed, without the GPU",
    "reuse": "A new revision of the data",
    "merge": "Merge and verify",
    "scale": "From 0.1 to 100 million rows",
    "analysis": "Analyze",
    "map": "The map",
    "findings": "Groups and rows worth reading",
    "select": "A subset",
    "compare": "Two models, two data sets",
    "dedup": "Near-duplicates to a decision",
    "atlas": "The page of an analysis",
    "neighbors": "Nearest rows",
    "search": "A search by text",
    "plan": "The plan",
    "balance": "Balance",
    "commands": "On the login node",
    "setup": "Set-up",
}

BEFORE = {
    "select": """The run has planted groups, as the one for rows worth reading. The two commands select rows without
their texts, and compare them with a random subset. The traversal and its rival are measured without the start of a
process. Where two rows are equally far to a millionth, the traversal takes the lower one; the rival takes what its
float32 sums say, so a few of their rows may differ.

On one H200 with 16 CPU cores, coverage took 33 s and density 27 s for 2,268,178 rows, with the same farthest distances.
Measured once, by hand, on a run made in the same way.

""",
    "compare": """Both runs have planted groups, as the one for rows worth reading. compare: two runs with unrelated
vectors, their rows matched by id. coverage: the last eleventh of the rows of one run, by the other ten. Each is a
process of its own, start included. A cell has its wall seconds, its CPU seconds and its peak memory.

- exact share, missed, wrong: what coverage itself measures, of a sample: rows that are covered, those of them that the
  search by cells does not find, and rows that it finds and that are not.
- On one H200 with 16 CPU cores, coverage of 206,198 rows by 2,061,980 took 372 s, all of them compared; 339 s are the
  radii. Measured once, by hand.
- The rivals have all vectors in memory, on fewer rows. NumPy computes linear CKA alone, in float64. prdc's steps, with
  the distances of scikit-learn, compute the share alone, and do not say which row is nearest.

""",
    "dedup": """Planted rows of 12,000 sources: half are near no other, a twentieth are one template, a twentieth are in
chains of nine, the others in groups of two to nine. A cell has its wall seconds, its CPU seconds and its peak memory.

- recall: the share of the rows to be removed that are; precision: the share of the removed rows that are to be. near
  pairs in one group: the recall that the command measures itself, of a sample.
- The rival is the plain recipe for embeddings: all vectors and all pairs in memory. It has no order of preference, and
  writes nothing.
- Other work ran beside both rules on the whole run, above all beside the second: their wall seconds are too many.
- On a GPU all rows are compared: 193 s for 2,268,178 rows on one H200 with 16 CPU cores (188 s with one row per group),
  start included, of which the search takes 167 s; 10 GiB of GPU memory, 1.8 GiB of the process beside the mapped
  vectors. Exactly the planted rows were removed. Measured once, by hand, on a run made in the same way.

""",
    "findings": """The run has planted groups: 60 groups of eight subgroups each, 16 dimensions within a subgroup. Each
of the 445 sources has the rows of one subgroup, except one in ten, which is of any subgroup. Each part is a process of
its own. A cell has its wall seconds, its CPU seconds and its peak memory.

- recall: the share of the ten nearest rows that is found, on 1,000 rows. agreement: adjusted mutual information of the
  groups with the planted subgroups, 1 if they are the same. doubted: rows whose source a probe doubts.
- A part reads what an earlier part wrote: findings need neighbours, facts of texts and the doubted rows.
- recall is 1 here because the planted groups are far apart. On runs with broader groups it was 0.94 to 0.96.
- The rival of groups does the steps that BERTopic publishes, with the same libraries. It is not BERTopic itself.
- On a GPU, neighbours are exact: 474 s for 2,268,178 x 1,024 on one H200 with 16 CPU cores, of which 338 s are the
  search; 3.4 GiB of memory, and 3.1 GiB of the GPU's. The neighbours of 500 rows equal those in float64. Measured
  once, by hand, on a run made in the same way.

How the clustering was chosen: planted groups on the sphere in two levels, with sizes by a power law and 10 % noise,
beside other work. ARI and AMI of the fine groups; "lost": rows of groups that are in none. Measured once, by hand.

| method | rows | planted | ARI / AMI | lost | time |
| --- | --- | --- | --- | --- | --- |
| **UMAP to 5 dimensions, scikit-learn's HDBSCAN, all rows** | 20,000 x 1,024 | 100 in 12 | 0.940 / 0.921 | 5 % | 75 s |
| the same coordinates, fast_hdbscan 0.3.4 | 20,000 x 1,024 | 100 in 12 | 0.954 / 0.928 | 4 % | 72 s |
| EVoC 0.3.2, best layer, on 50 components | 20,000 x 384 | 100 in 12 | 0.585 / 0.733 | 9 % | 4 s |
| fast_hdbscan on 50 components | 20,000 x 384 | 100 in 12 | 0.015 / 0.068 | 30 % | 136 s |
| k-means with the true number, on 50 components | 12,000 x 384 | 100 in 12 | 0.279 / 0.680 | 0 % | 1 s |
| EVoC 0.3.2, best layer | 100,000 x 512 | 200 in 16 | 0.150 / 0.638 | 35 % | 129 s |
| UMAP and HDBSCAN of 20,000 rows, the others placed | 300,000 x 512 | 300 in 20 | 0.788 / 0.811 | 9 % | 81 s |
| **UMAP and HDBSCAN of 50,000 rows, the others placed** | 300,000 x 512 | 300 in 20 | 0.899 / 0.886 | 5 % | 202 s |

fast_hdbscan is as good on the same coordinates, and one more dependency; HDBSCAN takes a twentieth of the time. About
half of the planted noise rows are found as such.
""",
    "scale": """Vectors of 1,024 numbers, 97,657 rows per shard, 500 tokens per row, 16 sources, no texts. Each step is
a process of its own. A cell has its wall seconds, its CPU seconds and the peak memory of its largest process.

- The vectors of all shards are hard links to one file. So every byte is read and hashed under each name, but from the
  page cache: from a disk, reading takes longer. Shards are cut at equal rows for that.
- plan: from finished parts to plan.json, with shards of equal cost, in one process; tokenizing is not in it. submit:
  all shards as one array, with stand-ins for Slurm's commands that answer at once. status: all shards are finished.
- written: what merge adds to the run: with the sharded layout the index and the tables, with the merged one all
  vectors twice. The merged layout was measured where the disk has space for it, so not at 10 and 100 million rows.
- merge and verify hash every byte twice, for the digest of the file and for that of the chunk, which sha256 does once.
- The largest run has bfloat16, 205 GB of vectors; float32 has twice as many.
""",
}
"""Texts before the tables of a section."""

FOOT = """
`benchmarks/replaced.py` has the rivals. `benchmarks/fabricate.py` makes the runs that merge, verify, status and the
plan read, with true digests and manifests. `benchmarks/corpus.py` cuts long rows from the demo's texts. The GPU has a
page of its own, [gpu.md](gpu.md).
"""


def write_page() -> None:
    """Write the page from all kept results."""
    results = read_results()
    sections = [_section(name, results[name]) for name in TITLES if name in results]
    PAGE.write_text(HEAD + "\n".join(sections) + FOOT + f"\nVersions: {library_versions()}.\n", encoding="utf-8")


def _section(name: str, figures: list[Figure]) -> str:
    first = figures[0]
    compared = [figure for figure in figures if figure.rival]
    cells = [figure for figure in figures if not figure.rival]
    lines = [
        f"## {TITLES[name]}",
        "",
        f"`{first.command}`, {first.day}, {first.machine}.",
        "",
        *([BEFORE[name]] if name in BEFORE else []),
        *(_grid(cells) if cells else []),
        *_growth([cell for cell in cells if cell.rows]),
        "| work | figure | target | measured | rival |",
        "| --- | --- | --- | --- | --- |",
        *(_line(figure, first.day) for figure in compared),
    ]
    misses = [f"- Missed: {figure.work}. {figure.note}" for figure in figures if not figure.is_met]
    return "\n".join([*lines, *(["", *misses] if misses else []), ""])


def _grid(cells: list[Figure]) -> list[str]:
    """A table of figures without rivals, whose works are `ROW: COLUMN`."""
    of_row: dict[str, dict[str, str]] = {}
    for cell in cells:
        row, _, column = cell.work.partition(": ")
        of_row.setdefault(row, {})[column] = cell.measured
    columns = list(dict.fromkeys(column for row in of_row.values() for column in row))
    return [
        f"| run | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
        *(f"| {row} | {' | '.join(cells.get(column, '') for column in columns)} |" for row, cells in of_row.items()),
        "",
    ]


def _growth(cells: list[Figure]) -> list[str]:
    """A table of CPU seconds by size, with the exponent of rows by which they grew from the size before."""
    if not cells:
        return []
    sizes = sorted({cell.rows for cell in cells})
    cpu = {(cell.work.partition(": ")[2], cell.rows): cell.cpu for cell in cells}
    lines = [
        f"| CPU seconds | {' | '.join(f'{size:,} rows' for size in sizes)} |",
        f"| --- |{' --- |' * len(sizes)}",
    ]
    for step in dict.fromkeys(step for step, _ in cpu):
        columns = []
        for before, size in zip([0, *sizes], sizes, strict=False):
            text = f"{cpu[step, size]:,.1f}" if (step, size) in cpu else ""
            if text and (step, before) in cpu:
                grown = math.log(cpu[step, size] / cpu[step, before]) / math.log(size / before)
                text += f", exponent {grown:.2f}"
            columns.append(text)
        lines.append(f"| {step} | {' | '.join(columns)} |")
    return ["How CPU seconds grow with the rows of the sharded layout (exponent 1: in proportion):", "", *lines, ""]


def _line(figure: Figure, day: str) -> str:
    """A line of the table of a section whose first figure is of `day`."""
    target = "" if figure.target is None else f"{'at most' if figure.at_most else 'at least'} {figure.target:g}"
    value = shown(figure) if figure.is_met else f"**{shown(figure)}, missed**"
    measured = f"{figure.measured}" + (f" ({figure.note})" if figure.note and figure.is_met else "")
    measured += f"; {figure.day}" if figure.day != day else ""
    return f"| {figure.work} | {value} | {target} | {measured} | {figure.rival} |"
