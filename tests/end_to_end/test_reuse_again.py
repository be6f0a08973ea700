"""Runs that reuse a run which reused one itself, with other engines, prefixes and tokenizer libraries."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from embedkit.certificates import write_certificate
from embedkit.documents import (
    FORMAT,
    Agreement,
    Certificate,
    ComparedEngine,
    EngineRecord,
    PartManifest,
    Plan,
    Request,
    RunConfig,
    ShardManifest,
    Success,
    digest,
    read,
)
from embedkit.merged_run import MergedRun
from embedkit.model import load_tokenizer
from embedkit.prepare.find_copies import CopyFinder, make_lookups
from embedkit.run import RunFolder
from tests.conftest import embedkit, snapshot
from tests.support.reseal import reseal

ROWS = 90


def texts(numbers: Sequence[int]) -> list[str]:
    return [f"{i} river π" + " stone" * (i % 5) for i in numbers]


def request(folder: Path, model: Path, name: str, rows: Sequence[str], *more: object, shards: int = 2) -> list[object]:
    """The options of a run of these texts."""
    data = folder / f"{name}.parquet"
    pl.DataFrame({"text": rows, "source": ["a"] * len(rows)}).write_parquet(data)
    asked: list[object] = ["--dataset", data, "--model", model, "--engine", "hash", "--text-column", "text", "--full"]
    return [
        *asked,
        "--source-column",
        "source",
        "--max-length",
        64,
        "--shards",
        shards,
        "--output-dir",
        folder,
        "--run-name",
        name,
        *more,
    ]


@pytest.fixture(scope="module")
def folder(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run `old` of the texts 0 to 89. Read only."""
    folder = tmp_path_factory.mktemp("again")
    embedkit("run", *request(folder, tokenizer_only, "old", texts(range(ROWS))))
    return folder


@pytest.fixture
def old(folder: Path, tmp_path: Path) -> RunFolder:
    """A copy of the earlier run, to be changed."""
    shutil.copytree(folder / "old", tmp_path / "old")
    return RunFolder(tmp_path / "old")


def merged(run: RunFolder) -> dict[str, bytes]:
    files = snapshot(run)
    del files["plan.json"]
    return files


def copied(run: RunFolder) -> int:
    return sum(shard.copied for shard in read(run.plan, Plan).shards)


@pytest.mark.slow
def test_a_run_that_reused_one_is_reused(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """The third run has rows that the second copied, and some that it embedded; all are as in a run from scratch."""
    second = texts([*range(80, 100), *range(20, 50)])
    embedkit("run", *request(tmp_path, tokenizer_only, "second", second, "--reuse", folder / "old"))
    third = texts([*range(40, 60), *range(90, 110)])
    embedkit("run", *request(tmp_path, tokenizer_only, "third", third, "--reuse", tmp_path / "second"))
    embedkit("run", *request(tmp_path, tokenizer_only, "scratch", third))
    assert copied(RunFolder(tmp_path / "second")) == 10 + 30
    assert copied(RunFolder(tmp_path / "third")) == 10 + 10
    assert merged(RunFolder(tmp_path / "third")) == merged(RunFolder(tmp_path / "scratch"))


@pytest.fixture
def across(old: RunFolder, tokenizer_only: Path, tmp_path: Path) -> RunFolder:
    """A run that copied vectors of another GPU, as a certificate allows, and embedded a few rows itself."""
    give_gpu(old, "old GPU")
    certified(old, gpu="")
    asked = request(tmp_path, tokenizer_only, "across", texts(range(10, 100)), "--reuse", old.path)
    embedkit("run", *asked, "--reuse-across-engines")
    return RunFolder(tmp_path / "across")


def give_gpu(run: RunFolder, gpu: str) -> None:
    """Say that another GPU made a merged run."""

    def other(record: EngineRecord) -> EngineRecord:
        return msgspec.structs.replace(record, gpu=gpu)

    for shard in range(2):
        reseal(run.shard_manifest(shard), ShardManifest, engine=lambda manifest: other(manifest.engine))
    manifests = {str(shard): digest(read(run.shard_manifest(shard), ShardManifest)) for shard in range(2)}
    reseal(run.success, Success, engines=lambda s: (other(s.engines[0]),), shard_manifests=manifests)


def certified(run: RunFolder, **engine: Any) -> None:
    """Say that an engine was found to give the vectors of a run."""
    plan, config = read(run.plan, Plan), read(run.config, RunConfig)
    shards = read(run.shard_manifest(0), ShardManifest).engine
    limits = {"most_apart": 1e-5, "most_worst": 1e-4, "most_length": 1e-4}
    same = Agreement(rows=10, mean=0, worst=0, noise=0, apart=0, bound=0, length=0, **limits)
    compared = ComparedEngine(engine=shards, shards=(0, 1), rows=10, views={"combined": same})
    certificate = Certificate(
        format=FORMAT,
        request_sha256=digest(config.request),
        plan_sha256=digest(plan),
        engine=msgspec.structs.replace(shards, **engine),
        compared=(compared,),
        rows=10,
        seed=0,
        passed=True,
        job="1",
        host="node",
        at="2026-01-01T00:00:00",
    )
    write_certificate(run, certificate)


@pytest.mark.slow
def test_copies_of_another_engine_are_named_and_accepted(
    across: RunFolder, tokenizer_only: Path, tmp_path: Path
) -> None:
    """The engine of the run's shards is this one, that of its copies is not."""
    asked = request(tmp_path, tokenizer_only, "third", texts(range(20, 110)), "--reuse", across.path)
    refused = embedkit("run", *asked, code=2).stderr
    assert "--reuse across: some of its vectors were made with GPU (none), others with GPU old GPU, in " in refused
    assert "a certificate says that they agree. To accept that for this run, too, add --reuse-across-engines" in refused
    assert not (tmp_path / "third").exists()
    embedkit("run", *asked, "--reuse-across-engines")
    third = RunFolder(tmp_path / "third")
    (reused,) = read(third.config, RunConfig).request.reuse
    assert ([engine.gpu for engine in reused.engines], reused.certified) == (["", "old GPU"], ())
    assert copied(third) == 80
    embedkit("run", *request(tmp_path, tokenizer_only, "scratch", texts(range(20, 110))))
    assert merged(third) == merged(RunFolder(tmp_path / "scratch"))
    moved = across.path.rename(tmp_path / "moved")  # the flag is not needed again
    embedkit("run", "--resume", "--run-name", "third", "--output-dir", tmp_path, "--reuse", moved)


def test_nothing_copied_has_no_engine(old: RunFolder, tokenizer_only: Path, tmp_path: Path) -> None:
    """A run that named another one and found nothing in it has vectors of its own engine alone."""
    give_gpu(old, "old GPU")
    asked = request(tmp_path, tokenizer_only, "none", texts(range(200, 220)), "--reuse", old.path)
    embedkit("run", *asked)
    asked = request(tmp_path, tokenizer_only, "third", texts(range(210, 230)), "--reuse", tmp_path / "none")
    embedkit("prepare", *asked)
    (reused,) = read(RunFolder(tmp_path / "third").config, RunConfig).request.reuse
    assert [engine.gpu for engine in reused.engines] == [""]


@pytest.mark.slow
def test_a_prefix_is_part_of_what_is_compared(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """With another prefix the same text has other token ids; where prefix and text join, they may be the same."""
    asked = ("--prefix", "7 ", "--reuse", folder / "old")
    embedkit("run", *request(tmp_path, tokenizer_only, "reused", texts(range(30)), *asked))
    embedkit("run", *request(tmp_path, tokenizer_only, "scratch", texts(range(30)), "--prefix", "7 "))
    assert copied(RunFolder(tmp_path / "reused")) == 0
    assert merged(RunFolder(tmp_path / "reused")) == merged(RunFolder(tmp_path / "scratch"))
    endings = [text.partition(" ")[2] for text in texts([7])]
    embedkit("run", *request(tmp_path, tokenizer_only, "joined", endings, *asked, shards=1))
    assert copied(RunFolder(tmp_path / "joined")) == 1


@pytest.mark.parametrize("library", [None, "a library of tests 1.0"], ids=["same", "different"])
def test_a_tokenizer_library_decides_whether_texts_count(
    library: str | None, old: RunFolder, tokenizer_only: Path, tmp_path: Path
) -> None:
    """With a different one, or a different version, texts are tokenized again. Token ids count as before."""
    if library is not None:
        reseal(old.part_manifest(0), PartManifest, tokenizer=library)
    embedkit("prepare", *request(tmp_path, tokenizer_only, "next", texts(range(30)), "--reuse", old.path))
    run = RunFolder(tmp_path / "next")
    assert copied(run) == 30
    config = read(run.config, RunConfig)
    make_lookups(run, config)
    wanted = MergedRun.open(old.path).texts(range(30), view="combined")["text"].to_list()
    counted = CopyFinder(run, config.request).count("combined", wanted, load_tokenizer(tokenizer_only))
    assert counted.is_tokenized.tolist() == [library is not None] * 30
    assert (counted.runs.tolist(), counted.ids.tolist()) == ([0] * 30, list(range(30)))


def on_a_gpu(run: RunFolder, folder: Path, compiled: bool) -> RunFolder:
    """A copy of a merged run, as if vLLM had made it on a GPU."""
    made = RunFolder(folder / ("compiled" if compiled else "eager"))
    shutil.copytree(run.path, made.path)

    def record(success: Success) -> tuple[EngineRecord, ...]:
        changes = {"engine": "vllm", "gpu": "NVIDIA H200", "dtype": "bfloat16", "compile": made.name}
        return tuple(msgspec.structs.replace(engine, **changes) for engine in success.engines)

    def asked(config: RunConfig) -> Request:
        return msgspec.structs.replace(config.request, engine="vllm", device="cuda", dtype="bfloat16")

    sha256 = digest(reseal(made.config, RunConfig, request=asked).request)
    settings = msgspec.structs.replace(read(made.plan, Plan).settings, device="cuda", eager=not compiled)
    plan = reseal(made.plan, Plan, request_sha256=sha256, settings=settings)
    reseal(made.success, Success, request_sha256=sha256, plan_sha256=digest(plan), engines=record)
    return made


@pytest.mark.slow
def test_copies_decide_whether_the_model_is_compiled(tiny_qwen: Path, tmp_path: Path) -> None:
    """A short run is not compiled, unless it copies vectors of a compiled one. Those of both kinds fit no engine."""
    embedkit("run", *request(tmp_path, tiny_qwen, "old", texts(range(ROWS))))
    compiled, eager = (on_a_gpu(RunFolder(tmp_path / "old"), tmp_path, compiled) for compiled in (True, False))
    gpu = ("--engine", "vllm", "--device", "cuda")
    both = request(tmp_path, tiny_qwen, "both", texts(range(9)), *gpu, "--reuse", compiled.path, "--reuse", eager.path)
    refused = embedkit("prepare", *both, code=2).stderr
    assert f"--reuse {compiled.path}, --reuse {eager.path}: the model of the first was compiled, that of the" in refused
    assert "second eager, and this run's cannot be both" in refused
    assert not (tmp_path / "both").exists()
    found = {}
    for name, start in (("some", 80), ("none", 200)):
        rows = texts(range(start, start + 20))
        embedkit("prepare", *request(tmp_path, tiny_qwen, name, rows, *gpu, "--reuse", compiled.path))
        plan = read(RunFolder(tmp_path / name).plan, Plan)
        found[name] = (plan.tokens_copied > 0, plan.settings.eager)
    assert found == {"some": (True, False), "none": (False, True)}
