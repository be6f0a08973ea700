"""Merged runs of chosen rows, made by the real stages: any texts, sources and vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedkit.analysis.merged import open_merged
from embedkit.embed import embed_shards
from embedkit.merge import merge
from embedkit.prepare import prepare
from embedkit.request import Options, create_run, make_config
from embedkit.run import RunFolder
from tests.conftest import chat, write_chats
from tests.support.models import make_tokenizer
from tests.support.planted import plant

DIM = 64
"""Of the hash engine, whose vectors of different texts are unrelated."""


@dataclass(frozen=True)
class Row:
    """A chat of one turn. vector: (DIM,), planted for the view combined; None keeps that of the hash engine."""

    prompt: str
    response: str
    think: str = ""
    source: str = "s"
    vector: npt.NDArray[np.floating] | None = None

    @property
    def messages(self) -> list[dict[str, str]]:
        thought = f"<think>{self.think}</think>" if self.think else ""
        return chat(self.prompt, thought + self.response)


def chosen_run(folder: Path, rows: Sequence[Row], **options: Any) -> RunFolder:
    """Make and merge a run of these rows. Row i has id i if none is dropped. options: of `embedkit.request.Options`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = write_chats(folder / "chats.parquet", [row.messages for row in rows], [row.source for row in rows])
    return run_of_file(folder, data, [row.vector for row in rows], **options)


def run_of_file(
    folder: Path, data: Path, vectors: Sequence[npt.NDArray[np.floating] | None] = (), **options: Any
) -> RunFolder:
    """Make and merge a run of a file. vectors: as for `chosen_run`."""
    make_tokenizer(folder / "model")
    defaults = {"max_length": 4096, "sample_size": None, "shards": 1}
    wanted = Options(dataset=(str(data),), model=str(folder / "model"), engine="hash", **(defaults | options))
    run = RunFolder(folder / "run")
    create_run(run, make_config(wanted, ["embedkit", "run"]))
    prepare(run, workers=1)
    embed_shards(run, list(range(wanted.shards or 1)))
    merge(run)
    planted = {at: vector for at, vector in enumerate(vectors) if vector is not None}
    if planted:
        replaced = _vectors(run)
        for at, vector in planted.items():
            replaced[at] = vector
        plant(run, replaced)
    return run


def _vectors(run: RunFolder) -> npt.NDArray[np.float32]:
    """A copy of the vectors of the view combined."""
    merged = open_merged(run)
    return np.array(merged.vectors(merged.ids))
