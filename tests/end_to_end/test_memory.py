"""Memory does not grow with the data set. Each stage runs in a process whose peak is measured."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from embedkit.check.verify import verify
from embedkit.data.row_frame import messages_type
from embedkit.run import RunFolder
from tests.conftest import ROOT, hash_request

ROWS = 200_000
DIM = 1024

STAGE = """
import resource, sys
from pathlib import Path
import numpy as np
import msgspec
import embedkit.embed.stage
from embedkit.embed.stage import embed_shards
from embedkit.engines.hash import HashEngine
from embedkit.merge.stage import merge
from embedkit.prepare.stage import prepare
from embedkit.run import RunFolder

class WideEngine(HashEngine):
    # Vectors of a real model's width, cheaply: the hash engine's 64 values, again and again.
    def __init__(self, settings):
        super().__init__(settings)
        self.record = msgspec.structs.replace(self.record, dim=1024)
    def embed(self, token_ids):
        return np.tile(super().embed(token_ids), 16)

embedkit.embed.stage.start_engine = lambda name, model, settings: WideEngine(settings)
run = RunFolder(Path(sys.argv[2]))
if __name__ == "__main__":
    match sys.argv[1]:
        case "prepare":
            prepare(run, 1)
        case "embed":
            embed_shards(run, [0, 1, 2])
        case "merge":
            merge(run)
    # VmHWM: a process's own ru_maxrss begins at that of the process that started it.
    status = Path("/proc/self/status").read_text()
    own = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024)
"""


def peak_mb(script: Path, stage: str, run: RunFolder) -> int:
    arguments = [sys.executable, str(script), stage, str(run.path)]
    done = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, env=None, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def ask(rows: int, model: Path, folder: Path) -> RunFolder:
    """Ask for a run of so many rows of about 0.7 kB, from 40 sources and a rare one, without making it."""
    index = pl.int_range(rows, eager=True)
    text = pl.format("{} river stone lamp", index).alias("t")
    answer = pl.Series(["engine so seven " * 40] * rows)
    messages = pl.select(
        pl.concat_list(
            pl.struct(role=pl.lit("user"), content=text), pl.struct(role=pl.lit("assistant"), content=answer)
        ).alias("messages")
    )["messages"].cast(messages_type())
    data = folder / f"{rows}.parquet"
    common = pl.format("source {}", index % 40)
    source = pl.select(pl.when(index % 3000 == 7).then(pl.lit("rare")).otherwise(common).alias("s"))["s"]
    pl.DataFrame({"messages": messages, "dataset_source": source}).write_parquet(data, row_group_size=rows)
    request = [*map(str, hash_request(data, model, folder, f"run-{rows}")), "--max-length", "4096"]
    program = (
        "import jobs.cli.main, embedkit.prepare.stage as stage;"
        "stage.prepare = lambda *a: exit(0); jobs.cli.main.cli()"  # makes the folder only
    )
    subprocess.run([sys.executable, "-c", program, "prepare", *request], check=True, cwd=ROOT, capture_output=True)
    run = RunFolder(folder / f"run-{rows}")
    assert run.config.exists()
    return run


@pytest.mark.slow
def test_memory_is_flat_and_merge_stays_under_a_gigabyte(tokenizer_only: Path, tmp_path: Path) -> None:
    """With fault 7 of the replaced scripts: merge held everything in memory three times."""
    script = tmp_path / "stage.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + STAGE)
    small = ask(ROWS // 10, tokenizer_only, tmp_path)
    large = ask(ROWS, tokenizer_only, tmp_path)
    prepare_small, prepare_large = peak_mb(script, "prepare", small), peak_mb(script, "prepare", large)
    print("prepare", prepare_small, prepare_large)
    assert prepare_large - prepare_small < 60  # the texts grew by 115 MB
    print("embed", peak_mb(script, "embed", large))
    merged = peak_mb(script, "merge", large)
    print("merge", merged)
    assert large.view_matrix("combined").stat().st_size > ROWS * DIM * 4
    assert merged < 700  # 820 MB of vectors and 130 MB of texts went through
    assert verify(large).ok
