"""Prepare imports no pandas, which pyarrow does on many occasions: that takes each process 0.3 s and 50 MB."""

from pathlib import Path

import pytest

from tests.conftest import chat, embedkit, hash_request, write_chats
from tests.support.checkout import python_path

PANDAS = """
from pathlib import Path
Path({marker!r}).touch()
raise ImportError
"""


@pytest.mark.slow
def test_neither_prepare_nor_its_workers_import_pandas(tmp_path: Path, tokenizer_only: Path) -> None:
    (tmp_path / "site").mkdir()
    marker = tmp_path / "imported"
    (tmp_path / "site" / "pandas.py").write_text(PANDAS.format(marker=str(marker)))
    data = write_chats(tmp_path / "d.parquet", [chat(f"question {i}", "answer") for i in range(100)])
    embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path), **python_path(tmp_path / "site"))
    assert not marker.exists()
