"""Every link, path and import in the documentation leads to something that exists, and the README stays short."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "slurm_templates" / "README.md",
    ROOT / "containers" / "README.md",
    ROOT / "tests" / "data" / "slurm" / "README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FOLDERS = "embedkit|jobs|tests|benchmarks|docs|slurm_templates|requirements|containers"
REPOSITORY_PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)[`:]")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@each_page
def test_paths_of_the_repository_exist(page: Path) -> None:
    for path in REPOSITORY_PATH.findall(page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


@each_page
def test_imports_in_examples_exist(page: Path) -> None:
    for block in PYTHON_BLOCK.findall(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("embedkit"):
                for name in node.names:
                    assert has_name(node.module, name.name), f"{node.module}.{name.name}"


def test_functions_on_the_page_of_analysis_exist() -> None:
    """The last column of the table names functions as module and function below embedkit/analysis/."""
    table = (ROOT / "docs" / "analysis.md").read_text().partition("| function |")[2].partition("\n\n")[0]
    names = re.findall(r"`((?:components|similarity|page|merged)\.[\w.]+)`", table)
    assert len(names) > 15
    for name in names:
        module, _, function = name.rpartition(".")
        assert has_name(f"embedkit.analysis.{module}", function), name


def test_readme_links_to_every_page() -> None:
    links = {(ROOT / target).resolve() for target in LINK.findall((ROOT / "README.md").read_text())}
    assert {page for page in PAGES if "tests" not in page.relative_to(ROOT).parts} - links == {ROOT / "README.md"}


def test_readme_has_at_most_900_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 900


def has_name(module: str, name: str) -> bool:
    """Whether a module has this name, as an attribute or as a module below it."""
    if hasattr(importlib.import_module(module), name):
        return True
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True
