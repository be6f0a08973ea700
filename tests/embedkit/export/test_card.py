"""The card of a repository, by hand."""

from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from embedkit.documents import EngineRecord, FileRecord, RunConfig, Success, read
from embedkit.documents.schema import DataFile, SourceRecord
from embedkit.export import Export, ExportOptions, Recall, export
from embedkit.export.card import card, size_category
from embedkit.run import RunFolder

A, B, C = "a" * 64, "b" * 64, "c" * 64

WANTED = f"""\
---
configs:
- config_name: "default"
  data_files:
  - split: train
    path: "data/part-*.parquet"
size_categories:
- 100K<n<1M
tags:
- embeddings
- embedkit
---

# vectors

Embeddings of texts: each row has the vector of its text, in the column `embedding`.

|  |  |
| --- | --- |
| data set | `lab/chats` of the Hub at commit `1111`, configuration default, split train |
| model | `lab/model` of the Hub at commit `2222` |
| rows | 937,292, of which 12 have no text and vectors of zeros |
| dropped rows | 7 empty, 1,000 too_long |
| view | combined |
| vectors | 20 of 20 dimensions, int8, 20 bytes each |
| columns | `id`, `row`, `a\\|b`, `embedding` |
| engine | vllm 0.24.0, torch 2.11.0, CUDA 13.0, NVIDIA H100, attention FLASH_ATTN, compile graphs, bfloat16 |
| run | `first`, request `{A}`, result `{B}` |
| made by | embedkit 0.2.0 |

## How to read it

```python
from datasets import load_dataset

rows = load_dataset("lab/vectors", split="train")
```

The numbers are `(codes.astype('float32') + 128) * (ranges[1] - ranges[0]) / 255 + ranges[0]`, with the ranges of each \
dimension that the metadata of every Parquet file has as JSON: in polars, \
`pl.read_parquet_metadata(file)["embedkit.ranges"]`.

`export.json` names every file with its sha256. If it is missing, the repository is not complete.

## Recall

Of the nearest rows by exact float32 cosines of all dimensions, the share that is found.

|  | share | searched | queries | rows |
| --- | --- | --- | --- | --- |
| recall@10 | 0.9919 | all rows | 1,000 | 937,280 |

## Files

| file | bytes | sha256 |
| --- | --- | --- |
| `data/part-00000.parquet` | 1,234,567 | `{C}` |
"""


@pytest.fixture(scope="module")
def documents(known_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, RunConfig, Success]:
    options = ExportOptions(to="parquet", out=tmp_path_factory.mktemp("card") / "x", queries=0)
    return export(known_run, options).record, read(known_run.config, RunConfig), read(known_run.success, Success)


def edited(documents: Any, **request: Any) -> tuple[Export, RunConfig, Success]:
    record, config, success = documents
    of_export = {"dtype": "int8", "columns": ("id", "row", "a|b"), "success_sha256": B, "version": "0.2.0"} | request
    engine = EngineRecord(
        **{"engine": "vllm", "engine_version": "0.24.0", "torch": "2.11.0", "cuda": "13.0", "gpu": "NVIDIA H100"},
        **{"attention": "FLASH_ATTN", "compile": "graphs", "dtype": "bfloat16", "token_budget": 1, "dim": 20},
    )
    record = replace(
        record,
        **{"run": "first", "request": replace(record.request, **of_export), "request_sha256": A, "rows": 937_292},
        **{"empty": 12, "vector_bytes": 20, "engines": (engine,)},
        files=(FileRecord(name="data/part-00000.parquet", bytes=1_234_567, sha256=C),),
        recall=(Recall(k=10, queries=1000, rows=937_280, of="all rows", recall=0.9919),),
    )
    pinned = replace(config.request, data_revision="1111", model_revision="2222", config="default", split="train")
    config = replace(
        config, request=pinned, locations=replace(config.locations, data_repo="lab/chats", model_repo="lab/model")
    )
    return record, config, replace(success, dropped={"too_long": 1000, "empty": 7, "not_a_chat": 0})


def front_matter(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_a_card_by_hand(documents: Any) -> None:
    assert card("lab/vectors", *edited(documents)) == WANTED


def test_the_card_of_local_data_and_a_local_model(documents: Any) -> None:
    """They have no commit: files with their digests, 20 of the data at most, and no path of this machine."""
    record, config, success = edited(documents)
    data = tuple(DataFile(name=f"{i}.jsonl", bytes=1000 + i) for i in range(22))
    files = (FileRecord(name="model.safetensors", bytes=90_000, sha256=A),)
    where = type(config.locations)(data=("/home/me/0.jsonl",), model="/home/me/MiniLM")
    config = replace(config, request=replace(config.request, data=data, model_files=files), locations=where)
    text = card("lab/vectors", record, config, success)
    assert "| data set | `0.jsonl` (1,000 bytes), `1.jsonl` (1,001 bytes), " in text
    assert "`19.jsonl` (1,019 bytes) and 2 more files |\n" in text
    assert "| model | `MiniLM`, whose files are below |\n" in text
    head = "| file | bytes | sha256 |\n| --- | --- | --- |\n"
    assert f"## Files of the model\n\n{head}| `model.safetensors` | 90,000 | `{A}` |\n" in text
    assert "/home/me" not in text


def test_each_source_has_a_configuration(documents: Any) -> None:
    """All of them together are the default, also if a source has that name; brackets are no pattern."""
    record, config, success = edited(documents, by_source=True)
    sources = {name: SourceRecord(folder=name, rows=1) for name in ("default", 'web"2', "s[1]")}
    text = card("lab/vectors", record, config, replace(success, sources=sources))
    paths = {one["config_name"]: one["data_files"][0]["path"] for one in front_matter(text)["configs"]}
    assert paths == {
        "default": "by_source/*/part-*.parquet",
        "s[1]": "by_source/s[[]1]/part-*.parquet",
        'web"2': 'by_source/web"2/part-*.parquet',
    }
    assert "The name of a folder in `by_source/` as second argument reads one source." in text


@pytest.mark.parametrize(
    ("dtype", "note"), [("float32", ""), ("float16", ""), ("bfloat16", '.view("float32")'), ("binary", "np.packbits")]
)
def test_how_the_numbers_of_a_type_are_read(dtype: str, note: str, documents: Any) -> None:
    text = card("lab/vectors", *edited(documents, dtype=dtype))
    between = text.partition("```\n\n")[2].partition("`export.json`")[0]
    assert bool(between) == bool(note)
    assert note in between


def test_a_card_without_recall_or_dropped_rows(documents: Any) -> None:
    record, config, success = edited(documents)
    text = card("lab/vectors", replace(record, recall=(), empty=0), config, replace(success, dropped={}))
    assert "## Recall" not in text
    assert "| rows | 937,292 |\n| dropped rows | none |\n" in text


def test_the_view_of_a_template_is_shown(documents: Any) -> None:
    record, config, success = edited(documents, view="ask")
    views = replace(config.request, views=("ask",), templates={"ask": "{title}: {user_prompt}"})
    text = card("lab/vectors", record, replace(config, request=views), success)
    assert "| view | ask, the text `{title}: {user_prompt}` |\n" in text


def test_the_size_of_a_data_set_by_hand() -> None:
    wanted = {0: "n<1K", 999: "n<1K", 1000: "1K<n<10K", 99_999: "10K<n<100K", 937_292: "100K<n<1M", 10**6: "1M<n<10M"}
    assert {rows: size_category(rows) for rows in wanted} == wanted
    assert size_category(10**12 - 1) == "100B<n<1T"
    assert size_category(10**12) == "n>1T"
