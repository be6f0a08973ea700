"""Which engines may work on one run, and what is typed where they differ, field by field."""

import msgspec
import pytest

from embedkit.documents import FORMAT, EngineRecord, Plan, Preflight, RunConfig, ShardManifest, read, write
from embedkit.embed import same_engine
from embedkit.embed.same_engine import (
    EngineCheck,
    Reference,
    finished_engine,
    known_before_start,
    preflight_engine,
    refused_fields,
)
from embedkit.errors import EngineDiffers, GpuDiffers
from embedkit.job import JobContext
from embedkit.run import RunFolder
from tests.support.reseal import reseal

RECORD = EngineRecord(
    engine="vllm",
    engine_version="0.24.0",
    torch="2.11.0+cu128",
    cuda="12.8",
    gpu="NVIDIA H100",
    attention="flash",
    compile="full",
    dtype="bfloat16",
    token_budget=100,
    dim=8,
)
OTHERS: dict[str, object] = {
    "engine": "transformers",
    "engine_version": "0.25.0",
    "torch": "2.12.0",
    "cuda": "13.0",
    "gpu": "NVIDIA H200",
    "attention": "sdpa",
    "compile": "none",
    "dtype": "float16",
    "token_budget": 90,
    "dim": 9,
}


def other(**changes: object) -> EngineRecord:
    return msgspec.structs.replace(RECORD, **changes)


@pytest.fixture
def run(small_prepared: RunFolder, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setattr("embedkit.job._current", JobContext(node="n1"))
    return small_prepared


def check(run: RunFolder, shard: int | None = 2, allow_mixed: bool = False, is_preflight: bool = False) -> EngineCheck:
    return EngineCheck(run, Reference(RECORD, "shard 3, embedded on n7,", is_preflight), shard, allow_mixed)


@pytest.mark.parametrize("field", OTHERS)
def test_every_field_of_a_record_is_compared(field: str) -> None:
    assert set(OTHERS) == set(EngineRecord.__struct_fields__)
    changed = other(**{field: OTHERS[field]})
    assert refused_fields(RECORD, changed) == (field,)
    assert refused_fields(RECORD, changed, allow_mixed=True) == (("dim",) if field == "dim" else ())
    assert refused_fields(RECORD, other()) == ()


RESUME = "embedkit run --resume --run-name run --output-dir {}"
CERTIFY = "to find out whether this engine gives the same vectors: embedkit certify "
STOPS = "shard 2 stops here: merge refuses shards that different engines made"
ENVIRONMENT = "the environment has changed, so no node is excluded: install the earlier versions again, then type "


def message(run: RunFolder, error: BaseException) -> list[str]:
    return str(error).replace(RESUME.format(run.path.parent), "RESUME").split("\n")


def test_other_versions_ask_for_the_earlier_ones(run: RunFolder) -> None:
    with pytest.raises(EngineDiffers) as error:
        check(run).started(other(torch="2.12.0", engine_version="0.25.0"))
    assert message(run, error.value) == [
        "n1 has vllm 0.25.0, torch 2.12.0; shard 3, embedded on n7, had vllm 0.24.0, torch 2.11.0+cu128",
        STOPS,
        f"{ENVIRONMENT}RESUME",
        f"{CERTIFY}{run.path} --engine-now",
        "to accept both: RESUME --allow-mixed",
    ]


def test_another_gpu_asks_for_gpus_of_one_model(run: RunFolder) -> None:
    with pytest.raises(GpuDiffers) as error:
        check(run).started(other(gpu="NVIDIA H200", cuda="13.0"))
    small = "to accept both (vectors of two GPU models differ by about 0.0001 in cosine): RESUME --allow-mixed"
    assert message(run, error.value) == [
        "n1 has CUDA 13.0, GPU NVIDIA H200; shard 3, embedded on n7, had CUDA 12.8, GPU NVIDIA H100",
        STOPS,
        "on GPUs of one model: set CUDA_VISIBLE_DEVICES to them, then type RESUME",
        f"{CERTIFY}{run.path} --engine-now",
        small,
    ]
    run.submissions.touch()
    with pytest.raises(GpuDiffers) as error:
        check(run, is_preflight=True).started(other(gpu=""))
    again = f"embedkit rerun {run.path}"
    assert str(error.value).split("\n") == [
        "n1 has GPU (none); shard 3, embedded on n7, had GPU NVIDIA H100",
        STOPS,
        f"on other nodes: {again} (it excludes n1)",
        "to get one GPU model only: name it in the profile's [embed], with gres or constraint",
        f"if the preflight had the wrong GPU: {again} --preflight",
        small.replace("RESUME", again),
    ]


@pytest.mark.parametrize(("budget", "whose"), [(90, "its GPU has"), (110, "the other GPU had")])
def test_less_free_memory_is_named(budget: int, whose: str, run: RunFolder) -> None:
    run.submissions.touch()
    with pytest.raises(GpuDiffers) as error:
        check(run).started(other(token_budget=budget))
    again = f"embedkit rerun {run.path}"
    assert str(error.value).split("\n") == [
        f"n1 has token budget {budget}; shard 3, embedded on n7, had token budget 100",
        STOPS,
        f"{whose} less free memory, so batches are smaller: `nvidia-smi` there shows what uses it",
        f"on other nodes: {again} (it excludes n1)",
        f"{CERTIFY}{run.path} --engine-now",
        f"to accept both: {again} --allow-mixed",
    ]


def test_what_is_allowed_is_logged_and_a_dimension_is_not(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    allowing = check(run, allow_mixed=True)
    allowing.started(other(gpu="NVIDIA H200"))
    assert caplog.messages == [
        "n1 has GPU NVIDIA H200; shard 3, embedded on n7, had GPU NVIDIA H100; embedded all the same, because of "
        "--allow-mixed"
    ]
    caplog.clear()
    allowing.started(RECORD)
    assert caplog.messages == []
    with pytest.raises(EngineDiffers) as error:
        allowing.started(other(dim=9, gpu="NVIDIA H200"))
    assert message(run, error.value) == [
        "n1 has dim 9; shard 3, embedded on n7, had dim 8",
        STOPS,
        f"{ENVIRONMENT}RESUME",
    ]


def test_a_preflight_names_itself_and_compiles_as_it_likes(run: RunFolder) -> None:
    check(run, shard=None).started(other(compile="none"))
    check(run, is_preflight=True).started(other(compile="none"))
    with pytest.raises(EngineDiffers, match="n1 has compile none"):
        check(run).started(other(compile="none"))
    with pytest.raises(EngineDiffers, match="the preflight stops here"):
        check(run, shard=None).started(other(torch="2.12.0"))
    nothing = EngineCheck(run, None, 2, allow_mixed=False)
    nothing.started(other(dim=9))
    nothing.before_start(read(run.config, RunConfig).request)


@pytest.mark.parametrize(
    ("known", "differs"),
    [
        ({}, False),
        ({"engine_version": "0.24.0", "torch": "2.11.0"}, False),
        ({"torch": "2.11.0+cpu"}, False),
        ({"torch": "2.12.0+cu128"}, True),
        ({"engine_version": "0.25.0"}, True),
        ({"gpu": "NVIDIA H100"}, False),
        ({"gpu": "NVIDIA H200"}, True),
    ],
)
def test_what_is_known_is_compared_before_the_start(
    known: dict[str, str], differs: bool, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions without their build, which may be spelled differently."""
    monkeypatch.setattr(same_engine, "known_before_start", lambda request: known)
    request = read(run.config, RunConfig).request
    check(run, allow_mixed=True).before_start(request)
    if not differs:
        check(run).before_start(request)
        return
    with pytest.raises(EngineDiffers):
        check(run).before_start(request)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_packages_and_the_gpu_are_known_without_an_import(
    device: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"vllm": "0.24.0", "torch": "2.11.0", "transformers": "5.0"}
    monkeypatch.setattr(same_engine, "importable_version", found.get)
    monkeypatch.setattr(same_engine, "gpu_name", lambda: "NVIDIA H100")
    request = msgspec.structs.replace(read(run.config, RunConfig).request, device=device)
    gpu = {"gpu": "NVIDIA H100"} if device == "cuda" else {}

    def known(engine: str) -> dict[str, str]:
        return known_before_start(msgspec.structs.replace(request, engine=engine))

    assert known("vllm") == {"engine_version": "0.24.0", "torch": "2.11.0"} | gpu
    assert known("transformers") == {"engine_version": "5.0", "torch": "2.11.0"} | gpu
    assert known("hash") == {}
    monkeypatch.setattr(same_engine, "gpu_name", lambda: "")
    found["torch"] = ""
    assert known("vllm") == {"engine_version": "0.24.0"}


# Where the record to compare with is from


def test_the_first_finished_shard_decides(small_embedded: RunFolder) -> None:
    run = small_embedded
    plan = read(run.plan, Plan)
    manifests = [read(run.shard_manifest(shard), ShardManifest) for shard in range(3)]
    for name in ("notes", "00007", "99"):
        (run.shard(0).parent / name).mkdir()
        (run.shard(0).parent / name / "manifest.json").write_bytes(b"{}")
    assert finished_engine(run, plan) == Reference(manifests[0].engine, f"shard 0, embedded on {manifests[0].host},")
    run.shard_manifest(0).write_bytes(b"{}")
    reseal(run.shard_manifest(1), ShardManifest, tokens=1)
    found = finished_engine(run, plan)
    assert found is not None
    assert found.source == f"shard 2, embedded on {manifests[2].host},"
    run.shard_manifest(2).unlink()
    assert finished_engine(run, plan) is None
    assert finished_engine(RunFolder(run.path / "gone"), plan) is None


def test_a_preflight_counts_for_its_own_request(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    plan = read(run.plan, Plan)
    assert preflight_engine(run, plan) is None
    report = Preflight(
        format=FORMAT, request_sha256=plan.request_sha256, engine=RECORD, job="1", host="n4", start_seconds=1.0
    )
    write(run.preflight, report)
    assert preflight_engine(run, plan) == Reference(RECORD, "the preflight on n4", is_preflight=True)
    write(run.preflight, msgspec.structs.replace(report, request_sha256="0" * 64))
    assert preflight_engine(run, plan) is None
    assert caplog.messages == []
    run.preflight.write_bytes(b"{}")
    assert preflight_engine(run, plan) is None
    assert caplog.messages[0].startswith(f"not compared with the preflight: {run.preflight}: its bytes are not")
