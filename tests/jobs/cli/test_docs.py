"""The documentation agrees with the code: help of commands, names of tests, links, options in examples."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from jobs.cli.main import cli
from tests.conftest import ROOT
from tests.support.sources import texts_of

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("slurm_templates/*.md"))]
COMMANDS = ROOT / "docs" / "commands.md"
INTRODUCTION = """\
# Commands

The output of `--help` for every command. A test compares this page with the code;
`EMBEDKIT_RENEW_GOLDEN=1 .venv/bin/pytest tests/jobs/cli/test_docs.py` writes it again. RUN is the name of a run or the
path of its folder.
"""


def helps(command: click.Command, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Output of `--help` for a command and all commands below it, by the words to type."""
    output = CliRunner().invoke(cli, [*words, "--help"], prog_name="embedkit", terminal_width=110).output
    found = {words: output.rstrip()}
    if isinstance(command, click.Group):
        for name, child in children(command).items():
            found |= helps(child, (*words, name))
    return found


def children(group: click.Group) -> dict[str, click.Command]:
    """Commands of a group by name, in the order of its help."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def test_docs_have_the_help_of_every_command() -> None:
    text = INTRODUCTION
    for words, output in helps(cli).items():
        text += f"\n## {' '.join(('embedkit', *words))}\n\n```\n{output}\n```\n"
    if os.environ.get("EMBEDKIT_RENEW_GOLDEN"):
        COMMANDS.write_text(text)
    assert COMMANDS.read_text() == text


STATES = ("failed", "cancelled", "unknown")
"""What status says of many tasks, so that it tells nothing about a row."""


def test_what_can_go_wrong_is_what_its_tests_expect() -> None:
    """Each text that a row quotes from embedkit or Slurm is in a test that the row names. `...` stands for anything."""
    table = (ROOT / "docs" / "operating.md").read_text().partition("## What can go wrong")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    quoting = 0
    for see, *_, shown_by in rows:
        tests = re.findall(r"`tests/([\w/]+\.py)::(test_\w+)`", shown_by)
        assert ", ".join(f"`tests/{path}::{name}`" for path, name in tests) == shown_by
        texts = "\n".join(texts_of(path, name) for path, name in tests)
        quoted = [text for text in re.findall(r"`([^`]+)`", see) if text not in STATES]
        quoting += bool(quoted)
        for text in quoted:
            for piece in re.split(r"\.\.\.|\bN\b|\bSTAGE\b", text):
                assert piece.strip() in texts, f"{see}: {text}"
    assert len(rows) > 60
    assert len(rows) - quoting <= 3


@pytest.mark.slow
def test_where_time_goes_is_what_the_script_prints() -> None:
    command = [sys.executable, "-m", "benchmarks.where_time_goes"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    page = (ROOT / "docs" / "estimate.md").read_text()
    assert page.partition("<!-- where_time_goes -->\n")[2].partition("<!-- -->")[0] == printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", there.read_text(), flags=re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_use_options_that_exist(page: Path) -> None:
    for line in re.findall(r"^\s*(?:embedkit|.*`embedkit) .*$", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        for words in re.findall(r"embedkit ([a-z]+(?: check)?)\b([^`#|&]*)", line):
            command: click.Command = cli
            for word in words[0].split():
                if not isinstance(command, click.Group):
                    break
                assert word in children(command), f"{page.name}: {line}"
                command = children(command)[word]
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            typed = re.findall(r"(?<![\w-])--[a-z][a-z-]*", words[1])
            assert set(typed) <= known | {"--help"}, f"{page.name}: {line}"
