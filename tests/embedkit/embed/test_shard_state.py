"""Whether a shard's manifest counts: status, rerun, reports, verify and embed give one answer."""

import shutil
from collections.abc import Callable

import msgspec
import pytest

from embedkit.check.status import StatusReader
from embedkit.check.verify import verify
from embedkit.documents.codec import digest, read, write
from embedkit.documents.schema import FORMAT, RunConfig, ShardManifest
from embedkit.embed.publish import finished_manifest
from embedkit.embed.shard_state import NOT_FINISHED, ShardStates, shard_state
from embedkit.merge.checks import reject
from embedkit.prepare.plan import read_plan
from embedkit.run import RunFolder
from jobs.report.collect import read_inputs
from jobs.submit.state import read_state


def change(run: RunFolder, **changes: object) -> None:
    path = run.shard_manifest(1)
    write(path, msgspec.structs.replace(read(path, ShardManifest), **changes))


def of_another_request(run: RunFolder) -> None:
    other = msgspec.structs.replace(read(run.config, RunConfig).request, max_length=99)
    change(run, request=other, request_sha256=digest(other))


def with_other_chunks(run: RunFolder) -> None:
    first, second, *others = read(run.shard_manifest(1), ShardManifest).chunks
    joined = msgspec.structs.replace(first, stop=second.stop, tokens=first.tokens + second.tokens)
    change(run, chunks=(joined, *others))


def rejected_by_merge(run: RunFolder) -> None:
    reject(run, {1: "its canary is far away"}, [read(run.shard_manifest(1), ShardManifest)], remake=True)


def cut_matrix(run: RunFolder) -> None:
    path = next(run.shard(1).glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-4])


FAULTS: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "matrix deleted": (lambda run: next(run.shard(1).glob("*.safetensors")).unlink(), ".safetensors: missing"),
    "matrix cut short": (cut_matrix, "bytes, its manifest says"),
    "another request": (of_another_request, "its manifest was made for another request"),
    "other chunks": (with_other_chunks, "its manifest has different chunks than the plan"),
    "other tokens": (lambda run: change(run, tokens=1), "its manifest counts 1 tokens, the plan"),
    "another plan": (lambda run: change(run, plan_sha256="0" * 64), "its manifest belongs to another plan"),
    "another shard's": (
        lambda run: shutil.copy(run.shard_manifest(0), run.shard_manifest(1)),
        "its manifest is that of shard 0",
    ),
    "damaged": (lambda run: run.shard_manifest(1).write_bytes(b"{}"), "not those that were written"),
    "newer": (lambda run: change(run, format=FORMAT + 1), f"it has format {FORMAT + 1}"),
    "rejected by merge": (rejected_by_merge, "merge rejected it: its canary is far away"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_all_commands_agree_that_a_shard_is_not_done(
    fault: str, damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` and `rerun` even give the same reason."""
    run = damaged_run
    spoil, reason = FAULTS[fault]
    spoil(run)
    config = read(run.config, RunConfig)
    monkeypatch.setattr("jobs.records.live.queue", list)
    status = StatusReader(run).read()
    assert [shard.state == "done" for shard in status.shards] == [True, False, True]
    assert status.stage == "embed"
    assert (status.shards[1].rows_done == 0) == (fault == "matrix deleted")  # what can be adopted still counts
    problems = read_state(run, config, 3).problems
    assert problems == {1: status.shards[1].problem}
    assert reason in problems[1]
    assert sorted(read_inputs(run).manifests) == [0, 2]
    assert any(problem.shard == 1 and reason in problem.what for problem in verify(run).problems)
    assert shard_state(run, read_plan(run, config), 1, "bytes").manifest is None


def test_a_missing_manifest_is_no_problem_for_status(damaged_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged_run.shard_manifest(1).unlink()
    monkeypatch.setattr("jobs.records.live.queue", list)
    assert StatusReader(damaged_run).read().shards[1].problem is None
    assert read_state(damaged_run, read(damaged_run.config, RunConfig), 3).problems == {1: NOT_FINISHED}


def test_only_the_depth_bytes_sees_a_flipped_byte(damaged_run: RunFolder) -> None:
    path = next(damaged_run.shard(1).glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    plan = read_plan(damaged_run, read(damaged_run.config, RunConfig))
    states = ShardStates(damaged_run, plan)
    assert [states.state(1, depth).manifest is not None for depth in ("manifest", "sizes", "bytes")] == [
        True,
        True,
        False,
    ]
    assert finished_manifest(damaged_run, plan, 1) is None
    assert (damaged_run.shard(1) / "refused.json").exists()


@pytest.mark.parametrize("remake", [True, False])
def test_reading_the_bytes_decides_what_merge_refused_for_them(remake: bool, damaged_run: RunFolder) -> None:
    """`remake` says that merge refused the vectors; else it was the bytes, and they may be right again."""
    manifest = read(damaged_run.shard_manifest(1), ShardManifest)
    reject(damaged_run, {1: "sha256 differs"}, [manifest], remake=remake)
    plan = read_plan(damaged_run, read(damaged_run.config, RunConfig))
    states = ShardStates(damaged_run, plan)
    assert [states.state(1, depth).manifest is not None for depth in ("manifest", "sizes", "bytes")] == [
        False,
        False,
        not remake,
    ]
    assert verify(damaged_run).ok != remake


def test_status_follows_what_merge_refuses(damaged_run: RunFolder) -> None:
    """Also for shards that the same reader saw done before."""
    reader = StatusReader(damaged_run)
    assert reader.read().stage == "done"
    rejected_by_merge(damaged_run)
    assert [shard.state == "done" for shard in reader.read().shards] == [True, False, True]
    damaged_run.rejected.unlink()
    assert reader.read().stage == "done"
