"""What merge refuses before it writes: shards of several engines, canaries that moved, shards that do not count."""

import msgspec
import numpy as np
import pytest

from embedkit.check.verify import verify
from embedkit.documents import Rejected, RejectedShard, ShardManifest, Success, digest, read
from embedkit.embed import DIFFERENT_ENGINE
from embedkit.errors import EmbedkitError
from embedkit.merge import merge
from embedkit.run import RunFolder
from tests.support.reseal import reseal


def give_engine(run: RunFolder, *shards: int, **changes: object) -> None:
    for shard in shards:
        path = run.shard_manifest(shard)
        reseal(path, ShardManifest, engine=lambda m: msgspec.structs.replace(m.engine, **changes))


def manifests(run: RunFolder) -> list[ShardManifest]:
    return [read(run.shard_manifest(shard), ShardManifest) for shard in range(3)]


def rejected(run: RunFolder) -> dict[str, RejectedShard]:
    return dict(read(run.rejected, Rejected).shards)


@pytest.mark.parametrize(("changed", "again"), [((0,), [0]), ((2,), [2]), ((1, 2), [0])])
def test_shards_of_the_smaller_groups_are_made_again(
    changed: tuple[int, ...], again: list[int], small_embedded: RunFolder
) -> None:
    run = small_embedded
    give_engine(run, *changed, gpu="other")
    records = [manifest.engine for manifest in manifests(run)]
    with pytest.raises(EmbedkitError) as error:
        merge(run)
    first = [shard for shard in range(3) if records[shard] == records[0]]
    second = [shard for shard in range(3) if records[shard] != records[0]]
    assert str(error.value) == (
        "the shards were made on different engines, whose vectors differ slightly:\n"
        f"  shards {', '.join(map(str, first))}: {records[0]}\n"
        f"  shards {', '.join(map(str, second))}: {records[second[0]]}\n"
        "to find out whether the engine here gives the same vectors as the shards: "
        f"embedkit certify {run.path} --engine-now\n"
        f"to accept this: embedkit merge {run.path} --allow-mixed\nto make shards {', '.join(map(str, again))} again, "
        f"on the engine of the others: {run.resume_command}"
    )
    assert rejected(run) == {
        str(m.shard): RejectedShard(manifest_sha256=digest(m), what=DIFFERENT_ENGINE, remake=True)
        for m in manifests(run)
        if m.shard in again
    }
    assert not run.success.exists()
    assert not run.metadata.exists()


def test_three_engines_leave_one_shard(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 1, gpu="one")
    give_engine(run, 2, gpu="two")
    with pytest.raises(EmbedkitError, match="to make shards 1, 2 again, on the engine of the others"):
        merge(run)
    assert rejected(run).keys() == {"1", "2"}


def test_a_difference_in_the_last_shard_alone_is_seen(small_embedded: RunFolder) -> None:
    """Also if the groups before it agree in all that mixed engines must share."""
    run = small_embedded
    give_engine(run, 1, gpu="one")
    give_engine(run, 2, dim=65)
    reseal(run.shard_manifest(2), ShardManifest, matrices=lambda m: _wider(m))
    with pytest.raises(EmbedkitError, match="different engines"):
        merge(run, allow_mixed=True)


def _wider(manifest: ShardManifest) -> object:
    return {
        view: msgspec.structs.replace(matrix, shape=(matrix.shape[0], 65)) for view, matrix in manifest.matrices.items()
    }


@pytest.mark.parametrize("allow_mixed", [False, True])
def test_success_says_which_engines_were_accepted(allow_mixed: bool, small_embedded: RunFolder) -> None:
    run = small_embedded
    if allow_mixed:
        give_engine(run, 1, gpu="other")
    success = merge(run, allow_mixed=True) if allow_mixed else merge(run)
    assert success.mixed_engines_allowed == allow_mixed
    found = [manifest.engine for manifest in manifests(run)]
    assert success.engines == ((found[0], found[1]) if allow_mixed else (found[0],))
    assert verify(run).ok


def move_canary(run: RunFolder, shard: int, by: float) -> None:
    """Move the canary of a shard by a part of its length."""
    canary = read(run.shard_manifest(shard), ShardManifest).canary
    moved = np.frombuffer(canary.after, "<f4").astype(np.float64) * (1 + by)
    after = moved.astype("<f4").tobytes()
    reseal(run.shard_manifest(shard), ShardManifest, canary=msgspec.structs.replace(canary, after=after))


def test_shards_whose_canary_moved_are_made_again(small_embedded: RunFolder) -> None:
    run = small_embedded
    move_canary(run, 2, 0.5)
    with pytest.raises(EmbedkitError) as error:
        merge(run)
    host = manifests(run)[2].host
    what = f"its canary is 0.5 away (host {host}, job local)"
    assert str(error.value) == (
        "the canary (the same texts in every task) has different vectors in these shards, although the engine is the "
        f"same. The cause may be a bad GPU or a different model:\n  shard 2: {what}\n"
        f"to make them again: {run.resume_command}"
    )
    assert rejected(run) == {"2": RejectedShard(manifest_sha256=digest(manifests(run)[2]), what=what, remake=True)}
    assert not run.success.exists()


def test_shards_that_do_not_count_are_named_together(small_embedded: RunFolder) -> None:
    run = small_embedded
    run.shard_manifest(0).unlink()
    run.shard_manifest(2).write_bytes(b"{}")
    with pytest.raises(EmbedkitError) as error:
        merge(run)
    assert str(error.value) == (
        "2 of 3 shards are missing or damaged:\n  shard 0: not finished\n"
        f"  shard 2: {run.shard_manifest(2)}: its bytes are not those that were written (damaged, or edited by hand)\n"
        f"to make them again: {run.resume_command}"
    )
    assert not run.rejected.exists()


def test_merge_decides_anew_about_shards_that_it_rejected(small_embedded: RunFolder) -> None:
    """The list goes with a merge that succeeds."""
    run = small_embedded
    before = run.shard_manifest(2).read_bytes()
    move_canary(run, 2, 0.5)
    with pytest.raises(EmbedkitError, match="canary"):
        merge(run)
    run.shard_manifest(2).write_bytes(before)
    merge(run)
    assert not run.rejected.exists()
    assert read(run.success, Success).rows == 76
