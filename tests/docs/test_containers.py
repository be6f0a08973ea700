"""The recipes of the image name files that exist and the commands of the lock, and the page's profiles are valid."""

import re
from pathlib import Path

import pytest

from jobs.profiles import parse_profile
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "containers" / "Dockerfile").read_text()
DEFINITION = (ROOT / "containers" / "embedkit.def").read_text()
IGNORED = (ROOT / "containers" / "Dockerfile.dockerignore").read_text().splitlines()
PAGE = (ROOT / "containers" / "README.md").read_text()
INSTALL = "pip install --no-cache-dir --require-hashes --only-binary=:all: -r"
PROFILES = [block for block in re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "[all]" in block]


def test_the_recipes_copy_files_that_exist_and_are_not_ignored() -> None:
    lock = re.findall(r"^ARG LOCK=(\S+)", DOCKERFILE, re.MULTILINE)
    lines = re.findall(r"^COPY (?!\$)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {*lock, *(name for line in lines for name in line.split())}
    files = DEFINITION.partition("%files\n")[2].partition("\n\n")[0]
    assert {line.split()[0] for line in files.splitlines()} == copied
    for name in copied:
        assert (ROOT / name).exists(), name
        kept = [line[1:] for line in IGNORED if line.startswith("!")]
        assert any(Path(name).match(pattern) for pattern in kept), name


def test_both_recipes_are_of_one_base_and_install_the_lock() -> None:
    base = re.findall(r"^ARG BASE=docker.io/library/(\S+)", DOCKERFILE, re.MULTILINE)
    assert base == re.findall(r"^From: (\S+)", DEFINITION, re.MULTILINE)
    assert base[0].startswith("python:3.12-")
    for recipe in (DOCKERFILE, DEFINITION):
        assert INSTALL in recipe
        assert "pip install --no-cache-dir --no-deps --no-build-isolation /opt/source" in recipe


@pytest.mark.parametrize("text", PROFILES)
def test_a_profile_of_the_page_is_valid(text: str) -> None:
    profile = parse_profile(text.encode(), Path("/site.toml"))
    assert profile.stages["embed"].python == "/opt/embedkit/bin/python"
    assert profile.stages["preflight"].launcher == profile.stages["merge"].launcher
