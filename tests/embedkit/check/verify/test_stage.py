"""What the report says at each stage of a run, and how far verify goes when something is missing."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedkit.check.verify import Problem, verify
from embedkit.check.verify.reembed import _sampled_ids
from embedkit.documents import DataIndex, Plan, RunConfig, ShardManifest, Success, matrix_header, read
from embedkit.documents.codec import file_record
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from tests.support.reseal import reseal, reseal_chunk, reseal_matrix, reseal_vectors, shard_path


def found(run: RunFolder) -> list[tuple[str, str, str]]:
    return [(problem.file, problem.what, problem.fix) for problem in verify(run).problems]


def size(*patterns: str, run: RunFolder) -> int:
    return sum(path.stat().st_size for pattern in patterns for path in run.path.glob(pattern))


def test_the_report_of_each_stage(small: RunFolder) -> None:
    """Counts are of what was checked, bytes of the parts, the shards and the merged files that documents name."""
    run, parts = small, size("extracted_data.parquet/*", "parts/keys-*", run=small)
    shards = size("embeddings/shards/*/*.safetensors", run=run)
    merged = sum(record.bytes for record in read(run.success, Success).files)
    report = verify(run, seed=7)
    assert report.ok
    assert (report.run, report.stage, report.reembed_seed, report.reembedded) == (str(run.path), "done", 7, 0)
    assert (report.rows, report.shards_finished, report.shards) == (76, 3, 3)
    assert report.bytes_read == parts + shards + merged
    run.success.unlink()
    report = verify(run)
    assert (report.stage, report.shards_finished, report.bytes_read) == ("merge", 3, parts + shards)
    run.shard_manifest(2).unlink()
    report = verify(run)
    assert (report.stage, report.shards_finished, report.shards, report.ok) == ("embed", 2, 3, True)
    shutil.rmtree(run.embeddings)
    report = verify(run)
    assert (report.stage, report.rows, report.shards_finished, report.bytes_read) == ("embed", 76, 0, parts)
    run.plan.unlink()
    report = verify(run)
    assert (report.stage, report.rows, report.shards_finished, report.shards) == ("prepare", 0, 0, 0)
    assert report.ok
    assert report.bytes_read == size("parts/keys-*", run=run)
    shutil.rmtree(run.parts)
    assert verify(run).ok


def test_a_report_with_a_problem_is_not_ok() -> None:
    report = verify(RunFolder(Path("/no/such run")))
    assert not report.ok
    assert report.problems == (
        Problem(
            file="run_config.json",
            what="/no/such run/run_config.json: no such file",
            fix="put back a copy of /no/such run/run_config.json; without one, start a new run",
        ),
    )


def test_a_configuration_of_a_newer_version_is_not_repaired(small_prepared: RunFolder) -> None:
    run = small_prepared
    reseal(run.config, RunConfig, format=3)
    (problem,) = found(run)
    assert problem[0] == "."
    assert problem[1].startswith(f"{run.config}: it has format 3; this embedkit reads format 2")


def test_seeds_are_drawn_anew_where_none_is_given(small_prepared: RunFolder) -> None:
    assert len({verify(small_prepared).reembed_seed for _ in range(3)}) == 3
    assert verify(small_prepared, seed=0).reembed_seed == 0


def test_a_request_that_neither_index_nor_plan_was_made_for(small: RunFolder) -> None:
    """Only if both agree is it the configuration that is wrong; nothing else is compared then."""
    run = small
    for sha256 in ("0" * 64, "1" * 64):
        reseal(run.plan, Plan, request_sha256=sha256)
        if sha256[0] == "0":
            reseal(run.data_index, DataIndex, request_sha256=sha256)
            what = f"{run.plan} and {run.data_index} were made for a different request"
            assert found(run) == [("run_config.json", what, run.restore_config)]
    assert {file for file, _, _ in found(run)} >= {"plan.json", "parts/index.json"}
    assert "run_config.json" not in {file for file, _, _ in found(run)}


@pytest.mark.parametrize("damaged", ["plan", "data_index"])
def test_one_of_the_two_suffices_to_know_the_request(damaged: str, small_prepared: RunFolder) -> None:
    run = small_prepared
    reseal(run.plan, Plan, request_sha256="0" * 64)
    reseal(run.data_index, DataIndex, request_sha256="0" * 64)
    getattr(run, damaged).write_bytes(b"{}")
    what = f"{run.plan} and {run.data_index} were made for a different request"
    assert found(run) == [("run_config.json", what, run.restore_config)]


LOST = "missing, though later stages were done"


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (("plan",), ["plan.json"]),
        (("plan", "success"), ["plan.json"]),
        (("plan", "shards"), ["plan.json"]),
        (("plan", "shards", "success"), []),
        (("data_index",), ["parts/index.json"]),
        (("data_index", "plan"), ["parts/index.json", "plan.json"]),
        (("data_index", "plan", "success"), ["parts/index.json", "plan.json"]),
        (("data_index", "plan", "shards"), ["parts/index.json", "plan.json"]),
        (("data_index", "shards", "success"), ["parts/index.json"]),
        (("data_index", "plan", "shards", "success"), []),
    ],
)
def test_a_document_is_lost_if_a_later_one_exists(small: RunFolder, gone: tuple[str, ...], named: list[str]) -> None:
    run = small
    run.submissions.touch()
    for name in gone:
        shutil.rmtree(run.embeddings / "shards") if name == "shards" else getattr(run, name).unlink()
    assert [one for one in found(run) if one[1] == LOST] == [(file, LOST, run.prepare_command) for file in named]


def test_a_damaged_plan_is_named_with_the_command_of_prepare(small: RunFolder) -> None:
    run = small
    run.submissions.touch()
    run.plan.write_bytes(b"{}")
    assert [(file, fix) for file, _, fix in found(run)] == [("plan.json", run.prepare_command)]


def test_a_damaged_success_leaves_the_shards_to_be_checked(small: RunFolder) -> None:
    run = small
    run.success.write_bytes(b"{}")
    reseal_chunk(run, 1, 0, inputs_sha256="0" * 64)
    report = verify(run)
    assert report.stage == "merge"
    assert [problem.file for problem in report.problems] == [
        "embeddings/_SUCCESS.json",
        "embeddings/shards/00001/manifest.json",
    ]


# verify --reembed


def test_rows_of_each_shard_are_embedded_again(small_embedded: RunFolder) -> None:
    run = small_embedded
    assert verify(run, reembed=4).reembedded == 12
    run.shard_manifest(0).unlink()
    report = verify(run, reembed=100)
    assert (report.reembedded, report.ok) == (50, True)


def spoil(run: RunFolder, shard: int, at: int) -> None:
    """Turn a vector of the response around, and seal everything over it."""
    path, manifest = shard_path(run, shard, "response"), read(run.shard_manifest(shard), ShardManifest)
    rows = manifest.stop - manifest.start
    data = bytearray(path.read_bytes())
    vectors = np.frombuffer(data, "<f4", offset=len(matrix_header(rows, 64))).reshape(rows, 64)
    vectors[at] = -vectors[at]
    path.write_bytes(data)
    reseal_matrix(run, shard, "response", file=file_record(path))
    for number, chunk in enumerate(manifest.chunks):
        if chunk.start <= manifest.start + at < chunk.stop:
            piece = vectors[chunk.start - manifest.start : chunk.stop - manifest.start].tobytes()
            reseal_vectors(run, shard, number, "response", sha256=hashlib.sha256(piece).hexdigest())


def test_a_vector_that_is_not_its_texts_is_named(small_embedded: RunFolder) -> None:
    run = small_embedded
    spoil(run, 1, 20)
    assert verify(run).ok
    report = verify(run, reembed=25)
    (problem,) = report.problems
    assert (problem.file, problem.shard) == (shard_path(run, 1, "response").relative_to(run.path).as_posix(), 1)
    start = read(run.plan, Plan).shards[1].start
    assert f"(id {start + 20}): its stored vector differs from a new one (view response, 1 - cosine 2)" in problem.what
    assert problem.fix == f"rm -r {run.shard(1)} && {run.resume_command}"


def test_chunks_of_other_inputs_are_named_by_their_ids(small_embedded: RunFolder) -> None:
    run = small_embedded
    reseal_chunk(run, 2, 1, inputs_sha256="0" * 64)
    chunk = read(run.shard_manifest(2), ShardManifest).chunks[1]
    problems = verify(run, reembed=26).problems
    what = f"ids {chunk.start} to {chunk.stop - 1} were embedded from different tokens"
    again = [problem for problem in problems if problem.file == "embeddings/shards/00002"]
    fix = f"rm -r {run.shard(2)} && {run.resume_command}"
    assert again == [Problem(file="embeddings/shards/00002", shard=2, what=what, fix=fix)]


def test_a_shard_without_its_file_is_not_embedded_again(small_embedded: RunFolder) -> None:
    run = small_embedded
    shard_path(run, 0).unlink()
    path = shard_path(run, 1, "response")
    path.write_bytes(path.read_bytes()[:-4])
    report = verify(run, reembed=2)
    assert report.reembedded == 2
    assert [problem.shard for problem in report.problems] == [0, 1]


def test_the_model_must_be_there_to_embed_again(small_embedded: RunFolder) -> None:
    run = small_embedded
    reseal(run.config, RunConfig, locations=lambda c: type(c.locations)(data=c.locations.data, model="/no model"))
    assert verify(run).ok
    (problem,) = verify(run, reembed=1).problems
    assert "/no model" in problem.what


def test_the_seed_chooses_the_rows(small_run: RunFolder) -> None:
    """Ascending ids of the shard, the same for a seed, different for others."""
    manifest = read(small_run.shard_manifest(1), ShardManifest)
    samples = [_sampled_ids(manifest, 5, seed) for seed in (1, 1, 2, 3)]
    assert samples[0] == samples[1]
    assert len({tuple(sample) for sample in samples}) == 3
    for sample in samples:
        assert sample == sorted(set(sample))
        assert len(sample) == 5
        assert all(manifest.start <= i < manifest.stop for i in sample)
    assert _sampled_ids(manifest, 99, 1) == list(range(manifest.start, manifest.stop))


def test_an_error_of_the_engine_ends_the_checks_with_a_problem(
    small_embedded: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is closed all the same."""
    closed = []

    class Failing:
        record = None

        def embed(self, token_ids: object) -> None:
            raise EmbedkitError("no more memory")

        def close(self) -> None:
            closed.append(1)

    monkeypatch.setattr("embedkit.check.verify.reembed.start_engine", lambda *_: Failing())
    assert found(small_embedded) == []
    (problem,) = verify(small_embedded, reembed=1).problems
    assert (problem.file, problem.what) == (".", "no more memory")
    assert closed == [1]
