"""What `embedkit select` prints, and a selection that is killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.embedkit.export.conftest import exact_run, known_vectors
from tests.support.signalled import killed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """90 rows of two sources, two of them without a text. Read only."""
    sources = [("a", "b")[i % 2] for i in range(90)]
    return exact_run(tmp_path_factory.mktemp("select"), known_vectors(90, 20), sources)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_the_command_prints(run: RunFolder, tmp_path: Path) -> None:
    done = embedkit("select", run.path, "-k", 9, "--out", tmp_path / "s", new_interpreter=True)
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "9 of 88 rows selected by coverage",
        "note: 2 rows have no text in the view combined, and take no part",
    ]
    assert lines[3].split() == ["1", "-", "cosine", "to", "the", "nearest", "selected", "row", "selected", "random"]
    assert lines[4].startswith("  farthest row ")
    assert [float(number) for number in lines[4].split()[2:]] == sorted(map(float, lines[4].split()[2:]))
    assert lines[10].split() == ["sources", "with", "a", "selected", "row,", "of", "2", "2", "2"]
    assert lines[12] == "the first rows:"
    assert f"written: {tmp_path / 's'}" in lines
    assert max(map(len, lines[: lines.index(f"written: {tmp_path / 's'}")])) <= 80
    code = "\n".join(line.strip() for line in done.stdout.partition("to read it:\n")[2].splitlines())
    read = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(rows.height, rows['rank'].to_list())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert read.stdout == "9 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"


def test_the_farthest_row_is_printed_by_number(run: RunFolder, tmp_path: Path) -> None:
    """So that a person sees how many rows are enough. The steps are those of select.json."""
    done = embedkit("select", run.path, "-k", 40, "--out", tmp_path / "s")
    record = json.loads((tmp_path / "s" / "select.json").read_text(encoding="utf-8"))
    steps = [(step["k"], f"{step['farthest']:.3f}") for step in record["farthest_by_k"]]
    assert [k for k, _ in steps] == [10, 30, 40]
    line = f"farthest after the first 10: {steps[0][1]}, 30: {steps[1][1]}, 40: {steps[2][1]}"
    assert line in done.stdout.splitlines()


def test_json_is_the_record(run: RunFolder, tmp_path: Path) -> None:
    options = ["-k", 5, "--by", "density", "--sources", "a", "--seed", 3, "--no-texts", "--out", tmp_path / "s"]
    record = json.loads(embedkit("select", run.path, *options, "--json").stdout)
    assert record == json.loads((tmp_path / "s" / "select.json").read_text(encoding="utf-8"))
    assert record["settings"] == {
        "by": "density",
        "k": 5,
        "view": "combined",
        "sources": ["a"],
        "seed": 3,
        "texts": False,
    }


def test_wrong_options_are_usage_errors(run: RunFolder, tmp_path: Path) -> None:
    assert "Missing option '-k'" in embedkit("select", run.path, code=2).stderr
    done = embedkit("select", run.path, "-k", 5, "--view", "nothing", "--out", tmp_path / "s", code=2)
    assert "--view nothing: the run has combined" in done.stderr


@pytest.mark.slow
def test_a_killed_selection_leaves_no_record(run: RunFolder, tmp_path: Path) -> None:
    """At every durable step, the first time and over an earlier subset. With its record, a folder is whole."""
    command = ["select", run.path, "-k", 9]
    embedkit(*command, "--out", tmp_path / "whole")
    wanted = contents(tmp_path / "whole")
    for is_first in (True, False):
        step, was_killed = 0, True
        while was_killed:
            step += 1
            out = tmp_path / f"{is_first}-{step}"
            if not is_first:
                embedkit(*command, "--out", out)
            was_killed = killed(*command, "--out", out, at=step)
            if (out / "select.json").exists():
                assert wanted.items() <= contents(out).items()
            embedkit(*command, "--out", out)
            assert contents(out) == wanted
        assert step > 5
