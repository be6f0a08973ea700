"""What is checked of an engine and a model folder before a run is made."""

import json
from pathlib import Path

import pytest

from embedkit.engines import requirements
from embedkit.engines.installed import InstalledEngine
from embedkit.engines.requirements import check_installed, check_pooling, check_weights
from embedkit.errors import UsageError
from tests.support.weights import write_shapes


@pytest.mark.parametrize(
    ("engine", "begins"),
    [
        ("vllm", "--engine vllm: vLLM is not installed here. On a GPU machine install `pip install "),
        ("transformers", "--engine transformers: it is not installed here; install embedkit[transformers]"),
    ],
)
def test_an_engine_that_is_not_installed_is_named(engine: str, begins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for version, is_refused in ((None, True), ("", False), ("1", False)):
        found = InstalledEngine(engine=engine, version=version)  # type: ignore[arg-type]
        monkeypatch.setattr(requirements, "installed_engine", lambda _, found=found: found)
        if not is_refused:
            check_installed(engine)  # type: ignore[arg-type]
            continue
        with pytest.raises(UsageError) as error:
            check_installed(engine)  # type: ignore[arg-type]
        assert str(error.value).startswith(begins)


def test_a_model_needs_a_configuration_and_weights(tmp_path: Path) -> None:
    """Of the folders that modules.json names, Pooling and Normalize have no weights."""
    with pytest.raises(UsageError) as error:
        check_weights(tmp_path)
    assert str(error.value) == f"--model {tmp_path}: no config.json there; is it a model folder?"
    write_shapes(tmp_path, {"a": [2, 3]}, {})
    check_weights(tmp_path)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError) as error:
        check_weights(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / '2_Dense'}: no weights there (model.safetensors). ")
    write_shapes(tmp_path / "2_Dense", {"linear.weight": [2, 3]}, {})
    check_weights(tmp_path)


def test_a_model_with_code_of_its_own_is_left_to_vllm(minilm: Path, tmp_path: Path) -> None:
    check_pooling(minilm)
    for path in minilm.rglob("*.json"):
        copy = tmp_path / path.relative_to(minilm)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {}}))
    with pytest.raises(UsageError) as error:
        check_pooling(tmp_path)
    assert str(error.value) == f"--model {tmp_path}: it comes with its own code, which is not run; use --engine vllm"
