"""Chunks as token ids, and their batches: order, empty texts, and what is refused."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from embedkit.documents import EngineRecord, Plan, RunConfig, read
from embedkit.embed.batch import EngineBatch, embed_batch, embed_chunk, in_row_order, make_batch
from embedkit.embed.checks import check_vectors, differing_rows
from embedkit.embed.inputs import ChunkInput, InputReader, inputs_digest
from embedkit.errors import EmbedkitError
from embedkit.model import TokenIds
from embedkit.row_keys import no_copies
from embedkit.run import RunFolder
from tests.support.reseal import record_part, rewrite_table

DIM = 3


def token_ids(*texts: Sequence[int]) -> TokenIds:
    ids = np.array([i for text in texts for i in text], np.uint32)
    return TokenIds(ids, np.cumsum([0, *map(len, texts)]))


def chunk() -> ChunkInput:
    """Three rows, ids 10 to 12, in two views; one text of each view is empty."""
    views = {"combined": token_ids([1], [2, 3, 4], [5, 6]), "response": token_ids([], [7, 8], [9])}
    return ChunkInput(10, 13, np.array([100, 102, 105]), views, no_copies(3, 2))  # type: ignore[arg-type]


class Engine:
    """A stand-in: the vector of a text is its number of ids, its first id and its sum."""

    record = EngineRecord(
        **dict.fromkeys(("engine", "engine_version", "torch", "cuda", "gpu", "attention", "compile"), ""),
        dtype="float32",
        token_budget=1,
        dim=DIM,
    )

    def __init__(self, answer: object = None) -> None:
        self.asked: list[list[int]] = []
        self._answer = answer

    def embed(self, texts: Sequence[npt.NDArray[np.uint32]]) -> npt.NDArray[np.float32]:
        self.asked += [text.tolist() for text in texts]
        if isinstance(self._answer, Exception):
            raise self._answer
        if self._answer is not None:
            return self._answer  # type: ignore[return-value]
        return np.array([[len(text), text[0], text.sum()] for text in texts], np.float32)

    def close(self) -> None: ...


def test_the_longest_texts_come_first_and_empty_ones_not_at_all() -> None:
    """Texts of one length keep their order."""
    engine = Engine()
    vectors = embed_chunk(engine, chunk())
    assert engine.asked == [[2, 3, 4], [5, 6], [7, 8], [1], [9]]
    assert vectors["combined"].tolist() == [[1, 1, 1], [3, 2, 9], [2, 5, 11]]
    assert vectors["response"].tolist() == [[0, 0, 0], [2, 7, 15], [1, 9, 9]]
    assert make_batch(chunk()).order.tolist() == [1, 2, 4, 0, 5]


def test_a_chunk_counts_and_gives_its_rows() -> None:
    whole = chunk()
    assert whole.tokens == 9
    picked = whole.take([11, 12])
    assert (picked.start, picked.stop, picked.rows.tolist()) == (11, 13, [102, 105])
    assert picked.token_ids["response"].ids.tolist() == [7, 8, 9]
    assert (whole.take([12]).start, whole.take([12]).stop) == (12, 13)


def test_the_digest_of_inputs_is_of_rows_counts_and_ids() -> None:
    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "little")

    parts = []
    for row, texts in ((100, ([1], [])), (102, ([2, 3, 4], [7, 8])), (105, ([5, 6], [9]))):
        parts.append(number(row, 8))
        for text in texts:
            parts += [number(len(text), 4), *(number(i, 4) for i in text)]
    assert inputs_digest(chunk()) == hashlib.sha256(b"".join(parts)).hexdigest()


def test_an_error_of_the_engine_names_the_rows() -> None:
    batch = make_batch(chunk())
    for error, message in (
        (EmbedkitError("no memory"), "no memory"),
        (ValueError("odd"), "the engine failed on rows 100 to 105 (ids 10 to 12): ValueError: odd"),
    ):
        with pytest.raises(EmbedkitError) as raised:
            embed_batch(Engine(error), chunk(), batch)
        assert str(raised.value) == message


@pytest.mark.parametrize("shape", [(4, 3), (6, 3), (5, 2), (5, 4), (15,)])
def test_vectors_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    batch = make_batch(chunk())
    assert embed_batch(Engine(np.zeros((5, 3), np.float32)), chunk(), batch).shape == (5, 3)
    with pytest.raises(EmbedkitError) as raised:
        embed_batch(Engine(np.zeros(shape, np.float32)), chunk(), batch)
    assert str(raised.value) == (f"the engine returned vectors of shape {shape} for rows 100 to 105; expected (5, 3)")


def test_vectors_go_back_to_their_rows() -> None:
    batch = EngineBatch(np.array([4, 0]), [])
    found = in_row_order(chunk(), batch, np.array([[1, 2], [3, 4]], np.float32))
    assert found["combined"].tolist() == [[3, 4], [0, 0], [0, 0]]
    assert found["response"].tolist() == [[0, 0], [1, 2], [0, 0]]
    assert found["combined"].dtype == np.float32


# Checks of vectors


def test_facts_of_vectors_are_of_the_rows_with_a_text() -> None:
    """Zeros are the vector of a row without a text; its norm does not count."""
    vectors = {
        "combined": np.array([[3, 4, 0], [0, 0, 1], [0, 2, 0]], np.float32),
        "response": np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0]], np.float32),
    }
    facts = check_vectors(chunk(), vectors)  # type: ignore[arg-type]
    combined, response = facts["combined"], facts["response"]
    assert (combined.empty, combined.norm_min, combined.norm_max) == (0, 1.0, 5.0)
    assert (response.empty, response.norm_min, response.norm_max) == (1, 1.0, 1.0)
    assert combined.sha256 == hashlib.sha256(vectors["combined"].astype("<f4").tobytes()).hexdigest()
    nothing = ChunkInput(0, 1, np.array([7]), {"combined": token_ids([])}, no_copies(1, 1))
    facts = check_vectors(nothing, {"combined": np.zeros((1, 3), np.float32)})
    assert (facts["combined"].empty, facts["combined"].norm_min, facts["combined"].norm_max) == (1, None, None)


@pytest.mark.parametrize(
    ("value", "what"),
    [(np.nan, "NaN or infinity in"), (np.inf, "NaN or infinity in"), (0.0, "only zeros in"), (5e-13, "only zeros in")],
)
def test_a_vector_that_is_none_names_its_row(value: float, what: str) -> None:
    vectors = {"combined": np.ones((3, 3), np.float32), "response": np.ones((3, 3), np.float32)}
    vectors["response"][1:] = 0
    vectors["response"][1:, 0] = value
    with pytest.raises(EmbedkitError) as error:
        check_vectors(chunk(), vectors)  # type: ignore[arg-type]
    assert str(error.value) == f"row 102: {what} its vector (view response, 2 such rows)"
    vectors["response"][1:, 0] = 2e-12
    assert check_vectors(chunk(), vectors)["response"].norm_min == pytest.approx(2e-12)  # type: ignore[arg-type]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 5e-4), ("bfloat16", 2e-3)])
def test_rows_embedded_again_differ_beyond_the_tolerance(dtype: str, tolerance: float) -> None:
    """A turn of a vector by an angle is 1 - cos(angle) away, whatever the length."""
    stored = np.array([[1, 0], [1, 0], [0, 0]], np.float32)
    whole = ChunkInput(0, 3, np.arange(3), {"combined": token_ids([1], [2], [])}, no_copies(3, 1))
    for factor, found in ((0.5, []), (2.0, [1])):
        angle = np.arccos(1 - factor * tolerance)
        again = np.array([[1, 0], [3 * np.cos(angle), 3 * np.sin(angle)], [0, 0]], np.float32)
        rows = differing_rows(whole, {"combined": again}, {"combined": stored}, dtype)  # type: ignore[arg-type]
        assert [row for _, row, _ in rows] == found
        assert [distance for *_, distance in rows] == pytest.approx([factor * tolerance] * len(found), rel=0.05)
    stored[2] = 1e-3  # of a row without a text
    stored[0] = 0  # of a row with one
    rows = differing_rows(whole, {"combined": stored}, {"combined": stored}, dtype)  # type: ignore[arg-type]
    assert [row for _, row, _ in rows] == [0, 2]


# Reading rows


def reader_of(run: RunFolder) -> InputReader:
    return InputReader(run, read(run.config, RunConfig), read(run.plan, Plan))


def test_rows_are_read_across_parts(small_run: RunFolder) -> None:
    reader = reader_of(small_run)
    whole = reader.read(15, 30)
    assert (whole.start, whole.stop, len(whole.rows)) == (15, 30, 15)
    assert list(whole.token_ids) == ["combined", "response"]
    first, second = reader.read(15, 21), reader.read(21, 30)
    assert whole.rows.tolist() == [*first.rows, *second.rows]
    assert whole.tokens == first.tokens + second.tokens
    plan = read(small_run.plan, Plan)
    assert sum(reader.read(shard.start, shard.stop).tokens for shard in plan.shards) == plan.tokens


def change_count(run: RunFolder, column: str, at: int, value: int) -> None:
    def edited(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[at] = value
        place = table.schema.get_field_index(column)
        return table.set_column(place, table.schema.field(column), pa.array(values, pa.int32()))

    rewrite_table(run.part_data(1), edited)
    record_part(run, 1)


def test_a_row_with_other_tokens_than_prepared_is_named(small_prepared: RunFolder) -> None:
    run = small_prepared
    right = reader_of(run).read(21, 43)
    counted = int(right.token_ids["response"].lengths[4])
    change_count(run, "num_tokens_response", 4, counted + 1)
    with pytest.raises(EmbedkitError) as error:
        reader_of(run).read(21, 43)
    assert str(error.value) == (
        f"row {right.rows[4]}: {counted} tokens now, {counted + 1} when it was prepared (view response, limit 256). "
        "The tokenizer or the parts changed: run `embedkit verify`"
    )
    assert len(reader_of(run).read(26, 43).rows) == 17


def test_a_row_over_the_limit_is_refused(small_prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(small_prepared)
    whole = reader.read(0, 21)
    longest = int(whole.token_ids["combined"].lengths.max())
    monkeypatch.setattr(reader, "_max_length", longest)
    assert reader.read(0, 21).tokens == whole.tokens
    monkeypatch.setattr(reader, "_max_length", longest - 1)
    with pytest.raises(
        EmbedkitError, match=f"{longest} tokens now, {longest} when it was prepared .*limit {longest - 1}"
    ):
        reader.read(0, 21)


def test_a_token_outside_the_vocabulary_is_refused(small_prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row that has it is named. Without a model's configuration nothing is known of its vocabulary."""
    reader = reader_of(small_prepared)
    whole = reader.read(0, 21)
    combined = whole.token_ids["combined"]
    highest = int(combined.ids.max())
    row = next(row for row in range(21) if highest in combined[row])
    monkeypatch.setattr(reader, "_vocabulary", highest + 1)
    assert reader.read(0, 21).tokens == whole.tokens
    monkeypatch.setattr(reader, "_vocabulary", highest)
    with pytest.raises(EmbedkitError) as error:
        reader.read(0, 21)
    assert str(error.value) == f"row {whole.rows[row]}: token id {highest} is outside the model's vocabulary"
