"""Which engines may join copied vectors."""

import pytest
from msgspec import structs

from embedkit.documents.codec import read
from embedkit.documents.schema import EngineRecord, Plan, ReusedRun, RunConfig
from embedkit.embed.reused_engine import check_engine, check_known_engine
from embedkit.errors import EngineDiffers, GpuDiffers
from embedkit.run import RunFolder
from embedkit.versions import versions

RECORD = EngineRecord(
    engine="transformers",
    engine_version=versions()["transformers"],
    torch=versions()["torch"],
    cuda="13.0",
    gpu="NVIDIA H200",
    attention="sdpa",
    compile="eager",
    dtype="bfloat16",
    token_budget=65_536,
    dim=1024,
)


def reusing(run: RunFolder, engine: EngineRecord, *certified: EngineRecord) -> tuple[RunConfig, Plan]:
    """The documents of a run, as if it reused a run of this engine, and others were found to agree with it."""
    config, plan = read(run.config, RunConfig), read(run.plan, Plan)
    reuse = (ReusedRun(success_sha256="0" * 64, eager=True, engines=(engine,), certified=certified),)
    request = structs.replace(config.request, engine="transformers", reuse=reuse)
    locations = structs.replace(config.locations, reuse=("/runs/old",))
    return structs.replace(config, request=request, locations=locations), structs.replace(plan, tokens_copied=1)


def test_an_engine_that_differs_is_refused_with_the_difference(hash_run: RunFolder) -> None:
    config, plan = reusing(hash_run, RECORD)
    check_engine(config, RECORD, plan)
    check_engine(config, structs.replace(RECORD, token_budget=8192), plan)  # it decides only what is in a batch
    said = "this engine has GPU NVIDIA H100; the vectors of /runs/old, which .* were made with GPU NVIDIA H200"
    with pytest.raises(GpuDiffers, match=said):
        check_engine(config, structs.replace(RECORD, gpu="NVIDIA H100"), plan)
    with pytest.raises(EngineDiffers, match=r"torch 1\.0, compile compiled; .* torch [2-9.]+\S*, compile eager"):
        check_engine(config, structs.replace(RECORD, torch="1.0", compile="compiled"), plan)


def test_any_of_several_engines_may_join(hash_run: RunFolder) -> None:
    """The one that made the vectors, or one that a certificate found to agree. The error names the nearest."""
    newer = structs.replace(RECORD, engine_version="9", torch="9")
    config, plan = reusing(hash_run, RECORD, newer)
    check_engine(config, newer, plan)
    check_engine(config, RECORD, plan)
    with pytest.raises(EngineDiffers, match=r"this engine has CUDA 12\.0; .* made with CUDA 13\.0"):
        check_engine(config, structs.replace(newer, cuda="12.0"), plan)


def test_versions_are_compared_before_the_engine_starts(hash_run: RunFolder) -> None:
    config, plan = reusing(hash_run, RECORD)
    check_known_engine(config)
    config, plan = reusing(hash_run, structs.replace(RECORD, engine_version="4.0"))
    with pytest.raises(EngineDiffers, match=r"this engine has transformers \d+\.\S+; .* made with transformers 4\.0"):
        check_known_engine(config, plan)
    check_known_engine(config, structs.replace(plan, tokens_copied=0))  # nothing is copied, so nothing is mixed
