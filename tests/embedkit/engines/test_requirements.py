"""What is checked of an engine and a model folder before a run is made."""

import json
import re
from pathlib import Path

import pytest

from embedkit.documents import EngineName
from embedkit.engines import requirements
from embedkit.engines.installed import InstalledEngine
from embedkit.engines.requirements import check_installed, check_pooling, check_weights
from embedkit.errors import UsageError
from tests.support.st_models import NORMALIZE, WIDTH, Module, dense, edit_json, pooling, write_modules
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


def model_of(folder: Path, *modules: Module) -> Path:
    """A folder with these modules and their weights, and without a network."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return write_modules(folder, modules)


ENGINES: list[EngineName | None] = ["vllm", "transformers", None]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_no_engine_honours_is_refused_for_each(engine: EngineName, tmp_path: Path) -> None:
    model = model_of(tmp_path / "m", pooling("mean"), dense(WIDTH, 5), NORMALIZE)
    check_pooling(model, engine)
    edit_json(model / "config.json", auto_map={"AutoModel": "modeling.Model"})
    with pytest.raises(UsageError, match=r"config\.json: auto_map: the model comes with its own code"):
        check_pooling(model, engine)
    edit_json(model / "config.json", auto_map=None, is_encoder_decoder=True)
    with pytest.raises(UsageError, match=r"config\.json: .*is_encoder_decoder"):
        check_pooling(model, engine)
    (model / "modules.json").unlink()
    with pytest.raises(UsageError, match=r"no modules\.json there"):
        check_pooling(model, engine)


def test_weights_of_a_module_that_do_not_fit_are_named(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m", pooling("mean"), ("LayerNorm", {"dimension": WIDTH}), dense(WIDTH, 5))
    check_pooling(model, "transformers")
    for folder, changes, message in [
        ("3_Dense", {"out_features": 6}, r"linear\.weight must have the shape \[6, 32\]; it is \[5, 32\]\. Fetch"),
        ("3_Dense", {"use_residual": True}, r"residual\.weight must have the shape \[5, 32\]; it is not there"),
        (
            "2_LayerNorm",
            {"dimension": 9},
            r"2_LayerNorm/model\.safetensors: norm\.weight must have the shape \[9\]",
        ),
    ]:
        before = (model / folder / "config.json").read_bytes()
        edit_json(model / folder / "config.json", **changes)
        with pytest.raises(UsageError, match=message):
            check_pooling(model, "transformers")
        (model / folder / "config.json").write_bytes(before)
    (model / "3_Dense" / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"3_Dense/model\.safetensors: linear\.weight .*; it is not there"):
        check_pooling(model, None)


LAYER_NORM: Module = ("LayerNorm", {"dimension": WIDTH})
ACTIVATION = "torch.nn.modules.activation."


@pytest.mark.parametrize(
    ("modules", "file", "setting"),
    [
        ([pooling("max")], "1_Pooling/config.json", "the pooling max"),
        ([pooling("weightedmean")], "1_Pooling/config.json", "the pooling weightedmean"),
        ([pooling("mean_sqrt_len_tokens")], "1_Pooling/config.json", "the pooling mean_sqrt_len_tokens"),
        ([pooling("mean", "cls")], "1_Pooling/config.json", "the pooling mean + cls"),
        ([pooling("mean"), LAYER_NORM], "modules.json", "the module LayerNorm"),
        ([pooling("mean"), NORMALIZE, dense(WIDTH, 5)], "modules.json", "the module Normalize before Dense"),
        (
            [pooling("mean"), dense(WIDTH, 5, ACTIVATION + "Mish")],
            "2_Dense/config.json",
            "activation_function torch.nn.modules.activation.M",
        ),
        (
            [pooling("mean"), dense(WIDTH, 5, "torch.nn.Tanh")],
            "2_Dense/config.json",
            "activation_function torch.nn.Tanh",
        ),
        ([pooling("mean"), dense(WIDTH, 5, use_residual=True)], "2_Dense/config.json", "use_residual"),
    ],
)
def test_what_vllm_ignores_is_refused_for_vllm_only(
    modules: list[Module], file: str, setting: str, tmp_path: Path
) -> None:
    model = model_of(tmp_path / "m", *modules)
    check_pooling(model, "transformers")
    check_pooling(model, None)
    with pytest.raises(UsageError, match=re.escape(f"{model / file}: vLLM does not honour {setting}")):
        check_pooling(model, "vllm")


def test_a_dense_module_of_an_unknown_name_or_default_is_not_vllms(tmp_path: Path) -> None:
    model = model_of(tmp_path / "m", pooling("mean"), dense(WIDTH, 5))
    path = model / "2_Dense" / "config.json"
    path.write_text('{"in_features": 32, "out_features": 5}')
    with pytest.raises(UsageError, match="vLLM does not honour the default activation_function, Tanh"):
        check_pooling(model, "vllm")
    text = (model / "modules.json").read_text()
    (model / "modules.json").write_text(text.replace("models.Dense", "models.dense.Dense"))
    with pytest.raises(UsageError, match=r"the module sentence_transformers\.models\.dense\.Dense; use --engine"):
        check_pooling(model, "vllm")
    check_pooling(model, "transformers")


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        ({"model_type": "bert", "is_causal": False}, None),
        ({"model_type": "qwen3", "is_causal": False}, None),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, None),
        ({"model_type": "bert", "is_decoder": False}, None),
        ({"model_type": "bert", "is_decoder": True}, "is_decoder"),
        ({"model_type": "gemma3_text", "is_causal": False}, '"is_causal": false of the model type gemma3_text'),
        ({"model_type": "phi3", "is_causal": False}, '"is_causal": false of the model type phi3'),
        ({"model_type": "gemma2", "use_bidirectional_attention": True}, "use_bidirectional_attention of the model typ"),
        ({"model_type": "qwen3", "speculators_config": {"a": 1}}, "speculators_config"),
    ],
)
def test_attention_that_vllm_does_not_change_is_refused(
    config: dict[str, object], setting: str | None, tmp_path: Path
) -> None:
    model = model_of(tmp_path / "m", pooling("mean"))
    edit_json(model / "config.json", **config)
    check_pooling(model, "transformers")
    if setting is None:
        check_pooling(model, "vllm")
        return
    with pytest.raises(UsageError, match=rf"config\.json: vLLM does not honour {setting}"):
        check_pooling(model, "vllm")
