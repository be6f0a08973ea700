"""Token ids of a chunk: counts, limit and vocabulary are compared before the engine gets them."""

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import RunConfig
from embedkit.embed.inputs import ChunkInput, InputReader, inputs_digest
from embedkit.errors import EmbedkitError
from embedkit.model.tokenizer import TokenIds
from embedkit.prepare.plan import read_plan
from embedkit.row_keys import no_copies
from embedkit.run import RunFolder


def reader(run: RunFolder, max_length: int = 512, model: Path | None = None) -> InputReader:
    config = read(run.config, RunConfig)
    plan = read_plan(run, config)
    plan = msgspec.structs.replace(plan, settings=msgspec.structs.replace(plan.settings, max_length=max_length))
    if model is not None:
        config = msgspec.structs.replace(config, locations=msgspec.structs.replace(config.locations, model=str(model)))
    return InputReader(run, config, plan)


def test_a_text_of_the_limit_is_read_and_a_longer_one_is_not(hash_run: RunFolder) -> None:
    """The longest of the first fifty rows, with a limit of its length and of one less."""
    rows = pl.read_parquet(hash_run.extracted).head(50)
    longest = int(rows["num_tokens"].max())  # type: ignore[arg-type]
    found = reader(hash_run, longest).read(0, 50)
    assert found.rows.tolist() == rows["row"].to_list()
    assert found.token_ids["combined"].lengths.tolist() == rows["num_tokens"].to_list()
    assert found.tokens == rows["num_tokens"].sum()
    row = rows.filter(num_tokens=longest)["row"][0]
    message = rf"^row {row}: {longest} tokens now, {longest} when it was prepared .*limit {longest - 1}\)"
    with pytest.raises(EmbedkitError, match=message):
        reader(hash_run, longest - 1).read(0, 50)


def test_the_highest_id_of_a_vocabulary_is_inside_it(hash_run: RunFolder, tokenizer_only: Path, tmp_path: Path) -> None:
    """A vocabulary of n ids has 0 to n - 1: the highest id of the rows is inside n, and outside n - 1."""
    found = reader(hash_run).read(0, 50)
    ids = found.token_ids["combined"]
    highest = int(ids.ids.max())
    row = next(row for row, of_row in zip(found.rows, ids, strict=True) if highest in of_row)
    model = shutil.copytree(tokenizer_only, tmp_path / "model")
    (model / "config.json").write_text(json.dumps({"vocab_size": highest + 1}))
    assert np.array_equal(reader(hash_run, model=model).read(0, 50).token_ids["combined"].ids, ids.ids)
    (model / "config.json").write_text(json.dumps({"vocab_size": highest}))
    with pytest.raises(EmbedkitError, match=rf"^row {row}: token id {highest} is outside the model's vocabulary$"):
        reader(hash_run, model=model).read(0, 50)


def chunk_input(rows: list[int], combined: list[list[int]], think: list[list[int]]) -> ChunkInput:
    def ids(texts: list[list[int]]) -> TokenIds:
        offsets = np.cumsum([0, *map(len, texts)])
        return TokenIds(np.array([one for text in texts for one in text], np.uint32), offsets)

    token_ids = {"combined": ids(combined), "think": ids(think)}
    return ChunkInput(0, len(rows), np.array(rows), token_ids, no_copies(len(rows), 2))  # type: ignore[arg-type]


def test_digest_of_inputs_by_hand() -> None:
    """Per row its number, then per view the number of ids and the ids, all little-endian."""
    found = inputs_digest(chunk_input([5, 258], [[1, 2], [300]], [[], [4]]))
    first = "0500000000000000 02000000 01000000 02000000 00000000"
    second = "0201000000000000 01000000 2c010000 01000000 04000000"
    assert found == hashlib.sha256(bytes.fromhex(first + second)).hexdigest()


def test_inputs_that_differ_have_other_digests() -> None:
    """Also if the same ids, one after the other, belong to another view or row."""
    rows = [5, 6]
    given = [
        chunk_input(rows, [[1, 2], [3]], [[4], []]),
        chunk_input(rows, [[1], [3]], [[2, 4], []]),
        chunk_input(rows, [[1, 2], []], [[4], [3]]),
        chunk_input(rows, [[2, 1], [3]], [[4], []]),
        chunk_input(rows[::-1], [[1, 2], [3]], [[4], []]),
    ]
    assert len({inputs_digest(one) for one in given}) == len(given)
