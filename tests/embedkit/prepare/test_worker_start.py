"""Workers of prepare that cannot start: the message names the cause. The processes are real, and so are the limits."""

from concurrent.futures import Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from embedkit.errors import EmbedkitError
from embedkit.prepare import prepare as prepare_run
from embedkit.prepare import workers
from embedkit.prepare.parts import Part
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.checkout import python_path

IN_WORKERS = """
import os, resource, sys
STARTS = ("--multiprocessing-fork", "multiprocessing.forkserver", "import embedkit.prepare.workers")
if any(start in argument for start in STARTS for argument in sys.orig_argv):
    {what}
"""
"""A sitecustomize.py for the workers, what they are forked from, and the process that finds out why they die."""


def prepare(tmp_path: Path, model: Path, what: str) -> str:
    """What prepare prints with two workers, in each of which `what` is done before anything else."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(IN_WORKERS.format(what=what))
    chats = [chat(f"question {i}", "answer") for i in range(300)]
    request = hash_request(write_chats(tmp_path / "d.parquet", chats), model, tmp_path)
    done = embedkit("prepare", *request, "--workers", 2, check=False, **python_path(tmp_path / "site"))
    assert done.returncode == 1
    assert "Broken pipe" not in done.stderr.splitlines()[-2]
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("sys.modules['polars'] = None", "ModuleNotFoundError: import of polars halted"),
        ("os._exit(3)", "one that was started to try it ended at once, with exit code 3"),
        ("resource.setrlimit(resource.RLIMIT_AS, (150 << 20,) * 2)", ""),
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
    ],
)
def test_a_worker_that_dies_at_its_start_is_explained(
    what: str, why: str, tmp_path: Path, tokenizer_only: Path
) -> None:
    printed = prepare(tmp_path, tokenizer_only, what)
    assert "worker processes of prepare did not start: " in printed
    assert why in printed
    assert "the parts that are done are kept\nto continue" in printed
    if "kill" in what:
        embedkit("prepare", "--resume", "--run-name", "run", "--output-dir", tmp_path, "--workers", 1)
        assert RunFolder(tmp_path / "run").plan.exists()


@pytest.mark.slow
def test_a_worker_killed_later_is_not_one_that_did_not_start(
    prepared_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def results(futures: list[Future[list[Part]]], run: RunFolder, wanted: int) -> None:
        wait(futures)  # the workers are real and have started; only the kill is not real
        raise BrokenProcessPool

    monkeypatch.setattr(workers, "_results", results)
    with pytest.raises(EmbedkitError, match=r"was killed, perhaps for memory.*\n?.*to continue with one: ") as refused:
        prepare_run(prepared_run, workers=2)
    assert "of 2 worker processes" not in str(refused.value)
