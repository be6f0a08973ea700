"""The command diff: exit codes, JSON, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedkit.documents import Success, open_matrix, read
from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.support.planted import plant, shifted
from tests.support.small_run import small, small_embedded_run, small_run

__all__ = ["small", "small_embedded_run", "small_run"]


@pytest.fixture
def moved(small_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the small run whose vectors are shifted by 1e-4."""
    shutil.copytree(small_run.path, tmp_path / "moved")
    run = RunFolder(tmp_path / "moved")
    success = read(run.success, Success)
    vectors = np.array(open_matrix(run.view_matrix("combined"), success.rows, success.dim))
    plant(run, shifted(vectors, 1e-4))
    return run


def test_exit_codes_say_whether_runs_agree(small_run: RunFolder, moved: RunFolder) -> None:
    same = embedkit("diff", small_run.path, "--now", "--rows", 30, new_interpreter=True).stdout
    assert same.startswith("within the tolerance: run and the engine here\n")
    apart = embedkit("diff", small_run.path, moved.path, code=1).stdout
    assert apart.startswith("NOT within the tolerance: run and moved\n")
    assert "1 - cosine, mean: 0.0001" in apart
    embedkit("diff", small_run.path, moved.path, "--tolerance", "2e-4")


def test_json_has_every_number_and_html_is_written(small_run: RunFolder, moved: RunFolder, tmp_path: Path) -> None:
    done = embedkit("diff", small_run.path, moved.path, "--json", "--html", tmp_path / "page.html", code=1)
    found = json.loads(done.stdout)
    assert found["passed"] is False
    assert found["views"][0]["agreement"]["mean"] == pytest.approx(1e-4, rel=1e-3)
    assert len(found["views"][0]["worst"]) == 10
    assert "NOT within the tolerance" in (tmp_path / "page.html").read_text()


def test_folder_of_the_page_is_looked_for_first(small_run: RunFolder, tmp_path: Path) -> None:
    page = tmp_path / "nowhere" / "page.html"
    refused = embedkit("diff", small_run.path, "nothing", "--html", page, code=2).stderr
    assert f"--html {page}: there is no folder {page.parent}" in refused


@pytest.mark.parametrize("arguments", [(), ("OTHER", "--now"), ("--now", "--model", "m")])
def test_one_thing_to_compare_with_is_needed(arguments: tuple[str, ...], small_run: RunFolder) -> None:
    refused = embedkit("diff", small_run.path, *arguments, code=2).stderr
    assert "diff RUN with what? Type one of: another run, --now, --model MODEL" in refused
