"""The rules for the folder of a result, for every command that writes one."""

import shutil
from pathlib import Path

import pytest

from embedkit.out_folder import OutFiles
from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.support.small_run import small_embedded_run, small_run

__all__ = ["small_embedded_run", "small_run"]  # fixtures

COMMANDS: dict[str, tuple[str, tuple[object, ...], tuple[object, ...], str]] = {
    "dedup": ("dedup.json", ("--threshold", 0.97), ("--threshold", 0.9), "threshold"),
    "select": ("select.json", ("-k", 5), ("-k", 6), "k"),
    "compare": ("compare.json", ("--with-view", "response"), ("--with-view", "response", "--seed", 1), "seed"),
    "coverage": ("coverage.json", ("-k", 5), ("-k", 4), "k"),
}
"""Of each command its record, a request, another request, and the option that differs."""

Contents = dict[str, bytes]


def contents(folder: Path) -> Contents:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Command:
    """A command that writes a folder, with one run as its data."""

    def __init__(self, name: str, run: RunFolder) -> None:
        self.record, self.request, self.other_request, self.differs = COMMANDS[name]
        self.run = run
        self._start = (name, run.path, *((run.path,) if name == "coverage" else ()))

    def write(self, out: Path, request: tuple[object, ...] | None = None) -> Contents:
        embedkit(*self._start, *(request or self.request), "--out", out)
        return contents(out)

    def refusal(self, out: Path, request: tuple[object, ...] | None = None) -> str:
        return embedkit(*self._start, *(request or self.request), "--out", out, code=2).stderr


@pytest.fixture(scope="module", params=COMMANDS)
def command(request: pytest.FixtureRequest, small_run: RunFolder) -> Command:
    return Command(request.param, small_run)


@pytest.fixture(scope="module")
def written(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of the request. Read only."""
    out = tmp_path_factory.mktemp("written") / "out"
    command.write(out)
    return out


@pytest.fixture
def out(written: Path, tmp_path: Path) -> Path:
    """A copy of the result."""
    return Path(shutil.copytree(written, tmp_path / "out"))


def test_the_run_has_one_place_for_it(command: Command) -> None:
    """compare and coverage have none."""
    before = sorted(command.run.path.rglob("*"))
    assert "is in the run's own folder; " in command.refusal(command.run.path / "embeddings")
    assert sorted(command.run.path.rglob("*")) == before


def test_a_link_into_the_run_is_followed(command: Command, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(command.run.path)
    assert "is in the run's own folder; " in command.refusal(tmp_path / "link" / "new")


def test_a_file_is_no_folder(command: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    assert f"--out {tmp_path}/thesis.tex: is no folder; type another path" in command.refusal(tmp_path / "thesis.tex")


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden", "also.tmp"])
def test_other_files_are_left_alone(name: str, command: Command, out: Path) -> None:
    (out / name).write_text("mine", encoding="utf-8")
    before = contents(out)
    assert f"--out {out}: has other files, such as {name}; type another path" in command.refusal(out)
    assert contents(out) == before


def test_another_request_has_another_folder(command: Command, out: Path) -> None:
    before = contents(out)
    refusal = command.refusal(out, command.other_request)
    assert f"{out}: has the result of another request ({command.differs}); type another --out" in refusal
    assert contents(out) == before


def test_the_same_request_writes_the_same_bytes(command: Command, out: Path) -> None:
    """Temporary files of a killed process do not count, and are removed."""
    before = contents(out)
    (out / ".file.parquet.123-0123abcd.tmp").write_bytes(b"half")
    assert command.write(out) == before


@pytest.mark.parametrize("damaged", [b"", b"{}", b'{"run": "\xff"}', b"[1]"])
def test_a_damaged_record_is_made_again(damaged: bytes, command: Command, out: Path) -> None:
    before = contents(out)
    (out / command.record).write_bytes(damaged)
    assert command.write(out) == before


def test_an_earlier_record_is_removed_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is synced after the removal: the files that are written next may reach the disk earlier otherwise."""
    synced: list[list[str]] = []

    def record_sync(folder: Path) -> None:
        synced.append(sorted(path.name for path in folder.iterdir()))

    for name in ("record.json", "rows.parquet", ".rows.parquet.1-ab.tmp"):
        (tmp_path / name).touch()
    monkeypatch.setattr("embedkit.out_folder.fsync_folder", record_sync)
    OutFiles("record.json", ("rows.parquet",), lambda record: {}).begin(tmp_path)
    assert synced == [["rows.parquet"]]
