"""The files of a split are those that load_dataset reads, and nothing is run or asked for to know them."""

from pathlib import Path

import polars as pl
import pytest

from embedkit.data.hub import model_names
from embedkit.data.hub_splits import choose_files
from embedkit.errors import EmbedkitError, UsageError

CONFIGS = """---
configs:
- config_name: long
  data_files:
  - split: train
    path: [b/*.parquet, a/one.parquet]
  - split: held_out
    path: c.parquet
- config_name: short
  data_files: a/*.parquet
---
# A data set
"""
FILES = ["a/one.parquet", "a/two.parquet", "b/2.parquet", "b/10.parquet", "c.parquet"]


def repository(folder: Path, files: list[str], readme: str = "") -> list[str]:
    """A data set in which each file has one row: its name."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"file": [name]}).write_parquet(folder / name)
    if readme:
        (folder / "README.md").write_text(readme)
    return [*files, "README.md"] if readme else files


@pytest.mark.parametrize(
    ("files", "readme", "config", "split"),
    [
        (FILES, CONFIGS, "long", "train"),
        (FILES, CONFIGS, "long", "held_out"),
        (FILES, CONFIGS, "short", "train"),
        (["data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"], "", "default", "train"),
        (["train/x.parquet", "train/w.parquet", "validation/y.parquet"], "", "default", "validation"),
        (["dev.parquet", "my-train.parquet", "my-test-1.parquet", "my-test-2.parquet"], "", "default", "test"),
        (["z.parquet", "y/x.parquet"], "", "default", "train"),
    ],
)
def test_files_and_their_order_are_load_datasets(
    files: list[str], readme: str, config: str, split: str, tmp_path: Path
) -> None:
    import datasets

    names = repository(tmp_path / "chats", files, readme)
    chosen = choose_files("lab/chats", names, tmp_path / "chats", config, split)
    theirs = datasets.load_dataset(str(tmp_path / "chats"), config, split=split, cache_dir=str(tmp_path / "cache"))
    assert list(chosen.files) == theirs["file"][:]
    assert (chosen.config, chosen.split) == (config, split)


def choose(names: list[str], cards: Path, config: str | None = None, split: str | None = None) -> tuple[str, ...]:
    chosen = choose_files("lab/chats", names, cards, config, split)
    return (chosen.config, chosen.split, *chosen.files)


def test_files_in_no_split_are_left_out_by_name(tmp_path: Path) -> None:
    files = ["data/train-0.parquet", "data/test-0.parquet", "data/train-1.PARQUET", "extra.json", "d/x.jsonl.gz"]
    files += ["d/x.csv", "d/x.arrow", "d/x.tar", "d/x.parquet.gz"]
    other = ["._train.parquet", "d/_temporary/x.parquet", "LICENSE", "notes.md", "dataset_infos.json"]
    (tmp_path / "dataset_infos.json").write_text("{}")
    chosen = choose_files("lab/chats", files + other, tmp_path, None, None)
    assert chosen.files == ("data/train-0.parquet",)
    assert chosen.left_out == (
        *("d/x.arrow", "d/x.csv", "d/x.jsonl.gz", "d/x.parquet.gz", "d/x.tar"),
        *("data/train-1.PARQUET", "extra.json"),
    )
    names = repository(tmp_path, FILES, CONFIGS)
    assert choose_files("lab/chats", [*names, "extra.json"], tmp_path, "short", None).left_out == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".json.zst", ".csv", ".csv.gz", ".tsv", ".arrow"])
def test_splits_of_any_format_are_chosen(suffix: str, tmp_path: Path) -> None:
    names = [f"data/train-00000-of-00001{suffix}", f"data/test-00000-of-00001{suffix}"]
    assert choose(names, tmp_path) == ("default", "train", names[0])
    assert choose(names, tmp_path, split="all") == ("default", "all", *names)


def test_a_folder_for_temporary_files_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "t[1]"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    names = repository(tmp_path / "chats", ["data/train-0.parquet", "data/test-0.parquet"])
    assert choose(names, tmp_path / "chats") == ("default", "train", "data/train-0.parquet")


def test_what_is_not_named_is_the_default_and_train(tmp_path: Path) -> None:
    shards = ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    assert choose(shards, tmp_path) == ("default", "train", shards[1])
    assert choose_files("lab/chats", shards, tmp_path, None, None).other_splits == ("test",)
    assert choose(shards, tmp_path, split="all") == ("default", "all", shards[1], shards[0])
    assert choose(["data/test-00000-of-00001.jsonl"], tmp_path) == ("default", "test", "data/test-00000-of-00001.jsonl")
    default = CONFIGS.replace("config_name: short\n", "config_name: short\n  default: true\n")
    names = repository(tmp_path / "chats", FILES, default)
    assert choose(names, tmp_path / "chats") == ("short", "train", "a/one.parquet", "a/two.parquet")


@pytest.mark.parametrize(
    ("files", "readme", "asked", "message"),
    [
        (FILES, CONFIGS, (None, None), "it has several configurations; name one by --config: long, short"),
        (
            FILES,
            CONFIGS,
            ("longer", None),
            "--config longer: lab/chats has no such configuration; there are: long, sho",
        ),
        (FILES, CONFIGS, ("long", "test"), "--split test: lab/chats has no such split; there are: train, held_out (or"),
        (
            ["test.parquet", "val.parquet"],
            "",
            (None, None),
            "several splits and none is train; name one by --split: val",
        ),
        (["chats.py", "train.parquet"], "", (None, None), "scripts are never run. Try --revision refs/convert/parquet"),
        (["train.txt"], "", (None, None), "config default, split train has train.txt; only .parquet, .pq, "),
        (["notes.pdf2"], "", (None, None), "`datasets` finds no data files in it"),
        ([], "", (None, None), "`datasets` finds no data files in it"),
        (FILES, "---\nconfigs: 7\n---\n", (None, None), "`datasets` cannot tell which files are its rows"),
        (FILES, "---\n{\n---\n", (None, None), "`datasets` cannot tell which files are its rows"),
        (["../x.parquet"], "", (None, None), "a file that no repository can have: '../x.parquet'"),
    ],
)
def test_what_cannot_be_chosen_is_reported(
    files: list[str], readme: str, asked: tuple[str | None, str | None], message: str, tmp_path: Path
) -> None:
    names = repository(tmp_path, [], readme) + files if readme else files
    with pytest.raises(EmbedkitError) as error:
        choose(names, tmp_path, *asked)
    assert message in str(error.value)


@pytest.mark.parametrize("where", ["https://other.example/x.parquet", "hf://datasets/a/b/x.parquet", "/etc/*", "../*"])
def test_a_readme_that_takes_files_from_elsewhere_is_refused(where: str, tmp_path: Path) -> None:
    readme = f"---\nconfigs:\n- config_name: d\n  data_files:\n  - split: train\n    path: ['{where}']\n---\n"
    names = repository(tmp_path, ["x.parquet"], readme)
    with pytest.raises(UsageError, match="its README takes files from elsewhere"):
        choose(names, tmp_path)
    (tmp_path / ".huggingface.yaml").write_text(readme.strip("-\n"))
    (tmp_path / "README.md").unlink()
    with pytest.raises(UsageError, match="its README takes files from elsewhere"):
        choose(["x.parquet", ".huggingface.yaml"], tmp_path)


def test_a_models_files_are_chosen() -> None:
    whole = [
        *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors", "config.json"),
        *("config_sentence_transformers.json", "merges.txt", "model-00001-of-00002.safetensors"),
        *("model-00002-of-00002.safetensors", "model.safetensors.index.json", "modules.json", "tokenizer.json"),
    ]
    other = ["README.md", "onnx/model.onnx", "onnx/config.json", "pytorch_model.bin", "tf_model.h5", "modeling.py"]
    assert model_names(whole + other) == sorted(whole)
    pickled = ["pytorch_model-00001-of-00001.bin", "2_Dense/pytorch_model.bin"]
    assert model_names(["config.json", *pickled]) == ["config.json"]
