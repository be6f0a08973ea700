"""Measure and write docs/benchmarks.md: `make bench`, or `python -m benchmarks NAME ...` for some benchmarks.

Ends with the figures that got worse than the page says by more than the noise of their rounds.
"""

import sys
import time
from collections.abc import Callable, Iterator

from benchmarks import (
    bench_analysis,
    bench_atlas,
    bench_compare,
    bench_dedup,
    bench_findings,
    bench_map,
    bench_merge,
    bench_neighbors,
    bench_plan,
    bench_prepare,
    bench_reuse,
    bench_scale,
    bench_search,
    bench_select,
    bench_setup,
)
from benchmarks.measure import Figure, keep, read_results
from benchmarks.page import PAGE, write_page
from benchmarks.rounds import shown, worse

BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "setup": bench_setup.bench,
    "commands": bench_plan.bench_commands,
    "plan": bench_plan.bench,
    "prepare": bench_prepare.bench,
    "embed": bench_prepare.bench_embed,
    "reuse": bench_reuse.bench,
    "balance": bench_plan.bench_balance,
    "merge": bench_merge.bench,
    "analysis": bench_analysis.bench,
    "atlas": bench_atlas.bench,
    "map": bench_map.bench,
    "neighbors": bench_neighbors.bench,
    "search": bench_search.bench,
    "findings": bench_findings.bench,
    "compare": bench_compare.bench,
    "select": bench_select.bench,
    "dedup": bench_dedup.bench,
    "scale": bench_scale.bench,
}


def main() -> None:
    """Run the named benchmarks, or all, and write the page."""
    started = time.monotonic()
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = sorted(set(names) - set(BENCHMARKS) - {"page"})
    if unknown:
        sys.exit(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}, page")
    before, lines = read_results(), []
    for name in names:
        if name == "page":
            continue
        print(f"{name} ...", flush=True)
        figures = []
        for figure in BENCHMARKS[name]():
            figures.append(figure)
            print(f"  {'ok  ' if figure.is_met else 'MISS'} {figure.work}: {shown(figure)}", flush=True)
            print(f"         {figure.measured}; {figure.rival}", flush=True)
        keep(name, figures, f"python -m benchmarks {name}")
        lines += worse(before.get(name, []), read_results()[name])
    write_page()
    print(f"{PAGE} is written, {time.monotonic() - started:.0f} s")
    print(f"Worse than before by more than noise: {len(lines)}", *lines, sep="\n  ")


if __name__ == "__main__":
    main()
