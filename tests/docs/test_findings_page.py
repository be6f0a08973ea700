"""The examples of docs/findings.md work as they are on the page."""

import re
from pathlib import Path

import pytest

from embedkit.analysis.options import Options
from embedkit.analysis.stage import analyze
from embedkit.run import RunFolder
from tests.conftest import ROOT
from tests.support.small_run import small, small_embedded_run, small_run

__all__ = ["small", "small_embedded_run", "small_run"]  # fixtures

PAGE = ROOT / "docs" / "findings.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_the_examples_run_in_their_order(
    small: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(BLOCKS) == 3
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "demo").symlink_to(small.path)
    analyze(small, Options(map_rows=0, groups=0))
    monkeypatch.chdir(tmp_path)
    printed = []
    for block in BLOCKS:
        exec(compile(block, PAGE.name, "exec"), {})
        printed.append(capsys.readouterr().out)
    losses, tokens, findings = printed
    assert "too_long" in losses
    assert "unknown_share" in tokens
    assert "'unknown_tokens': 'unknown tokens were not counted'" in findings
