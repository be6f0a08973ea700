"""Files of a model folder that are there by name only."""

import shutil
from pathlib import Path

import pytest

from embedkit.errors import UsageError
from embedkit.model import check_files, model_files
from tests.conftest import embedkit

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 12345\n"


def linked_snapshot(model: Path, cache: Path) -> Path:
    """The model as the Hub's cache holds it: a folder of links to files named by their hash."""
    snapshot = cache / "snapshots" / "0123abcd"
    blobs = cache / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(model.rglob("*"))):
        if path.is_file():
            link = snapshot / path.relative_to(model)
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, blobs / str(number))
            link.symlink_to(Path(*[".."] * (len(path.relative_to(model).parts) + 1), "blobs", str(number)))
    return snapshot


def test_a_linked_snapshot_is_the_model_it_links_to(tiny_qwen: Path, tmp_path: Path) -> None:
    snapshot = linked_snapshot(tiny_qwen, tmp_path / "cache")
    check_files(snapshot)
    assert model_files(snapshot) == model_files(tiny_qwen)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer_config.json", "1_Pooling/config.json"])
def test_a_link_that_leads_nowhere_is_named(name: str, tiny_qwen: Path, tmp_path: Path) -> None:
    """Such a file is no file to pathlib: its settings would be left out without a word."""
    snapshot = linked_snapshot(tiny_qwen, tmp_path / "cache")
    target = (snapshot / name).readlink()
    (snapshot / name).resolve().unlink()
    with pytest.raises(UsageError) as error:
        check_files(snapshot)
    assert str(error.value) == f"{snapshot / name}: a link to {target}, which is not there; fetch the model again"


def test_hidden_and_foreign_files_may_be_pointers(tiny_qwen: Path, tmp_path: Path) -> None:
    """Only files that decide the vectors count. A model fetched in part often has pointers for other runtimes."""
    model = shutil.copytree(tiny_qwen, tmp_path / "model")
    (model / "onnx").mkdir()
    for name in ("onnx/model.json", "pytorch_model.bin", ".hidden.json"):
        (model / name).write_bytes(POINTER % 1)
    (model / ".gone.json").symlink_to("nowhere")
    check_files(model)


def test_pointers_of_git_lfs_are_named(tiny_qwen: Path, small_chats: Path, tmp_path: Path) -> None:
    """A clone without Git LFS has them for the weights and often for tokenizer.json. No run is made."""
    model = shutil.copytree(tiny_qwen, tmp_path / "model")
    (model / "model.safetensors").write_bytes(POINTER % 1)
    with pytest.raises(UsageError) as error:
        check_files(model)
    pull = f"a pointer of Git LFS, not the file; run `git lfs pull` in {model}"
    assert str(error.value) == f"{model / 'model.safetensors'}: {pull}"
    (model / "tokenizer.json").write_bytes(POINTER % 2)
    request = ["--dataset", small_chats, "--model", model, "--engine", "hash", "--output-dir", tmp_path / "o"]
    refused = embedkit("prepare", *request, "--run-name", "run", code=2)
    assert f"embedkit: {model / 'model.safetensors'} and 1 more: {pull}\n" in refused.stderr
    assert not (tmp_path / "o" / "run").exists()


def test_large_files_that_begin_like_pointers_are_files(tmp_path: Path) -> None:
    """The format has less than 1,024 bytes."""
    (tmp_path / "vocab.txt").write_bytes((POINTER % 1).ljust(1024))
    check_files(tmp_path)
    (tmp_path / "vocab.txt").write_bytes((POINTER % 1).ljust(1023))
    with pytest.raises(UsageError, match="a pointer of Git LFS"):
        check_files(tmp_path)
