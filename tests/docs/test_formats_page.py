"""docs/formats.md: every example is read as the page says."""

import re
from pathlib import Path

import polars as pl
import pytest

from embedkit.prepare.extract import view_text
from tests.conftest import embedkit, hash_request

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
EXAMPLES = re.findall(
    r"```(jsonl|json|csv)\n(.*?)```\n\n(?:With `([^`]*)`, e|E)mbedded as\s+`(.*?)`[.:]", PAGE.read_text(), re.DOTALL
)


def test_every_example_has_its_text() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```") / 2 == 9


@pytest.mark.parametrize(("kind", "content", "options", "text"), EXAMPLES)
def test_an_example_is_embedded_as_the_page_says(
    kind: str, content: str, options: str, text: str, tokenizer_only: Path, tmp_path: Path
) -> None:
    (tmp_path / f"example.{kind}").write_text(content)
    request = hash_request(tmp_path / f"example.{kind}", tokenizer_only, tmp_path)
    embedkit("prepare", *request, "--shards", 1, *options.split())
    rows = pl.read_parquet(tmp_path / "run" / "extracted_data.parquet" / "*.parquet")
    assert rows.select(view_text("combined")).to_series()[0] == text.replace("\\n", "\n")
    assert set(rows["dataset_source"]) == {"example"}
