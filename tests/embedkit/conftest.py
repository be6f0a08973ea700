"""A small finished run, and copies of it to damage."""

import shutil
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.conftest import made_once
from tests.support.small_run import make_small_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Read only."""
    return RunFolder(made_once(tmp_path_factory, "small-run", make_small_run) / "run")


@pytest.fixture
def small(small_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy, to be damaged."""
    shutil.copytree(small_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


@pytest.fixture
def small_prepared(small: RunFolder) -> RunFolder:
    """A copy as it was before embed."""
    shutil.rmtree(small.embeddings)
    return small


@pytest.fixture
def small_embedded(small: RunFolder) -> RunFolder:
    """A copy as it was before merge."""
    for path in (small.success, small.metadata, small.view_matrix("combined"), small.view_matrix("response")):
        path.unlink()
    shutil.rmtree(small.by_source)
    return small
