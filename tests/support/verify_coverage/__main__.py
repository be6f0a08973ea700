"""The whole measurement: python -m tests.support.verify_coverage [RUN]. It makes a run if none is given."""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from embedkit.run import RunFolder
from tests.conftest import make_hash_run, write_small_chats
from tests.support.models import make_tiny_qwen
from tests.support.verify_coverage.measure import Tried, measure, missed, no_longer_missed, not_documented
from tests.support.verify_coverage.stages import STAGES


def make_run(folder: Path) -> RunFolder:
    """A finished run of three shards and parts."""
    make_tiny_qwen(folder / "model")
    write_small_chats(folder / "small.parquet")
    return make_hash_run(folder / "small.parquet", folder / "model", folder / "output")


def report(tried: list[Tried]) -> int:
    """Print what was found, and how docs/guarantees.md differs. Returns the exit code."""
    totals, found = Counter(one.kind for one in tried), Counter(one.kind for one in tried if one.found)
    for kind, total in totals.items():
        print(f"{kind:32} {found[kind]:5} of {total:5} found")
    print(f"{'all':32} {sum(found.values()):5} of {len(tried):5} found\nnot found:")
    for kind, changes in missed(tried).items():
        print(f"  {kind}: {', '.join(sorted(changes))}")
    wrong = [f"ERROR {one.stage}, {one.file}, {one.change}: {one.error}" for one in tried if one.error]
    wrong += [f"the page does not list it: {change}" for change in not_documented(missed(tried))]
    wrong += [f"the page lists it, and verify finds it: {entry}" for entry in no_longer_missed(missed(tried))]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        run = RunFolder(Path(sys.argv[1])) if sys.argv[1:] else make_run(Path(name))
        sys.exit(report(list(measure(run, Path(name), STAGES))))
