"""A finished run of a few dozen rows with several parts, shards, chunks, sources and views, made in seconds.

A conftest.py that imports the fixtures gives them to its tests.
"""

import os
import random
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from embedkit.documents import Layout
from embedkit.embed import embed_shards
from embedkit.merge import merge, tables
from embedkit.prepare import part_borders, plan, prepare
from embedkit.request import Options, create_run, make_config
from embedkit.run import RunFolder
from tests.conftest import chat, made_once, write_chats
from tests.support.faults.small_parts import CHUNK_TOKENS, PART_ROWS
from tests.support.models import make_tokenizer

ROWS = 84
SHARDS = 3
SOURCES = ["a/b", "source one", "zzz"]
TABLE_ROWS = 45
"""Of the sharded layout: the four parts become two tables."""


def make_small_embedded(folder: Path, layout: Layout = "merged", by_source: bool = False) -> RunFolder:
    """84 chats: four parts, three shards of several chunks, three sources, the views combined and response.

    by_source: the rows of a source follow each other, so that some parts have rows of one source alone.

    Some rows are dropped for each reason; of the others, some have an empty response. The run is not merged.
    """
    of_rows = [SOURCES[i * 3 // ROWS if by_source else i % 3] for i in range(ROWS)]
    data = write_chats(folder / "chats.parquet", _chats(), of_rows)
    make_tokenizer(folder / "model")
    options = Options(
        dataset=(str(data),),
        model=str(folder / "model"),
        engine="hash",
        max_length=256,
        views=("combined", "response"),
        sample_size=None,
        shards=SHARDS,
        layout=layout,
    )
    run = RunFolder(folder / "run")
    umask = os.umask(0o022)
    try:
        most_rows = PART_ROWS * part_borders.SHARES_OF_LAST
        with patch.object(part_borders, "PART_ROWS", most_rows), patch.dict(plan.CHUNK_TOKENS, cpu=CHUNK_TOKENS):
            create_run(run, make_config(options, ["embedkit", "run"]))
            prepare(run, workers=1)
        embed_shards(run, list(range(SHARDS)))
    finally:
        os.umask(umask)
    return run


def _chats() -> list[Any]:
    rng = random.Random(2)
    words = ["river", "stone", "lamp", "π", "漢字", "engine", "seven", "9 8 7", "🙂", "so"]
    chats: list[Any] = []
    for i in range(ROWS):
        text = " ".join(rng.choices(words, k=rng.randint(4, 30)))
        if i % 31 == 5:
            chats.append([{"role": "user", "content": text}])
        elif i % 37 == 6:
            chats.append(chat(" ", "\n"))
        elif i % 41 == 7:
            chats.append(chat("long", text * 100))
        elif i % 17 == 3:
            chats.append(chat(text, f"<think>{i} {text}</think>"))
        else:
            chats.append(chat(text, f"{text} {i}"))
    return chats


@pytest.fixture(scope="session")
def small_embedded_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Embedded and not merged. Read only."""
    return RunFolder(made_once(tmp_path_factory, "small-embedded", make_small_embedded) / "run")


@pytest.fixture(scope="session")
def small_run(small_embedded_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Merged. Read only."""

    def make(folder: Path) -> None:
        shutil.copytree(small_embedded_run.path, folder / "run")
        merge(RunFolder(folder / "run"))

    return RunFolder(made_once(tmp_path_factory, "small-run", make) / "run")


def make_small_sharded(folder: Path) -> None:
    with patch.object(tables, "TABLE_ROWS", TABLE_ROWS):
        merge(make_small_embedded(folder, "sharded"))


@pytest.fixture(scope="session")
def small_sharded_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The same rows, merged with the sharded layout. Read only."""
    return RunFolder(made_once(tmp_path_factory, "small-sharded", make_small_sharded) / "run")


def _copy(run: RunFolder, folder: Path) -> RunFolder:
    shutil.copytree(run.path, folder / "run")
    return RunFolder(folder / "run")


@pytest.fixture
def small(small_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the merged run, to be damaged."""
    return _copy(small_run, tmp_path)


@pytest.fixture
def small_sharded(small_sharded_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run with the sharded layout, to be damaged."""
    return _copy(small_sharded_run, tmp_path)


@pytest.fixture
def small_embedded(small_embedded_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy as it was before merge."""
    return _copy(small_embedded_run, tmp_path)


@pytest.fixture
def small_prepared(small_embedded_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy as it was before embed."""
    run = _copy(small_embedded_run, tmp_path)
    shutil.rmtree(run.embeddings)
    return run
