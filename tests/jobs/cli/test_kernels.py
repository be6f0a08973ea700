"""Which kernels a run asks for: by default, typed, resumed, and with vectors of an earlier run. No GPU is needed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import Plan, RunConfig
from embedkit.errors import UsageError
from embedkit.request import Options, choose_kernels
from embedkit.run import RunFolder
from jobs.submit.state import choose_allow_mixed
from tests.conftest import embedkit
from tests.support.curves import engine_record
from tests.support.stub_engines import gpu_build


@pytest.fixture
def fitting(tiny_qwen: Path, tmp_path: Path) -> Path:
    """A model with heads of 128 numbers, as its config.json says."""
    model = shutil.copytree(tiny_qwen, tmp_path / "models" / "fitting")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"head_dim": 128}))
    return model


def prepare(folder: Path, data: Path, model: Path, *options: object, code: int = 0) -> str:
    """Prepare a run named after the model for a GPU. Returns what is on stderr."""
    asked = ("--dataset", data, "--model", model, "--engine", "vllm", "--device", "cuda", *options)
    place = ("--output-dir", folder, "--run-name", model.name)
    return embedkit("prepare", *asked, *place, code=code, **gpu_build(folder / f"for-{model.name}")).stderr


def kernels_of(folder: Path) -> tuple[str, str, str]:
    """Of the request, and of the plan's settings and costs."""
    plan = read(folder / "plan.json", Plan)
    assert plan.curve is not None
    return read(folder / "run_config.json", RunConfig).request.kernels, plan.settings.kernels, plan.curve.compile


def test_fused_is_the_default_where_it_fits(small_chats: Path, fitting: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """A request for plain ones is that of earlier versions: it does not name them."""
    prepare(tmp_path, small_chats, fitting)
    assert kernels_of(tmp_path / "fitting") == ("fused", "fused", "fused")
    prepare(tmp_path, small_chats, tiny_qwen)
    assert kernels_of(tmp_path / tiny_qwen.name) == ("plain", "plain", "eager")
    assert "kernels" not in (tmp_path / tiny_qwen.name / "run_config.json").read_text()


def test_typed_kernels_are_kept(small_chats: Path, fitting: Path, tmp_path: Path) -> None:
    prepare(tmp_path, small_chats, fitting, "--kernels", "plain")
    assert kernels_of(tmp_path / "fitting") == ("plain", "plain", "eager")
    resumed = ("prepare", "--resume", "--run-name", "fitting", "--output-dir", tmp_path)
    environment = gpu_build(tmp_path / "again")
    embedkit(*resumed, **environment)
    assert kernels_of(tmp_path / "fitting") == ("plain", "plain", "eager")
    refused = embedkit(*resumed, "--kernels", "fused", code=2, **environment).stderr
    assert "  kernels  plain  ->  fused\n" in refused


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--device", "cpu"], "only vLLM on a GPU has them"),
        (["--dtype", "float16"], "--dtype float16: they compute in bfloat16"),
        ([], "config.json: head_dim 32"),
    ],
)
def test_fused_kernels_that_do_not_fit_are_refused(
    options: list[str], reason: str, small_chats: Path, tiny_qwen: Path, fitting: Path, tmp_path: Path
) -> None:
    model = fitting if options else tiny_qwen
    refused = prepare(tmp_path, small_chats, model, "--kernels", "fused", *options, code=2)
    assert f"--kernels fused: they do not fit: {reason}; type --kernels plain, or leave it out" in refused
    assert not (tmp_path / model.name).exists()


@pytest.mark.parametrize(("made", "kernels"), [("fused", "fused"), ("compiled", "plain"), ("eager", "plain")])
def test_reused_vectors_decide_in_a_fake_request(made: str, kernels: str, fitting: Path) -> None:
    reused = SimpleNamespace(accepted=(engine_record(made, "NVIDIA H200"),))
    request: Any = SimpleNamespace(engine="vllm", device="cuda", dtype="bfloat16", reuse=(reused,))
    options = Options(dataset=("d",), model=str(fitting), reuse=("old",))
    assert choose_kernels(options, request, fitting) == kernels
    other = "plain" if kernels == "fused" else "fused"
    typed = Options(dataset=("d",), model=str(fitting), reuse=("old",), kernels=other)
    with pytest.raises(UsageError, match=f"^--reuse old: its vectors are of {kernels} kernels; leave out --kernels$"):
        choose_kernels(typed, request, fitting)


def test_exact_is_kept_and_makes_the_kernels_fused(small_chats: Path, fitting: Path, tmp_path: Path) -> None:
    prepare(tmp_path, small_chats, fitting, "--exact")
    assert kernels_of(tmp_path / "fitting") == ("fused", "fused", "fused")
    assert read(tmp_path / "fitting" / "plan.json", Plan).settings.exact
    resumed = ("prepare", "--resume", "--run-name", "fitting", "--output-dir", tmp_path)
    embedkit(*resumed, **gpu_build(tmp_path / "again"))
    assert read(tmp_path / "fitting" / "run_config.json", RunConfig).request.exact
    other = tmp_path / "other"
    prepare(other, small_chats, fitting)
    assert "exact" not in (other / "fitting" / "plan.json").read_text()
    refused = embedkit(*resumed[:-1], other, "--exact", code=2, **gpu_build(tmp_path / "later")).stderr
    assert "  exact  False  ->  True\n" in refused


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--kernels", "plain"], "with --kernels plain a vector depends on the batch; leave out one of them"),
        (["--device", "cpu"], "it needs fused kernels, and they do not fit: only vLLM on a GPU has them; leave it out"),
        (["--dtype", "float16"], "it needs fused kernels, and they do not fit: --dtype float16: they compute in"),
    ],
)
def test_exact_without_fused_kernels_is_refused(
    options: list[str], reason: str, small_chats: Path, fitting: Path, tmp_path: Path
) -> None:
    assert f"--exact: {reason}" in prepare(tmp_path, small_chats, fitting, "--exact", *options, code=2)
    assert not (tmp_path / "fitting").exists()


def test_exact_refuses_vectors_of_a_run_without_it(
    small_chats: Path, tiny_qwen: Path, fitting: Path, tmp_path: Path
) -> None:
    asked = ("--dataset", small_chats, "--model", tiny_qwen, "--engine", "hash", "--output-dir", tmp_path)
    embedkit("run", *asked, "--run-name", "old")
    request: Any = SimpleNamespace(engine="vllm", device="cuda", dtype="bfloat16", reuse=())
    options = Options(dataset=("d",), model=str(fitting), reuse=(str(tmp_path / "old"),), exact=True)
    with pytest.raises(UsageError, match=r"^--exact: --reuse .*old was made without it; leave out one of them$"):
        choose_kernels(options, request, fitting)
    across = replace(options, reuse_across_engines=True)
    with pytest.raises(UsageError, match=r"^--exact: --reuse-across-engines copies vectors of another engine; leave"):
        choose_kernels(across, request, fitting)


def test_shards_of_an_exact_run_cannot_be_mixed(small_chats: Path, fitting: Path, tmp_path: Path) -> None:
    prepare(tmp_path, small_chats, fitting, "--exact")
    run = RunFolder(tmp_path / "fitting")
    message = "--allow-mixed: this run was made with --exact, so all its shards need one engine; leave it out"
    for command in ("merge", "embed"):
        assert message in embedkit(command, run.path, "--allow-mixed", code=2).stderr
    config = read(run.config, RunConfig)
    assert not choose_allow_mixed(run, config, None)
    with pytest.raises(UsageError, match=f"^{message}$"):
        choose_allow_mixed(run, config, True)


def test_kernels_are_open_until_the_device_is_decided(small_chats: Path, fitting: Path, tmp_path: Path) -> None:
    """Typed ones are kept, and are checked once the run gets a GPU or none."""
    asked = ("--dataset", small_chats, "--model", fitting, "--output-dir", tmp_path, "--run-name")
    config = tmp_path / "typed" / "run_config.json"
    embedkit("fetch", *asked, "typed", "--kernels", "fused")
    assert "kernels" not in read(config, RunConfig).undecided
    assert read(config, RunConfig).request.kernels == "fused"
    resumed = ("prepare", "--resume", "--output-dir", tmp_path, "--run-name")
    refused = embedkit(*resumed, "typed", code=2, CUDA_VISIBLE_DEVICES="").stderr
    assert "--kernels fused: they do not fit: only vLLM on a GPU has them" in refused
    embedkit(*resumed, "typed", "--device", "cuda", **gpu_build(tmp_path / "typed-build"))
    assert kernels_of(tmp_path / "typed") == ("fused", "fused", "fused")
    embedkit("fetch", *asked, "open")
    assert "kernels" in read(tmp_path / "open" / "run_config.json", RunConfig).undecided
    embedkit(*resumed, "open", "--device", "cuda", **gpu_build(tmp_path / "open-build"))
    assert kernels_of(tmp_path / "open") == ("fused", "fused", "fused")
