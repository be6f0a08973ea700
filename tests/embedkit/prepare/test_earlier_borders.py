"""Runs whose parts earlier versions cut: all alike, not smaller near the end. They keep their parts."""

from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from embedkit.documents import DataIndex, read, write
from embedkit.errors import EmbedkitError
from embedkit.prepare import part_borders, prepare, stage
from embedkit.request import Options, create_run, make_config
from embedkit.run import RunFolder
from tests.conftest import chat, write_chats


@pytest.fixture
def earlier(tmp_path: Path, tokenizer_only: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A prepared run of 100 rows of about 1 KB each, in parts of at most 16 KiB."""
    monkeypatch.setattr(part_borders, "PART_BYTES", 16 << 10)
    data = write_chats(tmp_path / "d.parquet", [chat(f"{i}" * 500, "answer " * 70) for i in range(100)])
    options = Options(
        dataset=(str(data),), model=str(tokenizer_only), engine="hash", max_length=8192, sample_size=None, shards=1
    )
    run = RunFolder(tmp_path / "run")
    create_run(run, make_config(options, ["embedkit", "run"]))
    with monkeypatch.context() as patched:
        patched.setattr(stage, "part_borders", partial(part_borders.part_borders, even=True))
        prepare(run, workers=1)
    return run


def files_of(run: RunFolder) -> dict[Path, tuple[bytes, int]]:
    paths = [run.plan, run.data_index, *sorted(run.parts.iterdir()), *sorted(run.extracted.iterdir())]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def parts_now(run: RunFolder) -> int:
    return len(read(run.data_index, DataIndex).part_borders) - 1


@pytest.mark.parametrize("lost", [(), ("parts/index.json",), ("parts/index.json", "plan.json")], ids=len)
def test_parts_of_an_earlier_version_are_kept(lost: tuple[str, ...], earlier: RunFolder) -> None:
    """Also if its index is lost: the manifests name the index that they were made for."""
    before, parts = files_of(earlier), parts_now(earlier)
    for name in lost:
        (earlier.path / name).unlink()
    prepare(earlier, workers=1)
    after = files_of(earlier)
    assert {path: data for path, (data, _) in after.items()} == {path: data for path, (data, _) in before.items()}
    made_again = {path for path in before if before[path][1] != after[path][1]}
    assert made_again == {earlier.path / name for name in lost}
    for path in (*earlier.parts.iterdir(), *earlier.extracted.iterdir(), earlier.plan):
        path.unlink()
    prepare(earlier, workers=1)
    assert parts_now(earlier) > parts


def test_a_plan_shows_the_borders_if_index_and_manifests_are_lost(earlier: RunFolder) -> None:
    before = files_of(earlier)
    for path in earlier.parts.iterdir():
        path.unlink()
    prepare(earlier, workers=1)
    assert {path: data for path, (data, _) in files_of(earlier).items()} == {
        path: data for path, (data, _) in before.items()
    }


def test_borders_of_no_version_are_refused(earlier: RunFolder) -> None:
    index = read(earlier.data_index, DataIndex)
    write(earlier.data_index, structs.replace(index, part_borders=(0, 50, 100)))
    with pytest.raises(EmbedkitError, match="the data changed since prepare began"):
        prepare(earlier, workers=1)
