"""Paths with characters that mean something to a library, the shell or Slurm: none is ever a pattern."""

import ast
import html
import shlex
import shutil
import string
import subprocess
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from embedkit.analysis.options import Options
from embedkit.analysis.stage import analyze
from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig, Success
from embedkit.prepare import workers
from embedkit.run import RunFolder
from jobs.cli.main import cli
from tests.conftest import ROOT, chat, embedkit, write_chats

MEANING = "[]*?{}~$%!'\"\\ -#&;|<>()^`=:@,+"
NASTY = '-~e[1]*?{a,b} $HOME %j%% %A_%a it\'s "q" `id` #&;|<>()!=:@,+ 🙂é'
"""A name for a run. A folder may have a backslash and a line break, too."""
NEIGHBOUR = NASTY.replace("[1]", "1")
READERS = ("read_parquet", "scan_parquet", "read_csv", "scan_csv", "read_ndjson", "scan_ndjson", "read_parquet_schema")


def request_for(output: Path, name: str, data: Path, model: Path) -> list[str]:
    request = ["--model", model, "--engine", "hash", "--max-length", 512, "--full", "--shards", 2]
    # A value that begins with a dash is typed after "=".
    return [*map(str, request), f"--dataset={data}", f"--output-dir={output}", f"--run-name={name}"]


def prompts(sources: Sequence[str], word: str) -> list[Any]:
    return [chat(f"{word} {i}", f"<think>{word}</think>answer") for i in range(len(sources))]


def check_output(run: RunFolder, sources: Sequence[str], word: str) -> None:
    """The merged files have the rows of this run and of no other."""
    metadata = pl.read_parquet(run.metadata.open("rb"))
    assert metadata["dataset_source"].to_list() == list(sources)
    assert metadata["user_prompt"].to_list() == [f"{word} {i}" for i in range(len(sources))]
    success = read(run.success, Success)
    assert {name: source.rows for name, source in success.sources.items()} == Counter(sources)
    for name, source in success.sources.items():
        rows = pl.read_parquet(run.source_metadata(source.folder).open("rb"))
        assert set(rows["dataset_source"]) == {name}
        assert rows["user_prompt"].str.starts_with(f"{word} ").all()
        assert len(load_file(run.source_matrix(source.folder, "combined"))["embeddings"]) == rows.height


def typed(*arguments: object) -> str:
    """The output of a command in this process."""
    done = CliRunner().invoke(cli, list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


class OneThread(ThreadPoolExecutor):
    def __init__(self, max_workers: int, mp_context: object, **settings: Any) -> None:
        super().__init__(1, **settings)


@pytest.fixture
def _prepare_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare starts no worker processes, which take seconds."""
    monkeypatch.setattr(workers, "ProcessPoolExecutor", OneThread)
    for name in ("exit_with_parent", "ignore_interrupts"):
        monkeypatch.setattr(workers, name, lambda: None)


def stages(output: Path, name: str, data: Path, model: Path) -> RunFolder:
    """All stages of a run, in this process."""
    typed("prepare", *request_for(output, name, data, model))
    for command in ("embed", "merge"):
        typed(command, output / name)
    return RunFolder(output / name)


def test_every_call_of_polars_takes_its_path_for_a_name() -> None:
    """Polars takes `exp[1]` for a pattern that matches `exp1`, unless it is called with glob=False."""
    texts = {path: path.read_text() for room in ("embedkit", "jobs") for path in (ROOT / room).rglob("*.py")}
    for path, text in texts.items():
        for call in ast.walk(ast.parse(text)) if any(name in text for name in READERS) else ():
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in READERS:
                off = [word for word in call.keywords if word.arg == "glob" and ast.unparse(word.value) == "False"]
                assert off, f"{path}:{call.lineno}: {ast.unparse(call)} without glob=False"


@pytest.mark.usefixtures("_prepare_in_a_thread")
def test_a_nasty_path_beside_one_that_it_matches(tokenizer_only: Path, tmp_path: Path) -> None:
    sources, output = ["A", "B", "A", "*", "[ab]", "=1+1"], tmp_path / "p[1]\\\n*"
    for parent, name, rows, word in (
        ("p1\\\n*", NEIGHBOUR, ["B", "a", "B", "b", "B", "B"], "foreign"),
        ("p[1]\\\n*", NEIGHBOUR, ["B", "a", "B", "b", "B", "B"], "foreign"),
        ("p[1]\\\n*", NASTY, sources, "own"),
    ):
        folder = tmp_path / parent
        folder.mkdir(exist_ok=True)
        data = write_chats(folder / f"{name}.parquet", prompts(rows, word), list(rows))
        model = shutil.copytree(tokenizer_only, folder / f"{name} model")
        if word == "own":
            embedkit("run", *request_for(folder, name, data, model))
        else:
            stages(folder, name, data, model)
    run = RunFolder(output / NASTY)
    check_output(run, sources, "own")
    check_output(RunFolder(output / NEIGHBOUR), ["B", "a", "B", "b", "B", "B"], "foreign")
    assert read(run.config, RunConfig).locations.data == (str(output / f"{NASTY}.parquet"),)
    assert "all is well" in typed("verify", run.path)
    assert "own 1" in typed("search", run.path, "own 1", "-k", 6)
    assert "own 0" in typed("neighbors", "--output-dir", output, "--row", 0, shlex.split(run.argument)[0])
    for command in ("status", "report", "logs"):
        assert typed(command, run.path)
    analyze(run, Options(map_rows=0, groups=0, components=2, duplicates=0))
    assert set(pl.read_parquet((run.analysis / "by_source.parquet").open("rb"))["dataset_source"]) == set(sources)
    assert f"embedkit verify {run.argument}" in html.unescape(run.analysis_page.read_text())
    printed = ["run", "--resume", "--run-name", NASTY, "--output-dir", str(output)]
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {run.resume_command}"], stdout=subprocess.PIPE, check=True)
    assert words.stdout.decode().split("\0")[1:-1] == printed


@pytest.mark.parametrize(
    ("target", "before", "variable"),
    [
        ("status", "status", "RUN"),
        ("report", "report", "RUN"),
        ("analyze", "analyze", "RUN"),
        ("rerun-failed", "rerun", "RUN"),
        ("rerun-failed", "--profile", "PROFILE"),
        ("submit-full", "--run-name", "RUN"),
        ("submit-full", "--dataset", "DATASET"),
        ("plan-full", "--model", "MODEL"),
        ("submit-full", "--venv", "VENV"),
        ("check-profile", "check", "PROFILE"),
        ("fetch", "--dataset", "DATASET"),
        ("run", "--run-name", "RUN"),
    ],
)
def test_make_passes_every_name_on_as_it_was_typed(target: str, before: str, variable: str) -> None:
    typed = {name: f"{name} $HOME $(shell id) {NASTY} \\" for name in ("RUN", "PROFILE", "DATASET", "MODEL", "VENV")}
    values = [f"{name}={value}" for name, value in typed.items()]
    shown = subprocess.run(["make", "-n", target, *values], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = [line for line in shown.replace("\\\n", " ").splitlines() if f" {before} " in line]
    words = shlex.split(commands[0], comments=False)
    assert words[words.index(before) + 1] == typed[variable]


names = (
    st.text(st.sampled_from(MEANING) | st.sampled_from("🙂é漢1") | st.sampled_from(string.ascii_lowercase), min_size=1)
    .map(lambda name: name[:30])
    .filter(lambda name: name.strip(".") and name.isprintable())
)


@pytest.mark.slow
@pytest.mark.usefixtures("_prepare_in_a_thread")
@given(
    parent=names.map(lambda name: f"{name}\n"), name=names, file=names, sources=st.lists(names, min_size=2, max_size=4)
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_of_run_folder_file_and_source(
    parent: str,
    name: str,
    file: str,
    sources: list[str],
    tokenizer_only: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    output = tmp_path_factory.mktemp("any") / parent
    output.mkdir()
    data = write_chats(output / f"{file}.parquet", prompts(sources, "own"), list(sources))
    run = stages(output, name, data, tokenizer_only)
    check_output(run, sources, "own")
    for command in ("verify", "status", "report"):
        typed(command, run.path)
    assert "own 0" in typed("search", run.path, "own 0")
    assert "own 1" in typed("neighbors", run.path, "--id", 0)
