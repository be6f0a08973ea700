"""A part's digests are those of the bytes as they were computed, and its numbers are taken from checked bytes."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

import embedkit.prepare.parts
from embedkit.data import Columns, open_dataset, read_rows
from embedkit.documents.checked_file import read_checked
from embedkit.documents.codec import digest, file_record, read, write
from embedkit.documents.schema import DataIndex, PartManifest, RunConfig
from embedkit.errors import EmbedkitError
from embedkit.model.tokenizer import TokenIds
from embedkit.prepare.parts import PartMaker, PartRows
from embedkit.prepare.stage import open_checked
from embedkit.run import RunFolder
from tests.conftest import chat, write_chats


@pytest.fixture
def maker(prepared_run: RunFolder) -> PartMaker:
    return PartMaker(
        prepared_run, read(prepared_run.config, RunConfig), digest(read(prepared_run.data_index, DataIndex))
    )


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)


def test_a_flip_before_the_manifest_is_not_sealed(maker: PartMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The byte goes bad after the part got its name, while its dropped rows are gathered."""
    run = maker.run
    manifest = read(run.part_manifest(1), PartManifest)
    rows = np.arange(manifest.start, manifest.stop)
    gather = embedkit.prepare.parts.gather_dropped

    def gather_and_flip(frames: list[pl.DataFrame]) -> pl.DataFrame:
        flip(run.part_data(1))
        return gather(frames)

    with monkeypatch.context() as patch:
        patch.setattr(embedkit.prepare.parts, "gather_dropped", gather_and_flip)
        part = maker.make(PartRows(1, manifest.start, rows), read_rows(open_checked(maker.run, maker.config), rows))
    assert part.manifest == manifest
    assert part.tokens.sum() == manifest.tokens
    write(run.part_manifest(1), part.manifest)
    assert maker.sound_part(1) is None  # so prepare makes it again


def test_a_kept_part_gives_the_numbers_of_its_bytes(maker: PartMaker) -> None:
    part = maker.sound_part(0)
    assert part is not None
    rows = pl.read_parquet(maker.run.part_data(0))
    assert part.tokens[:, 0].tolist() == rows["num_tokens"].to_list()
    assert part.dropped.equals(pl.read_parquet(maker.run.part_dropped(0)))


def test_read_checked_are_refused_if_one_differs(maker: PartMaker) -> None:
    path = maker.run.part_data(0)
    record = read(maker.run.part_manifest(0), PartManifest).extracted
    assert read_checked(path, record) == path.read_bytes()
    flip(path)
    with pytest.raises(EmbedkitError, match=r"part-00000\.parquet: its bytes are not those that were written"):
        read_checked(path, record)


def test_a_sealed_part_that_cannot_be_decoded_is_made_again(maker: PartMaker) -> None:
    run = maker.run
    manifest = read(run.part_manifest(0), PartManifest)
    run.part_data(0).write_bytes(bytes(manifest.extracted.bytes))
    record = msgspec.structs.replace(file_record(run.part_data(0)), name=manifest.extracted.name)
    write(run.part_manifest(0), msgspec.structs.replace(manifest, extracted=record))
    assert maker.sound_part(0) is None


@pytest.mark.parametrize("left", [4095, 4000, 1])
def test_a_data_file_that_shrinks_while_it_is_read_is_an_error(
    left: int, maker: PartMaker, small_chats: Path, tmp_path: Path
) -> None:
    """Another process writes the Parquet file again, with fewer rows, after prepare has read its footer."""
    chats = pl.read_parquet(small_chats).head(4096)
    data = tmp_path / "chats.parquet"
    chats.write_parquet(data)
    dataset, rows = open_dataset([data], Columns("messages", "dataset_source")), np.arange(4096)
    whole = maker.make(PartRows(7, 0, rows), read_rows(dataset, rows)).manifest
    dropped = sum(whole.dropped.values())
    assert (whole.kept + dropped, whole.start, whole.stop) == (4096, 0, 4096)
    chats.head(left).write_parquet(data)
    with pytest.raises(EmbedkitError) as caught:
        maker.make(PartRows(7, 0, rows), read_rows(dataset, rows))
    counts = re.fullmatch(
        r"part 7: 4096 rows chosen, but (\d+) kept and (\d+) dropped; a data file changed while it was read",
        str(caught.value),
    )
    assert counts is not None
    assert int(counts[1]) + int(counts[2]) == left


@pytest.mark.parametrize("more", [-1, 1])
def test_a_part_has_exactly_the_rows_that_were_chosen(more: int, maker: PartMaker) -> None:
    """One row less or more than chosen is an error, whether or not rows are dropped."""
    dataset, rows = open_checked(maker.run, maker.config), np.arange(40)
    with pytest.raises(EmbedkitError, match=rf"^part 2: 40 rows chosen, but {37 + more} kept and 3 dropped; "):
        maker.make(PartRows(2, 0, rows), read_rows(dataset, np.arange(40 + more)))


def test_a_jsonl_file_that_shrinks_while_it_is_read_is_named(maker: PartMaker, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.jsonl", [chat(f"{i}", "yes") for i in range(50)])
    dataset, rows = open_dataset([data], Columns("messages", "dataset_source")), np.arange(50)
    lines = data.read_bytes().splitlines(keepends=True)
    data.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(EmbedkitError, match=r"chats\.jsonl: changed while it was read, at byte 0; start again"):
        maker.make(PartRows(7, 0, rows), read_rows(dataset, rows))


def test_a_part_made_for_other_rows_or_data_does_not_count(maker: PartMaker) -> None:
    """Its files are whole, but its manifest has another number, or the digest of another index."""
    path = maker.run.part_manifest(0)
    manifest = read(path, PartManifest)
    assert maker.sound_part(0) is not None
    for changes in ({"part": 1}, {"index_sha256": "0" * 64}):
        write(path, msgspec.structs.replace(manifest, **changes))  # type: ignore[arg-type]
        assert maker.sound_part(0) is None


@pytest.mark.parametrize("wrong", ["combined", "think", "response", ""])
def test_ids_of_a_few_rows_are_audited_in_every_view(wrong: str, maker: PartMaker, tmp_path: Path) -> None:
    """A tokenizer that counts right and gives other ids for one view's texts is found before the part is written."""
    texts = {"combined": "river\n\nlamp\n\nstone", "think": "lamp", "response": "stone"}
    chats = [chat("river", "<think>lamp</think>stone") for _ in range(20)]
    data = write_chats(tmp_path / "chats.parquet", chats)
    request = msgspec.structs.replace(maker.config.request, views=("combined", "think", "response"))
    several = PartMaker(maker.run, msgspec.structs.replace(maker.config, request=request), maker.index_sha256)
    reference = several.reference

    class Wrong:
        name = "wrong 1.0"

        def count(self, texts: Sequence[str]) -> npt.NDArray[np.int64]:
            return reference.count(texts)

        def encode(self, given: Sequence[str]) -> TokenIds:
            good = reference.encode(given)
            is_wrong = bool(wrong) and list(given) == [texts[wrong]] * len(given)
            return TokenIds(good.ids + np.uint32(is_wrong), good.offsets)

    vars(several)["tokenizer"] = Wrong()
    dataset, rows = open_dataset([data], Columns("messages", "dataset_source")), np.arange(20)
    if wrong:
        with pytest.raises(EmbedkitError, match=r"^row \d+: wrong 1\.0 gives other token ids than "):
            several.make(PartRows(7, 0, rows), read_rows(dataset, rows))
        assert not maker.run.part_data(7).exists()
    else:
        part = several.make(PartRows(7, 0, rows), read_rows(dataset, rows))
        assert (part.manifest.audited, part.manifest.tokenizer) == (20, "wrong 1.0")
