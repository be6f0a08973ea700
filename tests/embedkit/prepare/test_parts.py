"""A part's digests are those of the bytes as they were computed, and its numbers are taken from checked bytes."""

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

import embedkit.prepare.parts
from embedkit.data import read_rows
from embedkit.documents.checked_file import read_checked
from embedkit.documents.codec import digest, file_record, read, write
from embedkit.documents.schema import DataIndex, PartManifest, RunConfig
from embedkit.errors import EmbedkitError
from embedkit.prepare.parts import PartMaker, PartRows
from embedkit.prepare.stage import open_checked
from embedkit.run import RunFolder


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
        part = maker.make(PartRows(1, manifest.start, rows), read_rows(open_checked(maker.config), rows))
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
