"""The locks agree with pyproject.toml and requirements/*.in, have hashes, and name no host."""

import re
import tomllib
from pathlib import Path

import pytest

from requirements.setup.builds import GLIBC, PYTHONS, pins
from requirements.setup.hash_pins import BY_HAND, VLLM
from requirements.setup.make_lock import BUILD_TOOLS, HEAD, LOCK, MACHINES
from tests.conftest import ROOT

TEXT = LOCK.read_text()
OTHER_LOCKS = [LOCK.with_name(f"{name}.txt") for name in (*BY_HAND, VLLM)]
BODY = "".join(line for line in TEXT.splitlines(keepends=True) if not line.startswith("#"))
ENTRY = re.compile(
    r"([a-z0-9-]+)==([^\s;]+)( ; python_full_version (?:< '3\.12'|== '3\.12\.\*'))?"
    r"((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)
PINNED = {name: version for name, version, *_ in ENTRY.findall(BODY)}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_every_line_of_the_lock_is_a_pin_with_hashes() -> None:
    assert ENTRY.sub("", BODY) == ""
    assert len(PINNED) > 200


def test_lock_has_the_versions_of_pyproject() -> None:
    extras = PROJECT["optional-dependencies"]
    assert pins("gpu").keys() == {"vllm", "torch", "quack-kernels"}
    for requirement in (*PROJECT["dependencies"], *extras["gpu"], *extras["analysis"], *BUILD_TOOLS):
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        assert canonical(name) in PINNED, requirement
        for bound in filter(None, bounds.split(",")):
            operator, limit = re.fullmatch(r"(==|>=|<)(.+)", bound).groups()  # type: ignore[union-attr]
            version, wanted = (tuple(int(n) for n in re.findall(r"\d+", v)) for v in (PINNED[canonical(name)], limit))
            assert {"==": version == wanted, ">=": version >= wanted, "<": version < wanted}[operator], requirement


@pytest.mark.parametrize("path", [LOCK, *OTHER_LOCKS], ids=lambda path: path.stem)
def test_lock_names_no_host_and_no_index(path: Path) -> None:
    assert not re.search(r"https?:|//|index|find-links|@|\.(com|org|net|io)\b", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", OTHER_LOCKS, ids=lambda path: path.stem)
def test_locks_kept_by_hand_have_the_hashes_of_exactly_their_pins(path: Path) -> None:
    """An entry is for every Python and machine: it has no marker."""
    head, _, body = path.read_text(encoding="utf-8").partition("\n")
    assert "Made by `make lock`" in head
    assert re.sub(r"[a-z0-9-]+==[^\s;]+((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", "", body) == ""
    source = path.with_suffix(".in")
    wanted = source.read_text() if source.exists() else f"{path.stem}=={pins('cpu')[path.stem]}\n"
    pinned = re.findall(r"^([\w.-]+)==(\S+)$", wanted, re.MULTILINE)
    locked = re.findall(r"^([\w.-]+)==(\S+) \\$", body, re.MULTILINE)
    assert sorted((canonical(name), version) for name, version in pinned) == sorted(locked)


def test_every_file_of_pins_is_locked_and_installed_with_hashes() -> None:
    folder = ROOT / "requirements"
    assert {path.stem for path in folder.glob("*.in")} == set(BY_HAND)
    assert {path.stem for path in folder.glob("*.txt")} == {"gpu", VLLM, *BY_HAND}
    makefile, create = (ROOT / "Makefile").read_text(), (folder / "setup" / "create.py").read_text()
    for line in (*makefile.splitlines(), *create.splitlines()):
        if re.search(r"-r[ \",]+(requirements/|LOCKS)", line):
            assert "LOCKED" in line, line


def test_head_of_the_lock_says_for_what_it_is() -> None:
    assert TEXT.startswith(HEAD.format(pythons=" and ".join(PYTHONS), machines=MACHINES))
    assert all(machine in HEAD.format(pythons="", machines=MACHINES) for machine in GLIBC)
