"""The modules of a model folder: what is read of them, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from embedkit.errors import UsageError
from embedkit.model.modules import Dense, LayerNorm, Normalize, pools_prompt, read_head, vector_width

POOLING = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}


def folder_of(
    folder: Path, *modules: tuple[str, dict[str, Any]], prefix: str = "sentence_transformers.models."
) -> Path:
    """A folder with a Transformer and these modules, without weights."""
    entries = [{"path": "", "type": prefix + "Transformer"}]
    for i, (kind, config) in enumerate(modules, start=1):
        (folder / str(i)).mkdir(parents=True, exist_ok=True)
        (folder / str(i) / "config.json").write_text(json.dumps(config))
        entries.append({"path": str(i), "type": kind if "." in kind else prefix + kind})
    folder.mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(entries))
    return folder


def test_modules_are_read_in_order_and_all_of_a_kind(tmp_path: Path) -> None:
    first = {"in_features": 8, "out_features": 5, "bias": False, "activation_function": "torch.nn.ReLU"}
    second = {"in_features": 5, "out_features": 3, "use_residual": True}
    modules = [("Dense", first), ("Normalize", {}), ("Dropout", {"dropout": 0.1}), ("LayerNorm", {"dimension": 5})]
    head = read_head(folder_of(tmp_path, ("Pooling", POOLING), *modules, ("Dense", second)))
    assert head.pooling == ("mean",)
    kind = "sentence_transformers.models.Dense"
    assert head.steps == (
        Dense(tmp_path / "2", 8, 5, bias=False, activation="torch.nn.ReLU", residual=False, type=kind),
        Normalize(),
        LayerNorm(tmp_path / "5", 5),
        Dense(tmp_path / "6", 5, 3, bias=True, activation="torch.nn.modules.activation.Tanh", residual=True, type=kind),
    )
    assert head.dim is None
    assert [step.shapes for step in head.steps if not isinstance(step, Normalize)] == [
        {"linear.weight": [5, 8]},
        {"norm.weight": [5], "norm.bias": [5]},
        {"linear.weight": [3, 5], "linear.bias": [3], "residual.weight": [3, 5]},
    ]


def test_pooling_modes_keep_the_order_that_counts(tmp_path: Path) -> None:
    """A list keeps its own order. Flags have one of their own: cls, max, mean, root, weighted, last."""
    flags = ("lasttoken", "weightedmean_tokens", "mean_sqrt_len_tokens", "mean_tokens", "max_tokens", "cls_token")
    old = {"word_embedding_dimension": 8} | {f"pooling_mode_{flag}": True for flag in flags}
    order = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    assert read_head(folder_of(tmp_path / "a", ("Pooling", old))).pooling == order
    assert vector_width(tmp_path / "a") == 48
    new = {"embedding_dimension": 8, "pooling_mode": ["max", "cls"], "pooling_mode_mean_tokens": True}
    assert read_head(folder_of(tmp_path / "b", ("Pooling", new))).pooling == ("max", "cls")
    assert vector_width(tmp_path / "b") == 16
    one = {"embedding_dimension": 8, "pooling_mode": "lasttoken"}
    assert read_head(folder_of(tmp_path / "c", ("Pooling", one))).pooling == ("lasttoken",)
    none = {"word_embedding_dimension": 8, "pooling_mode_cls_token": False}
    assert read_head(folder_of(tmp_path / "d", ("Pooling", none))).pooling == ("mean",)


def test_the_width_is_the_last_dense_modules_cut_to_truncate_dim(tmp_path: Path) -> None:
    dense = ("Dense", {"in_features": 8, "out_features": 5})
    folder = folder_of(tmp_path, ("Pooling", POOLING), dense, ("Dense", {"in_features": 5, "out_features": 6}))
    assert vector_width(folder) == 6
    for dim, width in ((4, 4), (6, 6), (9, 6)):
        (folder / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": dim}))
        assert (vector_width(folder), read_head(folder).dim) == (width, dim)
    assert vector_width(tmp_path / "none") is None


def test_whether_a_prompt_is_pooled(tmp_path: Path) -> None:
    for value, is_pooled in ((None, True), (True, True), (False, False)):
        config = POOLING if value is None else POOLING | {"include_prompt": value}
        assert pools_prompt(folder_of(tmp_path, ("Pooling", config))) is is_pooled


DENSE = {"in_features": 8, "out_features": 5}


@pytest.mark.parametrize(
    ("modules", "file", "setting"),
    [
        *(
            ([("Pooling", POOLING), (kind, {})], "modules.json", f"the module sentence_transformers.models.{kind}")
            for kind in ("BoW", "CLIPModel", "CNN", "LSTM", "Router", "Asym", "SpladePooling", "WordWeights")
        ),
        *(
            ([(kind, {}), ("Pooling", POOLING)], "modules.json", f"the module sentence_transformers.models.{kind}")
            for kind in ("WeightedLayerPooling", "WordEmbeddings", "StaticEmbedding")
        ),
        ([("Pooling", POOLING), ("custom_st.Normalize", {})], "modules.json", "the module custom_st.Normalize"),
        ([("pylate.models.Dense.Dense", DENSE)], "modules.json", "the module pylate.models.Dense.Dense"),
        ([("Pooling", POOLING | {"per_layer": 3})], "1/config.json", "per_layer"),
        *(
            ([("Pooling", POOLING), ("Dense", DENSE | {name: value})], "2/config.json", f"{name} {value}")
            for name, value in [
                ("activation_function", "my_module.Act"),
                ("activation_function", "torch.nn.modules.activation.PReLU"),
                ("activation_function", None),
                ("module_input_name", "token_embeddings"),
                ("module_output_name", "projected"),
            ]
        ),
        (
            [("Pooling", POOLING), ("Normalize", {"module_input_name": "token_embeddings"})],
            "2/config.json",
            "module_input_name token_embeddings",
        ),
    ],
)
def test_what_no_engine_honours_is_refused_by_name(
    modules: list[tuple[str, dict[str, Any]]], file: str, setting: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        read_head(folder_of(tmp_path, *modules))
    wrong = "is not honoured by any engine, so vectors would be wrong; choose another model"
    assert str(error.value) == f"{tmp_path / file}: {setting} {wrong}"


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([], "must be Transformer .* they are Transformer$"),
        ([("Normalize", {})], "must be Transformer .* they are Transformer, Normalize$"),
        ([("Dense", DENSE), ("Pooling", POOLING)], "they are Transformer, Dense, Pooling$"),
        ([("Pooling", POOLING), ("Pooling", POOLING)], "they are Transformer, Pooling, Pooling$"),
        ([("Pooling", {})], r"1/config\.json: not there or empty, so the folder does not say how vectors are pooled"),
        ([("Pooling", {"pooling_mode": "median"})], r"1/config\.json: pooling_mode is 'median'; known are cls, max, "),
        ([("Pooling", {"pooling_mode": []})], r"1/config\.json: pooling_mode is \[\]"),
        ([("Pooling", {"pooling_mode": 3})], r"1/config\.json: pooling_mode is 3"),
        ([("Pooling", POOLING), ("Dense", {"in_features": 8})], r"2/config\.json: in_features and out_features"),
        ([("Pooling", POOLING), ("LayerNorm", {})], r"2/config\.json: dimension, the width of the LayerNorm module"),
    ],
)
def test_modules_that_do_not_fit_together_are_refused(
    modules: list[tuple[str, dict[str, Any]]], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        read_head(folder_of(tmp_path, *modules))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            None,
            r"no modules\.json there, .* Write modules\.json and 1_Pooling/config\.json: docs/models\.md shows both",
        ),
        ("{}", "they are none"),
        ("[1]", "not a list of modules with type and path"),
        ("[{}]", "not a list of modules with type and path"),
        ('[{"path": "0_BERT", "type": "sentence_transformers.models.Transformer"}]', "must be Transformer"),
    ],
)
def test_a_list_of_modules_that_says_nothing_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "modules.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_head(tmp_path)


@pytest.mark.parametrize("dim", [0, -1, "8", 1.5])
def test_a_truncate_dim_that_is_no_width_is_refused(dim: object, tmp_path: Path) -> None:
    folder_of(tmp_path, ("Pooling", POOLING))
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"truncate_dim": dim}))
    with pytest.raises(UsageError, match=r"config_sentence_transformers\.json: truncate_dim is "):
        read_head(tmp_path)
