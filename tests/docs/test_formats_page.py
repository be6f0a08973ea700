"""docs/formats.md: every example is read as the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

from embedkit.data import Columns, choose_columns, open_dataset, read_rows
from embedkit.data.hub import DataSource
from embedkit.prepare.extract import extract, view_text

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
EXAMPLES = re.findall(r"```(jsonl|json|csv)\n(.*?)```\n\nEmbedded as\s+`(.*?)`[.:]", PAGE.read_text(), re.DOTALL)


def test_every_example_has_its_text() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```") / 2 == 8


@pytest.mark.parametrize(("kind", "content", "text"), EXAMPLES)
def test_an_example_is_embedded_as_the_page_says(kind: str, content: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    path.write_text(content)
    columns, from_path = choose_columns(DataSource([path]), Columns(None, None, (), "auto", True), None)
    frames = list(read_rows(open_dataset([path], columns, from_path), np.arange(1)))
    texts, _ = extract(frames[0], "any", "auto")
    assert texts.select(view_text("combined")).to_series().to_list() == [text.replace("\\n", "\n")]
    assert texts["dataset_source"].to_list() == [path.parent.name if path.stem == "rows" else path.stem]
