"""Certificates: made by the real engine, and what embed, merge, verify and --reuse take them for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from embedkit.certificates import Certified, read_certificates
from embedkit.check.verify import verify
from embedkit.diff.certify import certify
from embedkit.documents import Certificate, EngineRecord, Plan, RunConfig, ShardManifest, Success, digest, read
from embedkit.embed import ShardStates, embed_shards
from embedkit.errors import EmbedkitError, EngineDiffers
from embedkit.merge import merge
from embedkit.run import RunFolder
from tests.conftest import ROOT, embedkit
from tests.support.planted import plant_in_shard, shard_vectors, shifted
from tests.support.reseal import reseal


def give_engine(run: RunFolder, *shards: int, **changes: object) -> None:
    """Say that other hardware made these shards."""
    for shard in shards:
        reseal(run.shard_manifest(shard), ShardManifest, engine=lambda m: msgspec.structs.replace(m.engine, **changes))


def engine_of(run: RunFolder, shard: int) -> EngineRecord:
    return read(run.shard_manifest(shard), ShardManifest).engine


def test_same_vectors_pass_and_are_written_down(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, 1, 2, gpu="old")
    certificate, path = certify(run, rows=40, seed=3)
    assert certificate.passed
    assert path == run.path / "certificates" / "001.json"
    assert read(path, Certificate) == certificate
    assert certificate.engine == msgspec.structs.replace(engine_of(run, 0), gpu="")
    assert (certificate.rows, certificate.seed, certificate.plan_sha256) == (40, 3, digest(read(run.plan, Plan)))
    (compared,) = certificate.compared
    assert (compared.engine.gpu, compared.shards, compared.rows) == ("old", (0, 1, 2), 40)
    assert compared.views.keys() == {"combined", "response"}
    assert compared.views["combined"].rows == 40
    assert compared.views["combined"].worst == 0


def test_no_certificate_is_overwritten(small_embedded: RunFolder) -> None:
    _, first = certify(small_embedded, rows=5)
    before = first.read_bytes()
    _, second = certify(small_embedded, rows=5)
    assert (second.name, first.read_bytes()) == ("002.json", before)


def test_shift_in_one_engines_shards_fails(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 1, gpu="old")
    plant_in_shard(run, 1, "combined", shifted(shard_vectors(run, 1, "combined"), 1e-4))
    certificate, _ = certify(run, rows=40)
    assert not certificate.passed
    assert {compared.engine.gpu: compared.passed for compared in certificate.compared} == {"": True, "old": False}
    with pytest.raises(EmbedkitError, match="the shards were made on different engines"):
        merge(run)


def test_unfinished_run_is_certified_by_its_finished_shards(small_embedded: RunFolder) -> None:
    run = small_embedded
    shutil.rmtree(run.shard(1))
    certificate, _ = certify(run, rows=500)
    assert certificate.compared[0].shards == (0, 2)
    assert certificate.compared[0].rows == sum(
        shard.stop - shard.start for i, shard in enumerate(read(run.plan, Plan).shards) if i != 1
    )


def test_run_without_shards_cannot_be_certified(small_prepared: RunFolder) -> None:
    with pytest.raises(EmbedkitError, match="no shard is finished, so there is nothing to compare: embedkit run"):
        certify(small_prepared)
    assert not small_prepared.certificates.exists()


def test_another_dimension_is_refused(small_embedded: RunFolder) -> None:
    run = small_embedded
    for shard in range(3):
        path = run.shard_manifest(shard)
        reseal(
            path,
            ShardManifest,
            engine=lambda m: msgspec.structs.replace(m.engine, dim=32),
            matrices=lambda m: {
                view: msgspec.structs.replace(x, shape=(x.shape[0], 32)) for view, x in m.matrices.items()
            },
        )
    with pytest.raises(EmbedkitError, match="gives vectors of 64 numbers, the shards have 32"):
        certify(run)


# What a certificate is good for


def test_merge_takes_two_certified_engines_and_says_so(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, 1, gpu="old")
    with pytest.raises(EmbedkitError, match=r"embedkit certify .* --engine-now"):
        merge(run)
    assert ShardStates(run, read(run.plan, Plan)).read_all("manifest")[1].keys() == {2}
    certificate, _ = certify(run, rows=40)
    assert ShardStates(run, read(run.plan, Plan)).read_all("manifest")[1] == {}  # rerun makes none again
    success = merge(run)
    assert (success.certificates, success.mixed_engines_allowed) == ((digest(certificate),), False)
    assert {engine.gpu for engine in success.engines} == {"", "old"}
    assert merge(run) == success
    assert verify(run).ok


def test_success_without_certificates_is_as_before(small_run: RunFolder) -> None:
    """A document of an earlier version keeps its digest: the field is not written."""
    assert b"certificates" not in small_run.success.read_bytes()


def test_third_engine_needs_a_certificate_too(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, gpu="old")
    certify(run, rows=40)
    give_engine(run, 1, gpu="third")
    with pytest.raises(EmbedkitError, match="the shards were made on different engines"):
        merge(run)


def test_failed_certificate_proves_nothing(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, 1, gpu="old")
    _, path = certify(run, rows=40)
    reseal(path, Certificate, passed=False)
    with pytest.raises(EmbedkitError, match="the shards were made on different engines"):
        merge(run)


def test_certificate_of_another_plan_proves_nothing(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, 1, gpu="old")
    _, path = certify(run, rows=40)
    reseal(path, Certificate, plan_sha256="0" * 64)
    with pytest.raises(EmbedkitError, match="the shards were made on different engines"):
        merge(run)


def test_flipped_byte_in_a_certificate_is_named(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, 1, gpu="old")
    _, path = certify(run, rows=40)
    whole = path.read_bytes()
    for place in (0, 30, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(EmbedkitError, match=r"001\.json: its bytes are not those that were written") as error:
            merge(run)
        assert f"rm {path}, then type embedkit certify {run.path} --engine-now" in str(error.value)
        problems = {problem.file: problem for problem in verify(run).problems}
        assert problems["certificates/001.json"].fix == f"rm {path}"
    assert not run.success.exists()


def test_merged_run_misses_a_certificate_that_is_gone(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, 1, gpu="old")
    _, path = certify(run, rows=40)
    merge(run)
    assert verify(run).ok
    reseal(path, Certificate, seed=7)
    assert not verify(run).ok
    path.unlink()
    whats = {problem.file: problem.what for problem in verify(run).problems}
    assert whats["embeddings/_SUCCESS.json"] == "names 1 certificates that the run does not have"
    assert "shards were made on different engines" in whats["embeddings"]


def test_embed_goes_on_with_a_certified_engine(small_embedded: RunFolder) -> None:
    run = small_embedded
    shutil.rmtree(run.shard(1))
    give_engine(run, 0, 2, gpu="old")
    with pytest.raises(EngineDiffers, match="to find out whether this engine gives the same vectors: embedkit certify"):
        embed_shards(run, [1])
    certify(run, rows=40)
    embed_shards(run, [1])
    assert engine_of(run, 1).gpu == ""
    merge(run)


def test_engines_of_a_certificate_agree_both_ways(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, gpu="old")
    certificate, _ = certify(run, rows=40)
    certified = Certified.of_run(run)
    old, new = engine_of(run, 0), engine_of(run, 1)
    assert certified.proof(old, new) == certified.proof(new, old) == certificate
    assert (certified.same_as(old), certified.same_as(new)) == ((new,), (old,))
    assert certified.proof(old, msgspec.structs.replace(new, torch="9")) is None
    assert list(read_certificates(run).values()) == [certificate]


# The command line


def test_command_prints_numbers_and_exits_1_if_it_fails(small_embedded: RunFolder) -> None:
    run = small_embedded
    give_engine(run, 0, 1, 2, gpu="old")
    printed = embedkit("certify", run.path, "--engine-now", "--rows", 50, new_interpreter=True).stdout
    assert "passed: the engine here gives the vectors of the run's shards" in printed
    assert "3 shards, 50 rows sampled, made with another engine (theirs -> here):\n  engine  gpu  old  ->  -" in printed
    assert f"written: {run.certificates / '001.json'}" in printed
    for shard in range(3):
        plant_in_shard(run, shard, "response", shifted(shard_vectors(run, shard, "combined"), 1e-4))
    failed = embedkit("certify", run.path, "--engine-now", "--rows", 50, code=1).stdout
    assert "FAILED: the engine here does not give the vectors of the run's shards" in failed
    assert (run.certificates / "002.json").exists()
    asked = embedkit("certify", run.path, code=2).stderr
    assert (
        f"certify which engine? For the one that is installed here, type embedkit certify {run.path} --engine-now"
        in asked
    )


def test_run_that_may_not_be_written_to_is_refused(small_embedded: RunFolder) -> None:
    """Before the engine starts. Root may write everywhere, unless it gives that up."""
    run = small_embedded
    no_root = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    command = [*no_root, sys.executable, "-m", "jobs", "certify", run.path, "--engine-now"]
    run.path.chmod(0o555)
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    finally:
        run.path.chmod(0o755)
    assert done.stderr.startswith(f"embedkit: {run.path}: you may not write here, and a certificate lies in the run")
    assert f"embedkit certify {run.path} --engine-now here, or to let you write" in done.stderr
    assert done.returncode == 1
    assert not run.certificates.exists()


def test_reuse_across_engines_takes_certified_ones(small: RunFolder, tmp_path: Path) -> None:
    """The old run was made elsewhere: its vectors are copied only after a certificate, and with the flag."""
    old = small
    for shard in range(3):
        give_engine(old, shard, gpu="old")
    reseal(
        old.success,
        Success,
        engines=lambda s: (msgspec.structs.replace(s.engines[0], gpu="old"),),
        shard_manifests=lambda s: {str(i): digest(read(old.shard_manifest(i), ShardManifest)) for i in range(3)},
    )
    where = read(old.config, RunConfig).locations
    views = ("--view", "combined", "--view", "response")
    request = [
        "--dataset",
        *where.data,
        "--model",
        where.model,
        "--engine",
        "hash",
        "--max-length",
        256,
        "--full",
        *views,
    ]
    request += ["--reuse", old.path, "--output-dir", tmp_path, "--run-name", "next", "--shards", 1]
    refused = embedkit("run", *request, code=1).stderr
    assert f"embedkit certify {old.path} --engine-now" in refused
    certify(old, rows=40)
    embedkit("run", *request, "--reuse-across-engines", "--overwrite")
    made = RunFolder(tmp_path / "next")
    assert made.view_matrix("combined").read_bytes() == old.view_matrix("combined").read_bytes()
    (reused,) = read(made.config, RunConfig).request.reuse
    assert [engine.gpu for engine in reused.accepted] == ["old", ""]
    assert [engine.gpu for engine in reused.certified] == [""]
    assert read(made.plan, Plan).tokens_to_embed == 0
    embedkit("update", old.path, "--dataset", *where.data, "--run-name", "updated", "--reuse-across-engines")
    assert read(RunFolder(old.path.parent / "updated").config, RunConfig).request.reuse == (reused,)
