"""The model folder: which files in it belong to the model."""

import shutil
from pathlib import Path

import pytest

from embedkit.engines.requirements import check_weights
from embedkit.errors import UsageError
from embedkit.model import model_files, weight_shapes


def test_hidden_files_are_no_part_of_a_model(tiny_qwen: Path, tmp_path: Path) -> None:
    """macOS writes `._model.safetensors` on foreign file systems, Jupyter its checkpoints; engines read neither."""
    model = shutil.copytree(tiny_qwen, tmp_path / "model")
    (model / "._model.safetensors").write_bytes(b"Mac OS X")
    (model / ".ipynb_checkpoints").mkdir()
    shutil.copy(model / "config.json", model / ".ipynb_checkpoints" / "config-checkpoint.json")
    assert model_files(model) == model_files(tiny_qwen)
    assert weight_shapes(model) == weight_shapes(tiny_qwen)
    check_weights(model)
    (model / "model.safetensors").unlink()
    with pytest.raises(UsageError, match="no weights there"):
        check_weights(model)


def test_a_models_path_is_no_pattern(tiny_qwen: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_qwen, tmp_path / "m[1]")
    (tmp_path / "m1").mkdir()
    (tmp_path / "m1" / "foreign.safetensors").write_bytes(b"not a model's")
    assert model_files(model) == model_files(tiny_qwen)
    assert weight_shapes(model) == weight_shapes(tiny_qwen)
