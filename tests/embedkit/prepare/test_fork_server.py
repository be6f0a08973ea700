"""Workers are forked from a process of one thread that has the tokenizers, or else spawned. All processes are real."""

import hashlib
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from embedkit import preloaded
from embedkit.model import HfTokenizer, load_reference, load_tokenizer
from embedkit.prepare import fork_server
from embedkit.prepare.fork_server import worker_context
from embedkit.storage import single_threads
from embedkit.storage.processes import has_ended, process_start
from tests.support.checkout import python_path

TEXTS = ["one two", "", "three 四"]
IN_SERVER = """
import sys, threading, time
if "multiprocessing.forkserver" in "".join(sys.orig_argv):
    {what}
"""
"""A sitecustomize.py for the fork server."""


def seen(model: Path) -> tuple[bool, str, list[int], list[int], int]:
    """In a worker: whether it has the tokenizers, the one that counts, what both count, and its parent."""
    counting, reference = load_tokenizer(model, "a "), load_reference(model, "a ")
    counts = [tokenizer.count(TEXTS).tolist() for tokenizer in (counting, reference)]
    return preloaded.preloaded(model) is not None, counting.name, *counts, os.getppid()


def in_a_worker(context: BaseContext, model: Path) -> tuple[bool, str, list[int], list[int], int]:
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(seen, model).result(60)


def server_pid() -> int | None:
    pid: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return pid


def load(model: Path) -> None:
    file = model / "tokenizer.json"
    preloaded.load(str(model), str(file), hashlib.sha256(file.read_bytes()).hexdigest(), use_fast=True)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["", "hf"])
def test_workers_have_the_tokenizers(library: str, tokenizer_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count as those that load them; the server has one thread, and ends with the block."""
    monkeypatch.setenv("EMBEDKIT_TOKENIZER", library)
    counting, reference = load_tokenizer(tokenizer_only, "a "), load_reference(tokenizer_only, "a ")
    assert isinstance(counting, HfTokenizer) == (library == "hf")
    with single_threads(), worker_context(tokenizer_only, 2) as context:
        pid = server_pid()
        assert pid is not None
        started = process_start(pid)
        found = in_a_worker(context, tokenizer_only)
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
        assert preloaded.VARIABLE not in os.environ
    assert found == (True, counting.name, counting.count(TEXTS).tolist(), reference.count(TEXTS).tolist(), pid)
    assert has_ended(pid, started)
    assert server_pid() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "what", ["threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "raise SystemExit(3)"]
)
def test_workers_are_spawned_if_the_server_may_not_fork(
    what: str, tokenizer_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(IN_SERVER.format(what=what))
    for name, value in python_path(tmp_path).items():
        monkeypatch.setenv(name, value)
    with single_threads(), worker_context(tokenizer_only, 2) as context:
        assert context.get_start_method() == "spawn"
        assert in_a_worker(context, tokenizer_only)[0] is False
    assert server_pid() is None


@pytest.mark.slow
def test_workers_are_spawned_if_a_tokenizer_cannot_be_loaded(
    tokenizer_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "tokenizer_to_preload", lambda model: ("{}", True))
    with single_threads(), worker_context(tokenizer_only, 2) as context:
        assert context.get_start_method() == "spawn"


def test_one_worker_is_spawned(tokenizer_only: Path) -> None:
    with worker_context(tokenizer_only, 1) as context:
        assert context.get_start_method() == "spawn"
        assert server_pid() is None


def test_without_a_fork_server_workers_are_spawned(tokenizer_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_server, "get_all_start_methods", lambda: ["spawn"])
    with worker_context(tokenizer_only, 2) as context:
        assert context.get_start_method() == "spawn"


def test_tokenizers_are_those_of_the_model_that_was_loaded(
    tokenizer_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of fastokens for a tokenizer that it does not support."""
    monkeypatch.setattr(preloaded, "_preloaded", None)
    load(tokenizer_only)
    found = preloaded.preloaded(tokenizer_only)
    assert found is not None
    assert found.fast is not None
    assert preloaded.preloaded(tmp_path) is None
    with pytest.raises(ValueError, match="not the tokenizer of"):
        preloaded.load(str(tmp_path), str(tokenizer_only / "tokenizer.json"), "0" * 64, use_fast=True)
    words = '{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0,"[UNK]":1},"unk_token":"[UNK]"}}'
    (tmp_path / "tokenizer.json").write_text(words)
    load(tmp_path)
    assert load_tokenizer(tmp_path).name == load_reference(tmp_path).name
    assert load_tokenizer(tmp_path).count(["a"]).tolist() == [1]
