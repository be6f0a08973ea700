"""Every module and setting that the transformers engine honours: its vectors are those of sentence-transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.engines.head import load_head
from embedkit.model import modules as model_modules
from tests.conftest import made_once
from tests.embedkit.engines.test_transformers import engine_of, token_ids
from tests.support.st_models import (
    NEW,
    NORMALIZE,
    TEXTS,
    WIDTH,
    Module,
    dense,
    edit_json,
    make_bert,
    make_decoder,
    make_model,
    pooling,
    sentence_vectors,
    with_modules,
    write_modules,
)

MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
ACTIVATION = "torch.nn.modules.activation."


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "bert", lambda folder: make_bert(folder / "bert")) / "bert"


@pytest.fixture(scope="session")
def small_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "qwen", lambda folder: make_decoder(folder / "qwen", "Qwen3Model")) / "qwen"


def check_equal(folder: Path, width: int = WIDTH, shift: float = 0.05) -> None:
    """Compare the engine with sentence-transformers, in batches and alone, and that vectors differ between texts."""
    ids, right = token_ids(folder, TEXTS), sentence_vectors(folder)
    engine = engine_of(folder, 512)
    found = engine.embed(ids)
    assert found.shape == right.shape == (len(TEXTS), width)
    assert engine.record.dim == width
    assert np.abs(found - right).max() <= 1e-5
    assert np.abs(np.concatenate([engine.embed([row]) for row in ids]) - right).max() <= 1e-5
    assert np.abs(right[0] - right[1]).max() > shift


@pytest.mark.parametrize("mode", MODES)
def test_each_pooling_mode(mode: str, small_bert: Path, small_qwen: Path, tmp_path: Path) -> None:
    for base in (small_bert, small_qwen):
        check_equal(with_modules(base, tmp_path / base.name, pooling(mode)))


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": ["weightedmean", "cls", "max"]},
        {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True, "pooling_mode_cls_token": True},
        {"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_max_tokens": True, "pooling_mode": None},
    ],
)
def test_vectors_of_several_modes_are_joined(config: dict[str, Any], small_bert: Path, tmp_path: Path) -> None:
    """A list keeps its order; flags have one of their own, whatever the file's. Dense takes all of the numbers."""
    names = config.get("pooling_mode") or [name for name, value in config.items() if value is True]
    config = {"word_embedding_dimension": WIDTH} | {name: value for name, value in config.items() if value is not None}
    check_equal(with_modules(small_bert, tmp_path / "a", ("Pooling", config)), WIDTH * len(names))
    further = [dense(WIDTH * len(names), 7), NORMALIZE]
    check_equal(with_modules(small_bert, tmp_path / "b", ("Pooling", config), *further), 7)


def test_without_a_mode_the_mean_is_taken(small_bert: Path, tmp_path: Path) -> None:
    flags = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}
    folder = with_modules(small_bert, tmp_path / "a", ("Pooling", {"word_embedding_dimension": WIDTH} | flags))
    check_equal(folder)


LAYER_NORM: Module = ("LayerNorm", {"dimension": WIDTH})
DROPOUT: Module = ("Dropout", {"dropout": 0.5})


@pytest.mark.parametrize(
    ("modules", "width"),
    [
        ([], WIDTH),
        ([NORMALIZE], WIDTH),
        ([NORMALIZE, NORMALIZE], WIDTH),
        ([dense(WIDTH, 9)], 9),
        ([dense(WIDTH, 9), NORMALIZE], 9),
        ([NORMALIZE, dense(WIDTH, 9)], 9),
        ([NORMALIZE, dense(WIDTH, 9, bias=False), NORMALIZE], 9),
        ([dense(WIDTH, 40, ACTIVATION + "ReLU"), DROPOUT, dense(40, 12, "torch.nn.modules.linear.Identity")], 12),
        ([LAYER_NORM], WIDTH),
        ([dense(WIDTH, WIDTH, ACTIVATION + "GELU"), LAYER_NORM, NORMALIZE], WIDTH),
        ([LAYER_NORM, DROPOUT, dense(WIDTH, 5)], 5),
        ([dense(WIDTH, WIDTH, use_residual=True)], WIDTH),
        ([dense(WIDTH, 6, use_residual=True)], 6),
    ],
)
def test_modules_after_pooling_in_any_order(
    modules: list[Module], width: int, small_bert: Path, tmp_path: Path
) -> None:
    shift = 0.01 if LAYER_NORM in modules or NORMALIZE in modules else 0.05
    check_equal(with_modules(small_bert, tmp_path / "a", pooling("mean"), *modules), width, shift)


@pytest.mark.parametrize(
    "name",
    [
        *("ELU", "GELU", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "SiLU"),
        *("Sigmoid", "Softplus", "Softsign", "Tanh", "Tanhshrink"),
    ],
)
def test_each_activation_of_a_dense_module(name: str, tmp_path: Path) -> None:
    """On vectors, without a model before them."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    path = tmp_path / "1_Dense"
    write_modules(tmp_path, [dense(WIDTH, 9, ACTIVATION + name)])
    module = Dense.load(str(tmp_path), subfolder=path.name, local_files_only=True)
    vectors = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(2))
    right = module.forward({"sentence_embedding": vectors})["sentence_embedding"]
    step = model_modules.Dense(path, WIDTH, 9, bias=True, activation=ACTIVATION + name, residual=False)
    head = model_modules.Head(("cls",), include_prompt=True, steps=(step,), dim=None, pooling_file=path)
    found = load_head(head, "cpu")(vectors[:, None], torch.ones(50, 1, dtype=torch.bool))
    assert (found - right).abs().max() <= 1e-6
    assert right.std() > 0.05


def test_a_dense_module_that_names_no_activation_has_tanh(small_bert: Path, tmp_path: Path) -> None:
    folder = with_modules(small_bert, tmp_path / "a", pooling("cls"), dense(WIDTH, 9))
    path = folder / "2_Dense" / "config.json"
    path.write_text('{"in_features": 32, "out_features": 9}')
    check_equal(folder, 9)


def test_module_names_of_version_6(small_bert: Path, tmp_path: Path) -> None:
    modules = [pooling("cls"), dense(WIDTH, 9), NORMALIZE]
    check_equal(with_modules(small_bert, tmp_path / "a", *modules, names=NEW), 9)


@pytest.mark.parametrize(("dim", "width"), [(8, 8), (100, WIDTH)])
def test_truncate_dim_cuts_normalized_vectors(dim: int, width: int, small_bert: Path, tmp_path: Path) -> None:
    folder = with_modules(small_bert, tmp_path / "a", pooling("mean"), NORMALIZE)
    edit_json(folder / "config_sentence_transformers.json", truncate_dim=dim)
    check_equal(folder, width)


def test_settings_that_change_no_vector(small_bert: Path, tmp_path: Path) -> None:
    """Each of these is accepted, and sentence-transformers gives the same vectors with it as without."""
    folder = with_modules(small_bert, tmp_path / "a", pooling("mean", include_prompt=False), NORMALIZE)
    before = sentence_vectors(folder)
    modules = json.loads((folder / "modules.json").read_bytes())
    modules[0]["kwargs"] = ["task"]
    (folder / "modules.json").write_text(json.dumps(modules))
    edit_json(folder / "config_sentence_transformers.json", similarity_fn_name="dot", model_type="SentenceTransformer")
    edit_json(
        folder / "config.json", dtype="bfloat16", use_cache=True, tie_word_embeddings=True, output_hidden_states=True
    )
    edit_json(folder / "sentence_bert_config.json", model_args={"attn_implementation": "eager"}, unpad_inputs=False)
    check_equal(folder)
    assert np.abs(sentence_vectors(folder) - before).max() <= 1e-6


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Qwen2Model", {"is_causal": False}),
        ("Qwen3Model", {"is_causal": False}),
        ("LlamaModel", {"is_causal": False}),
        ("MistralModel", {"is_causal": False}),
        ("Gemma3TextModel", {"use_bidirectional_attention": True}),
    ],
)
def test_attention_that_looks_both_ways(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    """The setting moves vectors, and they are those of sentence-transformers, alone and padded."""
    make_decoder(tmp_path / "a", kind, **settings)
    check_equal(tmp_path / "a")
    causal = shutil.copytree(tmp_path / "a", tmp_path / "b")
    edit_json(causal / "config.json", **{name: not value for name, value in settings.items()})
    assert np.abs(sentence_vectors(causal) - sentence_vectors(tmp_path / "a")).max() > 0.01


def test_an_encoder_whose_attention_is_causal(small_bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small_bert, tmp_path / "a")
    edit_json(folder / "config.json", is_decoder=True)
    check_equal(folder)
    assert np.abs(sentence_vectors(folder) - sentence_vectors(small_bert)).max() > 0.01


def test_of_a_t5_model_only_the_encoder_runs(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    sizes = {"d_model": WIDTH, "d_kv": 32, "num_heads": 1, "d_ff": 64, "num_layers": 2, "vocab_size": 1024}
    make_model(tmp_path / "a", T5Model, T5Config(**sizes, decoder_start_token_id=0))
    check_equal(tmp_path / "a", shift=0.005)
