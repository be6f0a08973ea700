"""Runs of the same rows in files of any format give the same texts."""

import csv
import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import chat, embedkit

ROWS = [{"messages": chat(f"q{i} é", f"<think>t{i}</think>a{i}"), "dataset_source": f"s{i % 3}"} for i in range(200)]


def write_lines(path: Path) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode("utf-16")))


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["messages", "dataset_source"])
        writer.writerows([json.dumps(row["messages"]), row["dataset_source"]] for row in ROWS)


def write_saved(path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_list(ROWS)
    splits = datasets.DatasetDict({"train": rows, "test": rows.select([0])})
    splits.save_to_disk(str(path), num_shards={"train": 3, "test": 1})


@pytest.mark.slow
def test_any_files_give_the_texts_of_parquet(tmp_path: Path, tokenizer_only: Path) -> None:
    """Prepared, and resumed without the data set's options."""
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    write_lines(tmp_path / "a.jsonl.gz")
    write_csv(tmp_path / "a.csv")
    write_saved(tmp_path / "saved")
    pl.DataFrame(ROWS).write_ipc(tmp_path / "a.feather", compression="lz4")
    output = ["--output-dir", tmp_path / "output"]
    texts = []
    for name in ("a.parquet", "a.jsonl.gz", "a.csv", "a.feather", "saved"):
        options = ["--split", "train"] if name == "saved" else []
        data = [
            "--dataset",
            tmp_path / name,
            *options,
            "--model",
            tokenizer_only,
            "--engine",
            "hash",
            "--full",
            "--max-length",
            512,
        ]
        embedkit("prepare", *data, *output, "--run-name", name)
        embedkit("prepare", "--resume", "--run-name", name, *output)
        texts.append(pl.read_parquet(tmp_path / "output" / name / "extracted_data.parquet").rows())
    assert all(rows == texts[0] for rows in texts)
    assert len(texts[0]) == len(ROWS)
