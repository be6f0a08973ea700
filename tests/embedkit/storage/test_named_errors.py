"""Errors of write and fsync name their file."""

import errno
from pathlib import Path

import polars as pl
import pytest

from embedkit.storage import atomic_write_bytes, names_file


def test_an_error_without_a_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"/run/plan\.json") as caught, names_file(Path("/run/plan.json")):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC


def test_an_error_of_polars_gets_number_and_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"dropped\.parquet") as caught, names_file(tmp_path / "dropped.parquet"):
        pl.DataFrame({"row": [1]}).write_parquet(tmp_path / "missing" / "x.parquet", mkdir=False)
    assert caught.value.errno == errno.ENOENT


def test_an_error_that_names_a_file_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        atomic_write_bytes(tmp_path / "missing" / "plan.json", b"")
