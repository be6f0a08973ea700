"""Texts of a data set, its sources, names of files and lines of logs never reach a terminal as control characters."""

import json
import os
import shlex
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.run import RunFolder
from tests.conftest import ROOT, chat, embedkit, hash_request, made_once, write_chats
from tests.embedkit.test_terminal import ESCAPED

ASSIGNED = [*range(0x40000), *range(0xE0000, 0xE1000)]
"""Every other plane has only characters that are unassigned or private."""
HIDDEN = [
    char
    for char in map(chr, ASSIGNED)
    if unicodedata.category(char) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(char) in
    ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI", "BN")
    if unicodedata.category(char) not in ("Cn", "Co", "Cs") and char not in "\n\t"
]  # fmt: skip
NAME = "data\x1b[2J\u202e\u200b\x9b1m"
FOLDER = "out \x1b]0;title\a\n\u2066it's"
TEXTS = ["plain 🙂 text", *(f"text {text}" for text in ESCAPED if text.isascii() or "\ud83d" not in text)]
TEXTS = [text for text in TEXTS if "\udcff" not in text] + [
    f"every {''.join(HIDDEN[i : i + 50])}" for i in range(0, len(HIDDEN), 50)
]


def make_run(folder: Path) -> None:
    output = folder / FOLDER
    output.mkdir()
    data = write_chats(folder / f"{NAME}.parquet", [chat(t, f"answer {t}") for t in TEXTS], [f"s {t}" for t in TEXTS])
    models = next(folder.parent.glob("models/tokenizer"))
    embedkit("run", *hash_request(data, models, output), "--shards", 1)
    log = next((output / "run" / "logs").glob("*.log"), output / "run" / "logs" / "embed-00000.log")
    log.parent.mkdir(exist_ok=True)
    with log.open("a") as file:
        file.write(f"2026-11-27 01:00:00,000 ERROR {'; '.join(TEXTS)}\n")


@pytest.fixture(scope="session")
def strange_run(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run whose rows, sources, data set and folder have control characters. Read only."""
    return RunFolder(made_once(tmp_path_factory, "strange", make_run) / FOLDER / "run")


def hidden_in(printed: str) -> set[str]:
    return set(printed) & set(HIDDEN)


COMMANDS = {
    "neighbors": ("--id", 0, "-k", 20, "--full-texts"),
    "search": ("text", "-k", 20),
    "logs": ("--lines", 100),
    "status": (),
    "verify": (),
    "report": ("--all-shards",),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_print_visible_escapes(command: str, strange_run: RunFolder) -> None:
    done = embedkit(command, strange_run.path, *COMMANDS[command], check=False)
    printed = done.stdout + done.stderr
    assert not hidden_in(printed), printed
    assert done.returncode == 0, printed
    if command in ("neighbors", "search"):
        assert "🙂" in printed
        assert r"\x1b[31mred" in printed
        assert r"bidi\u202etxt" in printed


@pytest.mark.slow
def test_json_keeps_texts_as_they_are(strange_run: RunFolder) -> None:
    done = embedkit("neighbors", strange_run.path, "--id", 0, "-k", 20, "--json", new_interpreter=True)
    texts = {row["user_prompt"] for row in json.loads(done.stdout)["neighbors"]}
    assert texts == set(TEXTS[1:])


@pytest.mark.slow
def test_printed_commands_are_right_when_copied(strange_run: RunFolder) -> None:
    """The path has an escape sequence, a line break, a bidirectional control and a quote. bash reads the word."""
    printed = embedkit("status", strange_run.path).stdout
    typed = next(line for line in printed.splitlines() if "embedkit report " in line).partition("embedkit ")[2]
    command = f"{shlex.join([sys.executable, '-m', 'jobs'])} {typed} --json"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout)["run"] == str(strange_run.path)


@pytest.mark.slow
def test_errors_of_every_kind_are_visible(strange_run: RunFolder, tmp_path: Path) -> None:
    for words in (
        ["status", f"{strange_run.path}\x1b[31m"],
        ["\x1b[31mstatus"],
        ["status", "--\x1b[31m"],
        ["prepare", "--dataset", tmp_path / f"{NAME}.parquet", "--model", tmp_path / NAME, "--output-dir", tmp_path],
        ["profile", "check", f"\x9b{NAME}"],
    ):
        done = embedkit(*words, check=False)
        assert done.returncode == 2, done.stderr
        assert not hidden_in(done.stderr), words
        assert r"\x" in done.stderr


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from(HIDDEN[1:]), min_size=1))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_in_an_error_is_visible(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    """The command line in this process: an unknown run, by name and by path."""
    for typed in (name, os.path.join(tmp_path, name)):  # noqa: PTH118  a name may begin with a slash
        assert run_main("verify", "--", typed) == 2
        assert not hidden_in("".join(capfd.readouterr())), typed


def run_main(*words: str) -> int | str | None:
    """Run the command line in this process. Returns its exit code."""
    from jobs.cli import main

    before = sys.argv, sys.excepthook
    sys.argv = ["embedkit", *words]
    try:
        with pytest.raises(SystemExit) as end:
            main.main()
    finally:
        sys.argv, sys.excepthook = before
    return end.value.code
