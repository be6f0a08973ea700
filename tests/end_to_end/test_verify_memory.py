"""verify reads a run that is larger than memory: what it holds does not grow with the rows."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.fabricate import Shape, fabricate
from embedkit.merge import merge
from embedkit.merge import tables as merge_tables
from embedkit.run import RunFolder
from tests.conftest import ROOT
from tests.support.reseal import reseal_request

ROWS = 500_000
TABLE_ROWS = 1 << 16

STAGE = f"""
import sys
from pathlib import Path
from embedkit.check.verify import verify
from embedkit.merge import tables
from embedkit.run import RunFolder

tables.TABLE_ROWS = {TABLE_ROWS}
report = verify(RunFolder(Path(sys.argv[1])))
assert report.ok, report.problems
status = Path("/proc/self/status").read_text()
own = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
print(report.stage, report.rows, own // 1024)
"""


def peak_mb(script: Path, run: RunFolder, stage: str, rows: int) -> int:
    """Verify a run in a process of its own. Returns the most memory that it had."""
    done = subprocess.run(
        [sys.executable, str(script), str(run.path)], capture_output=True, text=True, cwd=ROOT, check=False, timeout=250
    )
    assert done.returncode == 0, done.stderr
    found_stage, found_rows, peak = done.stdout.split()
    assert (found_stage, int(found_rows)) == (stage, rows)
    return int(peak)


@pytest.mark.slow
def test_memory_of_verify_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before merge and in the sharded layout. Hashes, rows and token counts of all rows would be 60 MB more."""
    monkeypatch.setattr(merge_tables, "TABLE_ROWS", TABLE_ROWS)
    script = tmp_path / "stage.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + STAGE)
    peaks = {}
    for rows in (ROWS // 5, ROWS):
        shape = Shape(rows=rows, sources=9, text_bytes=0, shards=rows // 20_000, dim=16)
        run = fabricate(tmp_path / f"{rows}", shape, "a" * 1000)
        reseal_request(run, layout="sharded")
        before = peak_mb(script, run, "merge", rows)
        merge(run)
        peaks[rows] = before, peak_mb(script, run, "done", rows)
    print(peaks)
    for small, large in zip(peaks[ROWS // 5], peaks[ROWS], strict=True):
        assert large - small < 25
