"""--store: the type of the stored vectors, refused where it keeps fewer digits than the engine computes."""

from pathlib import Path

import pytest

from embedkit.documents.codec import digest, encode, read
from embedkit.documents.schema import Dtype, Request, RunConfig
from embedkit.errors import UsageError
from embedkit.request import Options, make_config
from tests.conftest import chat, embedkit, hash_request, needs_vllm, write_chats
from tests.jobs.cli.test_decide import ON_GPUS, plan, profile, request
from tests.support.stub_engines import gpu_build

WITHOUT_LOSS = {
    *(("float32", "float32"), ("float16", "float32"), ("bfloat16", "float32")),
    *(("float16", "float16"), ("bfloat16", "bfloat16"), ("bfloat16", "float16")),
}
"""Pairs of what the engine computes in and of what is stored: no digit is lost in them."""


def made(data: Path, model: Path, store: Dtype, dtype: Dtype | None = None) -> Request:
    options = Options(dataset=(str(data),), model=str(model), engine="hash", max_length=64, store=store, dtype=dtype)
    return make_config(options, ["embedkit", "run"]).request


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("store", ["float32", "float16", "bfloat16"])
def test_a_type_with_fewer_digits_is_refused(
    dtype: Dtype, store: Dtype, small_chats: Path, tokenizer_only: Path
) -> None:
    if (dtype, store) in WITHOUT_LOSS:
        assert made(small_chats, tokenizer_only, store, dtype).store == store
        return
    digits = {"float32": 24, "float16": 11, "bfloat16": 8}
    message = f"--store {store}: the engine computes in {dtype}, and {store} would keep only {digits[store]} of its "
    with pytest.raises(UsageError, match=f"{message}{digits[dtype]} binary digits. Type --store float32, which keeps"):
        made(small_chats, tokenizer_only, store, dtype)


def test_a_type_that_was_not_typed_is_named_as_the_default(small_chats: Path, tokenizer_only: Path) -> None:
    computes = "the engine computes in float32 .the default without a GPU., and float16 would keep"
    with pytest.raises(UsageError, match=f"--store float16: {computes}.*: --dtype bfloat16 or float16$"):
        made(small_chats, tokenizer_only, "float16")
    with pytest.raises(UsageError, match=r"digits\. .*: --dtype bfloat16$"):
        made(small_chats, tokenizer_only, "bfloat16")


def test_a_request_in_float32_is_that_of_earlier_versions(small_chats: Path, tokenizer_only: Path) -> None:
    """The option is not written, so its digest stays. Any other type has a digest of its own."""
    found = made(small_chats, tokenizer_only, "float32", "bfloat16")
    assert b"store" not in encode(found)
    assert digest(found) != digest(made(small_chats, tokenizer_only, "bfloat16", "bfloat16"))


def test_the_stored_type_of_a_run_stays(tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "chats.parquet", [chat(f"river {i}", "stone") for i in range(9)])
    asked = [*hash_request(data, tokenizer_only, tmp_path), "--dtype", "bfloat16", "--store", "bfloat16"]
    refused = embedkit("prepare", *asked[:-4], *asked[-2:], code=2)
    assert "--store bfloat16: the engine computes in float32 (the default without a GPU)" in refused.stderr
    assert not (tmp_path / "run").exists()
    embedkit("prepare", *asked)
    embedkit("prepare", "--resume", "--run-name", "run", "--output-dir", tmp_path)
    again = ["--resume", "--run-name", "run", "--output-dir", tmp_path, "--store", "float32"]
    differs = embedkit("prepare", *again, code=2)
    assert "  store  bfloat16  ->  float32\nto start the run again with these changes" in differs.stderr
    assert "--dtype bfloat16 --store float32 " in differs.stderr
    assert read(tmp_path / "run" / "run_config.json", RunConfig).request.store == "bfloat16"


@needs_vllm
def test_a_fetched_run_is_checked_once_its_type_is_decided(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """On GPUs the engine computes in bfloat16 by default, on a CPU in float32."""
    asked, resumed = request(small_chats, tiny_qwen, tmp_path), ["--resume", "--run-name", "run"]
    embedkit("fetch", *asked, "--store", "bfloat16")
    config = tmp_path / "run" / "run_config.json"
    assert "dtype" in read(config, RunConfig).undecided
    resumed += ["--output-dir", str(tmp_path)]
    refused = embedkit("prepare", *resumed, code=2, CUDA_VISIBLE_DEVICES="")
    assert "--store bfloat16: the engine computes in float32 (the default without a GPU)" in refused.stderr
    assert "dtype" in read(config, RunConfig).undecided
    planned = plan(list(resumed), profile(tmp_path, ON_GPUS), **gpu_build(tmp_path))
    assert "\nengine vllm 0.24.0 on cuda, bfloat16\n" in planned.stdout
    assert " GB at the peak (vectors in bfloat16)\n" in planned.stdout
    embedkit("prepare", *resumed, "--dtype", "bfloat16", CUDA_VISIBLE_DEVICES="")
    decided = read(config, RunConfig).request
    assert (decided.device, decided.dtype, decided.store) == ("cpu", "bfloat16", "bfloat16")
