"""Copied texts that are not those of the rows from which they are copied, under right digests."""

from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from embedkit.check.verify import verify
from embedkit.documents import PartManifest, Plan, RunConfig, read
from embedkit.documents.codec import file_record
from embedkit.embed import embed_shards
from embedkit.merge import merge
from embedkit.prepare import prepare
from embedkit.request import Options, create_run, make_config
from embedkit.row_keys import Copies, read_copies
from embedkit.run import RunFolder
from tests.support.reseal import reseal


@pytest.fixture
def copying(small: RunFolder, tmp_path: Path) -> RunFolder:
    """A prepared run of one shard and part that copies all vectors of `small`."""
    config = read(small.config, RunConfig)
    options = Options(
        dataset=config.locations.data,
        model=config.locations.model,
        engine="hash",
        max_length=256,
        views=("combined", "response"),
        sample_size=None,
        shards=1,
        reuse=(str(small.path),),
    )
    run = RunFolder(tmp_path / "next")
    create_run(run, make_config(options, ["embedkit", "run"]))
    assert prepare(run, workers=1).tokens_to_embed == 0
    return run


def finish(run: RunFolder) -> None:
    embed_shards(run, [0])
    merge(run)


def change_copies(run: RunFolder, place: int, name: int) -> None:
    """Copy the first view of the row at a place from another row, with its vector's key, in all documents."""
    plan = read(run.plan, Plan)
    (part,) = plan.parts
    assert part.copies is not None
    copies = read_copies(run.part_copies(0), part.copies, part.rows, 2)
    ids, vectors = np.array(copies.ids), np.array(copies.vectors)
    ids[place, 0], vectors[place, 0] = name, vectors[name % part.rows, 0]
    run.part_copies(0).write_bytes(Copies(copies.runs, ids, vectors).to_bytes())
    record = file_record(run.part_copies(0))
    reseal(run.part_manifest(0), PartManifest, copies=record)
    reseal(run.plan, Plan, parts=(structs.replace(part, copies=record),))


def test_a_copy_of_a_different_text_is_found(copying: RunFolder, small: RunFolder) -> None:
    """Its vector is that of the row which it names, here and in the earlier run, so only the text is wrong."""
    run = copying
    change_copies(run, 3, 8)
    finish(run)
    (problem,) = verify(run).problems
    assert problem.file == "parts/copies-00000.safetensors"
    what = f"id 3 is copied from id 8 of {small.path}, which has a different text (view combined, 1 such)"
    assert problem.what == what
    assert problem.fix == f"rm {run.part_manifest(0)} {run.plan} && {run.prepare_command}"
    run.part_manifest(0).unlink()
    run.plan.unlink()
    prepare(run, workers=1)
    finish(run)
    assert verify(run).ok


@pytest.mark.parametrize("name", [-1, 10_000])
def test_a_copy_of_no_row_is_found(copying: RunFolder, small: RunFolder, name: int) -> None:
    run = copying
    finish(run)
    change_copies(run, 3, name)
    found = {problem.file: problem.what for problem in verify(run).problems}
    assert found["parts/copies-00000.safetensors"].startswith(f"id 3 is copied from id {name} of {small.path}, which ")


def test_damaged_keys_of_the_earlier_run_are_named(copying: RunFolder, small: RunFolder) -> None:
    """Without them texts cannot be compared. An earlier run that is gone is not missed."""
    run = copying
    finish(run)
    assert verify(run).ok
    small.part_keys(2).write_bytes(b"")
    (problem,) = verify(run).problems[:1]
    assert problem.file == str(small.path)
    assert f"its row keys cannot be read: {small.part_keys(2)}" in problem.what
    assert problem.fix == small.command("verify")
    small.success.unlink()
    assert verify(run).ok
