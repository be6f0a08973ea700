"""Folders that `datasets` saves: the rows of load_from_disk, in its order, and one split of several."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embedkit.data.columns import Columns
from embedkit.data.dataset import check_columns, open_dataset, read_rows
from embedkit.data.find_files import find_files
from embedkit.data.find_inputs import find_dataset
from embedkit.errors import EmbedkitError, UsageError
from tests.conftest import chat


def rows_of(count: int, name: str) -> dict[str, list[Any]]:
    return {
        "messages": [chat(f"{name}{i}", "é☃ " * (i % 5)) for i in range(count)],
        "dataset_source": [f"s{i % 3}" for i in range(count)],
    }


def saved(folder: Path, count: int = 10, shards: int = 3, name: str = "q") -> Path:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows_of(count, name)).save_to_disk(str(folder), num_shards=shards)
    return folder


def saved_dict(folder: Path, *splits: str) -> Path:
    import datasets

    datasets.disable_progress_bars()
    each = {split: datasets.Dataset.from_dict(rows_of(5, split)) for split in splits}
    datasets.DatasetDict(each).save_to_disk(str(folder))
    return folder


def read(paths: list[Path]) -> list[tuple[Any, Any]]:
    for path in paths:
        check_columns(path, Columns())
    dataset = open_dataset(paths, Columns())
    return pl.concat(read_rows(dataset, np.arange(dataset.rows))).select("messages", "dataset_source").rows()


def loaded(folder: Path) -> list[tuple[Any, Any]]:
    import datasets

    rows = datasets.load_from_disk(str(folder)).to_list()
    return [(row["messages"], row["dataset_source"]) for row in rows]


def test_a_saved_data_set_reads_as_load_from_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path / "d", 1000, 12)
    assert read(find_files([str(folder)])) == read(find_files([f"{tmp_path}/*"])) == loaded(folder)
    assert [path.name for path in find_files([str(folder)])][-1] == "data-00011-of-00012.arrow"
    assert caplog.messages == []


def test_the_order_of_state_json_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The list has the files in any order, and other Arrow files in the folder are no rows."""
    folder = saved(tmp_path / "d")
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [state["_data_files"][i] for i in (2, 0)]
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "cache-1234.arrow").write_bytes((folder / "data-00001-of-00003.arrow").read_bytes())
    for typed in (folder, f"{tmp_path}/*"):
        found = find_files([str(typed)])
        assert [path.name for path in found] == ["data-00002-of-00003.arrow", "data-00000-of-00003.arrow"]
        assert read(found) == loaded(folder)
    assert (
        "2 not read: not in the lists of state.json and dataset_dict.json beside them (cache-1234.arrow, "
        in (caplog.messages[0])
    )
    assert find_files([f"{folder}/data*"]) == sorted(folder.glob("data*.arrow"))
    assert "1 skipped: files in which `datasets` describes data" in caplog.text


def test_a_file_that_is_listed_and_missing_is_an_error(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d")
    (folder / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(EmbedkitError, match=r"data-00001-of-00003\.arrow: missing, and state\.json lists it"):
        find_files([str(folder)])


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ("{", "not readable JSON"),
        ("[]", "not a JSON object"),
        ("{}", "lists no _data_files"),
        ('{"_data_files": [7]}', "lists no _data_files"),
        ('{"_data_files": [{"filename": "../x.arrow"}]}', "x.arrow: missing"),
        ('{"_data_files": [], "_indices_data_files": [{"filename": "i.arrow"}]}', "a selection of rows"),
    ],
)
def test_a_damaged_state_json_is_named(state: str, what: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "d")
    (tmp_path / "x.arrow").touch()
    (folder / "state.json").write_text(state)
    with pytest.raises(EmbedkitError, match=what):
        find_files([str(folder)])


def test_a_split_is_chosen_from_several(tmp_path: Path) -> None:
    folder = saved_dict(tmp_path / "d", "train", "test", "dev")
    train, test, dev = (loaded(folder / split) for split in ("train", "test", "dev"))
    assert read(find_dataset([str(folder)], None, None, "test").paths) == test
    assert read(find_dataset([str(folder)], None, None, "all").paths) == train + test + dev
    assert read(find_files([f"{tmp_path}/*"], "all")) == train + test + dev
    assert read(find_files([str(tmp_path)], "dev")) == dev
    assert read(find_files([str(folder / "train")])) == train


def test_a_split_that_is_missing_lists_those_there(tmp_path: Path) -> None:
    folder = saved_dict(tmp_path / "d", "train", "test")
    there = r"train, test \(or all\)$"
    for typed in (str(folder), str(tmp_path), f"{tmp_path}/*"):
        with pytest.raises(UsageError, match=f"d: it has several splits; name one by --split: {there}"):
            find_files([typed])
        with pytest.raises(UsageError, match=f"--split tset: .*d has no such split; there are: {there}"):
            find_files([typed], "tset")
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "dev"]}')
    with pytest.raises(EmbedkitError, match=r"d/dev: missing, and dataset_dict\.json lists it"):
        find_files([str(folder)], "train")
    (folder / "dataset_dict.json").write_text('{"splits": ["../d"]}')
    with pytest.raises(EmbedkitError, match=r"dataset_dict\.json: it lists no splits"):
        find_files([str(folder)], "train")


def test_the_only_split_needs_no_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved_dict(tmp_path / "d", "held_out")
    (folder / "other").mkdir()
    (folder / "other" / "a.parquet").touch()
    assert read(find_files([str(folder)])) == loaded(folder / "held_out")
    assert caplog.messages == [
        f"--dataset {folder}: 1 not read: not in the lists of state.json and dataset_dict.json beside them (other)"
    ]


def test_a_split_of_other_local_data_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "d")
    with pytest.raises(UsageError, match=r"^--split is for data sets of the Hub and for folders with splits"):
        find_dataset([str(folder)], None, None, "train")
    with pytest.raises(UsageError, match=r"^--config and --revision are for data sets of the Hub"):
        find_dataset([str(folder)], "main", None, None)


def test_files_that_describe_data_are_never_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.json", "dataset_infos.json", "dataset_info.json"):
        (tmp_path / name).write_text("{}")
    assert find_files([str(tmp_path)]) == [tmp_path / "a.json"]
    assert caplog.messages == [
        f"--dataset {tmp_path}: 2 skipped: files in which `datasets` describes data (dataset_info.json, "
        "dataset_infos.json)"
    ]
    (tmp_path / "dataset_info.json").unlink()
    (tmp_path / "state.json").write_text("{}")  # of the 50 states
    assert find_files([str(tmp_path)]) == [tmp_path / "a.json", tmp_path / "state.json"]
