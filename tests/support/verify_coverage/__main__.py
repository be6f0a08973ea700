"""Print what verify finds in a finished run: python -m tests.support.verify_coverage RUN [STAGE ...]."""

import sys
import tempfile
from collections import Counter
from pathlib import Path

from embedkit.run import RunFolder
from tests.support.verify_coverage.measure import measure, missed
from tests.support.verify_coverage.stages import STAGES

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        tried = list(measure(RunFolder(Path(sys.argv[1])), Path(folder), sys.argv[2:] or STAGES))
    totals, found = Counter(one.kind for one in tried), Counter(one.kind for one in tried if one.found)
    for kind, total in totals.items():
        print(f"{kind:32} {found[kind]:4} of {total:4} found")
    print(f"{'all':32} {sum(found.values()):4} of {len(tried):4} found\nnot found:")
    for kind, changes in missed(tried).items():
        print(f"  {kind}: {', '.join(sorted(changes))}")
    errors = [one for one in tried if one.error]
    for one in errors:
        print(f"ERROR {one.stage}, {one.kind}, {one.change}: {one.error}")
    sys.exit(1 if errors else 0)
