"""`embedkit search` of what `make run` makes: its start for one query, and each further query."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.corpus import FOLDER
from benchmarks.measure import PYTHON, Figure, Took, cold, timed
from benchmarks.rounds import in_turns, of_rounds, quotients, seconds
from embedkit.run import RunFolder

DEMO = (".venv/demo/chats.parquet", ".venv/demo/model")
SAMPLE = 25
QUERIES = ("proofs by induction", "a poem about rain", "how do I sort a list", "what did the Romans eat")
FURTHER = 20


def bench() -> Iterator[Figure]:
    """Measure a query with an empty page cache and with a full one, and further queries of one start."""
    run = _demo_run()
    begun = partial(_begun, run)
    ours, vllm = in_turns(partial(begun, is_cold=True), partial(begun, "--engine", "vllm", is_cold=True))
    warm, warm_vllm, many = in_turns(begun, partial(begun, "--engine", "vllm"), partial(_asked, run, FURTHER + 1))
    yield of_rounds(
        ours.walls,
        work="`embedkit search`, one query, all files from the disk",
        unit="s",
        target=15.0,
        at_most=True,
        measured=ours.cell,
        rival=f"with --engine vllm, which embedded the rows: {vllm.cell}; all caches dropped",
    )
    yield of_rounds(
        quotients(warm_vllm.walls, warm.walls),
        work="`embedkit search`, one query, files in memory",
        measured=warm.cell,
        rival=f"with --engine vllm: {warm_vllm.cell}",
    )
    further = [(all_of - one) / FURTHER for all_of, one in zip(many.walls, warm.walls, strict=True)]
    yield of_rounds(
        further,
        work="`embedkit search`, each further query",
        unit="s",
        target=0.3,
        at_most=True,
        measured=f"{FURTHER} more in {seconds(many.walls)}, start included",
        rival="none",
    )
    shutil.rmtree(run.path)


def _demo_run() -> RunFolder:
    """A merged run of the demo's rows by vLLM."""
    if not all(Path(path).exists() for path in DEMO):
        subprocess.run(["make", "--no-print-directory", *DEMO], check=True)
    run = RunFolder(FOLDER.absolute() / "search")
    shutil.rmtree(run.path, ignore_errors=True)
    timed(
        [
            *(PYTHON, "-m", "jobs", "run", "--dataset", DEMO[0], "--model", DEMO[1], "--engine", "vllm"),
            *("--sample-size", SAMPLE, "--output-dir", run.path.parent, "--run-name", run.name),
        ]
    )
    return run


def _begun(run: RunFolder, *options: str, is_cold: bool = False) -> Took:
    """One query."""
    if is_cold:
        cold(run.path)
    return timed([PYTHON, "-m", "jobs", "search", run.path, QUERIES[0], *options])


def _asked(run: RunFolder, count: int) -> Took:
    """So many queries of one start, as lines of standard input."""
    texts = "".join(f"{QUERIES[i % len(QUERIES)]} {i}\n" for i in range(count))
    command = f"printf %s {shlex.quote(texts)} | {shlex.join([PYTHON, '-m', 'jobs', 'search', str(run.path)])}"
    return timed(["sh", "-c", command])
