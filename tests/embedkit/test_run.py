"""RUN on a command line: a path, or a name in the folder of runs; never one of two without a word."""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from embedkit.errors import UsageError
from embedkit.run import RunFolder, find_run
from jobs.cli.main import cli


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory in which `both` is a run, and one in output/ too."""
    monkeypatch.chdir(tmp_path)
    for name in ("both", "output/both", "here", "output/there", "output/-dash"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run_config.json").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("run", "output_dir", "found"),
    [
        ("here", None, "here"),
        ("there", None, "output/there"),
        ("./both", None, "both"),
        ("output/both", None, "output/both"),
        ("both", "output", "output/both"),
        ("both", ".", "both"),
        ("./-dash", None, "output/-dash"),
    ],
)
def test_a_run_is_found_by_name_or_path(run: str, output_dir: str | None, found: str, here: Path) -> None:
    assert find_run(run, Path(output_dir or "output"), output_dir is not None) == RunFolder(here / found)


def test_two_names_of_one_folder_are_one_run(here: Path) -> None:
    (here / "linked").symlink_to(here)
    assert find_run("both", Path("linked")) == RunFolder(here / "both")


def test_a_name_that_is_two_runs_is_refused_with_both_paths(here: Path) -> None:
    both = f"both is a run in the working directory and in output/: {here}/both and {here}/output/both; type one of"
    with pytest.raises(UsageError, match=both):
        find_run("both", Path("output"))
    for words in (["status"], ["verify"], ["cancel"], ["logs"], ["merge"], ["rerun"], ["analyze"]):
        refused = CliRunner().invoke(cli, [*words, "both"]).exception
        assert both in str(refused), words
    for words in (["run"], ["prepare"], ["fetch"]):
        refused = CliRunner().invoke(cli, [*words, "--resume", "--run-name", "both"]).exception
        assert both in str(refused), words


def test_a_name_in_a_typed_output_dir_is_that_run() -> None:
    """Printed commands name the folder of runs, and may be typed anywhere."""
    opened = CliRunner().invoke(cli, ["status", "both", "--output-dir", "output"]).exception
    assert "output/both/run_config.json" in str(opened)  # which is empty here


def test_printed_words_are_one_word_for_the_shell() -> None:
    run = RunFolder(Path("/runs/-it's $HOME [1]"))
    assert shlex.split(run.argument) == ["./-it's $HOME [1]"]
    assert shlex.split(run.command("status"))[1:] == ["status", str(run.path)]
    assert shlex.split(run.where) == ["--run-name", run.name, "--output-dir", "/runs"]
