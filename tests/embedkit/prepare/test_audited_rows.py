"""The audited rows are the longest and a random sample, whatever the batches, and they find 1 % of differing rows."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.data import Columns, open_dataset, read_rows
from embedkit.documents.codec import digest, read
from embedkit.documents.schema import DataIndex, RunConfig
from embedkit.errors import EmbedkitError
from embedkit.model.tokenizer import HfTokenizer, TokenIds
from embedkit.prepare.audited_rows import AuditedRows, bytes_per_part, rows_per_part
from embedkit.prepare.parts import PartMaker, PartRows
from embedkit.run import RunFolder
from tests.conftest import chat, write_chats


def frame(texts: Sequence[str], first: int = 0) -> pl.DataFrame:
    numbers = np.arange(first, first + len(texts))
    return pl.DataFrame({"row": numbers, "combined": texts}, schema={"row": pl.Int64, "combined": pl.String})


def chosen(texts: Sequence[str], parts: int, cuts: Sequence[int] = (), part: int = 0) -> list[int]:
    """The audited rows of a part with these texts, given in batches that are cut at `cuts`."""
    rows = AuditedRows(part, len(texts), parts, ("combined",))
    borders = [0, *sorted(cuts), len(texts)]
    for start, stop in pairwise(borders):
        rows.add(frame(texts[start:stop], start))
    return [int(row) for row in rows.chosen()["row"]]


def test_numbers_of_rows_and_bytes_per_part() -> None:
    assert [rows_per_part(parts, 10) for parts in (1, 2, 9, 63, 64, 65, 700)] == [512, 256, 57, 9, 8, 8, 8]
    assert [rows_per_part(700, rows) for rows in (4096, 4097, 16_384)] == [8, 9, 32]
    assert rows_per_part(9, 16_384) == 57
    mib = 1 << 20
    assert [bytes_per_part(parts) for parts in (1, 2, 4, 8, 128)] == [64 * mib, 32 * mib, 16 * mib, 8 * mib, mib // 2]


def test_the_longest_row_is_first_and_the_rest_is_random() -> None:
    texts = ["a"] * 4096
    texts[777], texts[3000] = "long", "long"
    rows = chosen(texts, parts=1)
    assert rows[0] == 777  # the first of two
    assert len(rows) == len(set(rows)) == 512 + (777 not in rows[1:])
    assert rows[1:] != sorted(rows[1:])
    assert 1700 < float(np.mean(rows)) < 2400  # 2,048, with a standard error of 52
    assert chosen(texts, parts=1, part=1)[1:] != rows[1:]


def test_bytes_and_not_characters_decide_which_is_longest() -> None:
    assert chosen(["aaaa", "漢字", "aaaaa"], parts=10_000)[0] == 1


@given(
    lengths=st.lists(st.integers(0, 300_000), max_size=30),
    parts=st.sampled_from([1, 2, 5, 8, 64]),
    cuts=st.lists(st.integers(0, 30), max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_batches_do_not_matter_and_bytes_are_bounded(lengths: list[int], parts: int, cuts: list[int]) -> None:
    texts = ["x" * length for length in lengths]
    rows = chosen(texts, parts)
    assert chosen(texts, parts, [min(cut, len(texts)) for cut in cuts]) == rows
    assert not texts or lengths[rows[0]] == max(lengths)
    random = rows[1:]
    beyond = sum(lengths[row] for row in random[8:])
    assert beyond <= bytes_per_part(parts)
    assert len(random) >= min(7, len(texts) - 1)


def test_a_row_over_four_mebibytes_is_not_the_longest() -> None:
    texts = ["x" * (2**22 + 1), "y" * 2**22, "z"]
    assert chosen(texts, parts=1)[0] == 1
    assert sorted(chosen(texts, parts=1)) == [0, 1, 2]  # it is one of the first eight at random


def test_one_of_512_rows_is_audited_whatever_its_bytes() -> None:
    """And one of the longest for each 4,096, in a run of so many parts that no byte is left for more."""
    texts = ["x" * 100] * 16_384
    texts[9], texts[5000], texts[5001] = "long" * 30, "longest" * 30, "longest" * 30
    rows = chosen(texts, parts=1 << 26, cuts=[4, 5001, 9000])
    assert rows[:4] == [5000, 5001, 9, 0]
    assert len(rows) == len(set(rows))
    assert 32 <= len(rows) <= 36
    assert chosen(texts, parts=1 << 26) == rows


def test_all_views_count_for_the_longest() -> None:
    rows = AuditedRows(0, 2, 10_000, ("think", "response"))
    rows.add(pl.DataFrame({"row": [0, 1], "think": ["aaaa", "aaa"], "response": ["", "aaa"]}))
    assert rows.chosen()["row"][0] == 1
    assert rows.chosen().columns == ["row", "think", "response"]


def test_a_part_without_texts_has_no_audited_rows() -> None:
    rows = AuditedRows(0, 0, 1, ("combined",))
    assert rows.chosen().height == 0


class DiffersOnSome:
    """A stand-in for a tokenizer that counts right and gives other ids of the texts with a mark."""

    name = "stand-in 1.0"

    def __init__(self, reference: HfTokenizer) -> None:
        self._reference = reference

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
        return self._reference.count(texts)

    def encode(self, texts: Sequence[str]) -> TokenIds:
        good = self._reference.encode(texts)
        is_wrong = np.repeat(["wrong" in text for text in texts], good.lengths)
        return TokenIds(good.ids + is_wrong.astype(np.uint32), good.offsets)


def stand_in_maker(run: RunFolder, parts: int) -> PartMaker:
    """A maker of parts with the stand-in as its tokenizer, for a run of so many parts."""
    config = read(run.config, RunConfig)
    maker = PartMaker(run, config, digest(read(run.data_index, DataIndex)))
    vars(maker)["parts"] = parts
    vars(maker)["tokenizer"] = DiffersOnSome(maker.reference)
    return maker


@pytest.mark.parametrize("parts", [1, 4])
def test_a_stand_in_that_differs_on_1_percent_is_found(parts: int, prepared_run: RunFolder, tmp_path: Path) -> None:
    """512 rows of a run miss it with a probability of 0.99^512, 0.6 %."""
    maker = stand_in_maker(prepared_run, parts)
    marked = np.random.default_rng(1).choice(4096 * parts, 41 * parts, replace=False)
    is_marked = np.isin(np.arange(4096 * parts), marked)
    found: list[str] = []
    for part in range(parts):
        some = is_marked[part * 4096 : (part + 1) * 4096]
        chats = [chat(f"river {i}", "wrong" if mark else "right") for i, mark in enumerate(some)]
        data = write_chats(tmp_path / f"chats-{part}.parquet", chats)
        dataset, rows = open_dataset([data], Columns("messages", "dataset_source")), np.arange(4096)
        try:
            maker.make(PartRows(part, 0, rows), read_rows(dataset, rows))
        except EmbedkitError as error:
            row = int(str(error).split(":")[0].removeprefix("row "))
            assert some[row]
            found.append(str(error))
    assert found
    assert all("stand-in 1.0 gives other token ids than tokenizers" in error for error in found)


def test_a_stand_in_that_differs_on_the_longest_row_is_found(prepared_run: RunFolder, tmp_path: Path) -> None:
    """In a run of many parts, where only 8 of the part's 4,096 rows are taken at random."""
    maker = stand_in_maker(prepared_run, 1000)
    chats = [chat(f"river {i}", "right") for i in range(4096)]
    chats[2345] = chat("river", "wrong " * 100)
    data = write_chats(tmp_path / "chats.parquet", chats)
    dataset, rows = open_dataset([data], Columns("messages", "dataset_source")), np.arange(4096)
    with pytest.raises(EmbedkitError, match=r"^row 2345: stand-in 1\.0 gives other token ids than tokenizers"):
        maker.make(PartRows(7, 0, rows), read_rows(dataset, rows))
    chats[2345] = chat("river", "right " * 100)
    write_chats(data, chats)
    made = maker.make(
        PartRows(7, 0, rows), read_rows(open_dataset([data], Columns("messages", "dataset_source")), rows)
    )
    assert made.manifest.audited == 9


def test_the_number_of_parts_is_that_of_the_index(prepared_run: RunFolder) -> None:
    index = read(prepared_run.data_index, DataIndex)
    assert PartMaker(prepared_run, read(prepared_run.config, RunConfig), digest(index)).parts == 3
    assert index.part_borders == (0, 4096, 8192, 9000)
