"""The help of the command line: its headings, what it imports, how fast it is, and unknown commands."""

import ast
import resource
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from jobs.cli.lazy_group import LazyCommand
from jobs.cli.main import SECTIONS, cli
from tests.conftest import ROOT, embedkit

COMMANDS = [command for commands in SECTIONS.values() for command in commands]
HEAVY = ("torch", "vllm", "transformers", "polars", "numpy", "rich", "submitit", "pyarrow", "huggingface_hub")


def test_commands_are_listed_under_three_headings() -> None:
    lines = CliRunner().invoke(cli, ["--help"]).output.splitlines()
    assert list(SECTIONS) == ["On this machine", "On a cluster", "Looking at a run"]
    for heading, commands in SECTIONS.items():
        begin = lines.index(f"{heading}:") + 1
        assert [line.split()[0] for line in lines[begin : begin + len(commands)]] == [c.name for c in commands]
    assert "Commands:" not in lines


def test_every_command_is_listed_once() -> None:
    names = [command.name for command in COMMANDS]
    assert len(set(names)) == len(names)
    assert cli.list_commands(click.Context(cli)) == names


@pytest.mark.parametrize("lazy", COMMANDS, ids=lambda command: command.name)
def test_short_help_begins_the_help_of_the_command(lazy: LazyCommand) -> None:
    """The group repeats the first line of each command's help, so that it need not import the command."""
    command = cli.get_command(click.Context(cli), lazy.name)
    assert command is not None
    assert command.name == lazy.name
    assert (command.help or "").splitlines()[0] == lazy.short_help


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_has_help(name: str, option: str) -> None:
    done = CliRunner().invoke(cli, [name, option], prog_name="embedkit")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: embedkit {name} ")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["statsu"]])
def test_the_group_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys, jobs.cli.main as main\n"
        f"sys.argv = ['embedkit', *{arguments}]\n"
        "try:\n    main.main()\nexcept SystemExit:\n    pass\n"
        f"loaded = [name for name in {(*HEAVY, 'embedkit.request', 'jobs.cli.run')} if name in sys.modules]\n"
        "print('loaded', loaded)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_a_command_imports_no_module_of_another() -> None:
    program = (
        "import sys, jobs.cli.cancel\n"
        "print([name for name in ('jobs.cli.run', 'jobs.cli.submit', 'jobs.report.page', 'embedkit.analysis.stage')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_is_also_run_in_an_interpreter_of_its_own() -> None:
    """Most tests fork commands from a process with all imports, which hides an import that is missing or circular."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    trees = [ast.parse(text) for text in texts if "new_interpreter=True" in text]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    new = [call for call in calls if any(keyword.arg == "new_interpreter" for keyword in call.keywords)]
    names = {call.args[0].value for call in new if isinstance(call.args[0], ast.Constant)}
    assert {command.name for command in COMMANDS} <= names


def test_help_takes_less_than_half_a_second() -> None:
    """Of CPU time, which other work on the machine does not change."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    embedkit("--help", new_interpreter=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(
    ("typed", "nearest"), [("statsu", "status"), ("neighbours", "neighbors"), ("re-run", "rerun"), ("verfiy", "verify")]
)
def test_an_unknown_command_names_the_nearest(typed: str, nearest: str) -> None:
    refused = embedkit(typed, "demo", check=False)
    assert refused.returncode == 2
    assert f"No such command '{typed}'. Did you mean '{nearest}'?" in refused.stderr


def test_an_unknown_command_like_no_other_is_refused() -> None:
    refused = embedkit("frobnicate", check=False)
    assert refused.returncode == 2
    assert "No such command 'frobnicate'." in refused.stderr
    assert "Did you mean" not in refused.stderr


def test_an_unknown_option_of_the_group_is_a_usage_error() -> None:
    refused = embedkit("--frobnicate", check=False)
    assert refused.returncode == 2
    assert "No such option" in refused.stderr
