"""Small runs with a page. Read only."""

import shutil
from pathlib import Path

import pytest

from embedkit.run import RunFolder
from tests.support.served import add_page


def _copy(run: RunFolder, folder: Path) -> RunFolder:
    shutil.copytree(run.path, folder / "run")
    return add_page(RunFolder(folder / "run"))


@pytest.fixture(scope="module")
def paged_run(small_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return _copy(small_run, tmp_path_factory.mktemp("paged"))


@pytest.fixture(scope="module")
def paged_sharded_run(small_sharded_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return _copy(small_sharded_run, tmp_path_factory.mktemp("paged-sharded"))
