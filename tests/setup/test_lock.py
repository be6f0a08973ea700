"""The lock of the GPU build agrees with pyproject.toml, has hashes, and names no host."""

import re
import tomllib

from requirements.setup.builds import GLIBC, PYTHONS, pins
from requirements.setup.make_lock import BUILD_TOOLS, HEAD, LOCK, MACHINES
from tests.conftest import ROOT

TEXT = LOCK.read_text()
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
    assert pins("gpu").keys() == {"vllm", "torch"}
    for requirement in (*PROJECT["dependencies"], *extras["gpu"], *extras["analysis"], *BUILD_TOOLS):
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        assert canonical(name) in PINNED, requirement
        for bound in filter(None, bounds.split(",")):
            operator, limit = re.fullmatch(r"(==|>=|<)(.+)", bound).groups()  # type: ignore[union-attr]
            version, wanted = (tuple(int(n) for n in re.findall(r"\d+", v)) for v in (PINNED[canonical(name)], limit))
            assert {"==": version == wanted, ">=": version >= wanted, "<": version < wanted}[operator], requirement


def test_lock_names_no_host_and_no_index() -> None:
    assert not re.search(r"https?:|//|index|find-links|@|\.(com|org|net|io)\b", TEXT)


def test_head_of_the_lock_says_for_what_it_is() -> None:
    assert TEXT.startswith(HEAD.format(pythons=" and ".join(PYTHONS), machines=MACHINES))
    assert all(machine in HEAD.format(pythons="", machines=MACHINES) for machine in GLIBC)
