"""A tokenizer gives the ids of transformers, or its model is refused with the setting that makes the difference."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.errors import UsageError
from embedkit.model.tokenizer import load_reference, load_tokenizer
from embedkit.model.tokenizer_settings import check_tokenizer
from embedkit.model.transformers_classes import BASE_TYPES, FORCED, OF_TYPE, PYTHON_CLASSES, tokenizer_class
from tests.conftest import chat, embedkit, write_chats
from tests.support.tokenizers import (
    albert,
    bert,
    deberta_v2,
    gemma,
    mistral,
    mpnet,
    qwen2,
    roberta,
    write_json,
    xlm_roberta,
)

TEXTS = [
    "The river runs past the old mill and the stone bridge.",
    "HELLO Ångström Wörld! ÀÉ 漢字 🙂",
    "it's don't  a   b\n\nc\td",
    "1234 5 [MASK] </s> x<|im_end|>y <mask>",
    "a",
]
THINK = {"content": "<think>", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
Make = Callable[[Path], Path]


def without_added_token(model: Path, content: str) -> Path:
    """Remove one of tokenizer.json's added tokens."""
    whole = json.loads((model / "tokenizer.json").read_text())
    added = [token for token in whole["added_tokens"] if token["content"] != content]
    return write_json(model, tokenizer=whole | {"added_tokens": added})


SAME: dict[str, Make] = {
    "bert": bert,
    "bert, cased": lambda folder: bert(folder, {"lowercase": False}, do_lower_case=False),
    "bert, accents kept": lambda folder: bert(folder, {"strip_accents": False}, strip_accents=False),
    "bert, no Chinese": lambda folder: bert(folder, {"handle_chinese_chars": False}, tokenize_chinese_chars=False),
    "distilbert": lambda folder: bert(folder, tokenizer_class="DistilBertTokenizerFast"),
    "bert, file as it is": lambda folder: bert(folder, tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False),
    "roberta": roberta,
    "roberta, prefix space": lambda folder: roberta(folder, True, add_prefix_space=True),
    "qwen3": qwen2,
    "qwen2": lambda folder: qwen2(folder, "qwen2", tokenizer_class="PreTrainedTokenizerFast"),
    "modernbert": lambda folder: qwen2(folder, "modernbert", r"\s+|\S+", tokenizer_class="PreTrainedTokenizerFast"),
    "mistral": mistral,
    "llama, file as it is": lambda folder: mistral(folder, "llama", tokenizer_class="PreTrainedTokenizerFast"),
    "gemma": gemma,
    "xlm-roberta": xlm_roberta,
    "t5": lambda folder: xlm_roberta(folder, "T5Tokenizer"),
    "gpt2": lambda folder: roberta(folder, tokenizer_class="GPT2Tokenizer"),
    "camembert": lambda folder: xlm_roberta(folder, "CamembertTokenizer"),
    "mpnet": mpnet,
    "albert": albert,
    "deberta-v2": deberta_v2,
    "no class": lambda folder: bert(folder, tokenizer_class=...),
}
OTHER: dict[str, tuple[Make, str]] = {
    "do_lower_case": (
        lambda folder: bert(folder, do_lower_case=False),
        r"tokenizer_config\.json: transformers builds BertTokenizer with other settings \(do_lower_case false, ",
    ),
    "do_lower_case, by default": (
        lambda folder: bert(folder, {"lowercase": False}),
        r"builds BertTokenizer with other settings \(do_lower_case not set, ",
    ),
    "do_lower_case, no class named": (
        lambda folder: bert(folder, {"lowercase": False}, tokenizer_class=...),
        r"builds BertTokenizer with other settings \(do_lower_case not set, ",
    ),
    "strip_accents": (lambda folder: bert(folder, strip_accents=False), r"strip_accents false"),
    "tokenize_chinese_chars": (
        lambda folder: bert(folder, tokenize_chinese_chars=False),
        r"tokenize_chinese_chars false",
    ),
    "do_lower_case of MPNet": (
        lambda folder: mpnet(folder, do_lower_case=False),
        r"builds MPNetTokenizer with other settings \(do_lower_case false, ",
    ),
    "keep_accents": (
        lambda folder: albert(folder, keep_accents=True),
        r"builds AlbertTokenizer .* keep_accents true",
    ),
    "do_lower_case of ALBERT": (
        lambda folder: albert(folder, do_lower_case=False),
        r"builds AlbertTokenizer with other settings \(do_lower_case false",
    ),
    "do_lower_case of DeBERTa": (
        lambda folder: deberta_v2(folder, do_lower_case=True),
        r"builds DebertaV2Tokenizer with other settings \(do_lower_case true",
    ),
    "split_by_punct": (
        lambda folder: deberta_v2(folder, split_by_punct=True),
        r"builds DebertaV2Tokenizer .* split_by_punct true",
    ),
    "cls_token": (lambda folder: bert(folder, cls_token="[SEP]"), r"builds BertTokenizer with other settings"),
    "add_prefix_space": (
        lambda folder: roberta(folder, add_prefix_space=True),
        r"builds RobertaTokenizer with other settings \(add_prefix_space true\) .* \"PreTrainedTokenizerFast\"",
    ),
    "add_prefix_space of XLM-R": (
        lambda folder: xlm_roberta(folder, add_prefix_space=False),
        r"builds XLMRobertaTokenizer with other settings \(add_prefix_space false\)",
    ),
    "tokenizer_class": (
        lambda folder: qwen2(folder, split=r"\s+|\S+"),
        r"builds Qwen2Tokenizer with other settings \(add_prefix_space not set\)",
    ),
    "model_type": (
        lambda folder: qwen2(folder, "qwen2", r"\s+|\S+", tokenizer_class="PreTrainedTokenizerFast"),
        r"builds Qwen2Tokenizer with other settings .*\. Embed with sentence-transformers$",
    ),
    "tokenizer_class of Llama 2": (
        lambda folder: mistral(folder, "llama"),
        r"builds LlamaTokenizer with other settings \(add_prefix_space not set, legacy not set\)",
    ),
    "added_tokens_decoder": (
        lambda folder: qwen2(folder, added_tokens_decoder={"900": THINK, "0": THINK | {"content": "<|endoftext|>"}}),
        r"it has the special or added tokens '<think>'",
    ),
    "a token of the class": (
        lambda folder: without_added_token(gemma(folder, mask_token=...), "<mask>"),
        r"it has the special or added tokens '<mask>'",
    ),
    "eos_token": (lambda folder: qwen2(folder, eos_token="</stop>"), r"it has the special or added tokens '</stop>'"),
    "additional_special_tokens": (
        lambda folder: mistral(folder, additional_special_tokens=["<think>"]),
        r"it has the special or added tokens '<think>'",
    ),
    "image_token": (lambda folder: gemma(folder, image_token="<img>"), r"it has the special or added tokens '<img>'"),
    "special_tokens_map.json": (
        lambda folder: write_json(mistral(folder), special_tokens_map={"mask_token": THINK}),
        r"special_tokens_map\.json, added_tokens\.json or its class has",
    ),
    "added_tokens.json": (
        lambda folder: write_json(mistral(folder), added_tokens={"river": 900}),
        r"the special or added tokens 'river'",
    ),
    "split_special_tokens": (
        lambda folder: mistral(folder, split_special_tokens=True),
        r"tokenizer_config\.json: split_special_tokens changes token ids",
    ),
}


def test_a_run_is_refused_when_it_is_requested(tmp_path: Path) -> None:
    data = write_chats(tmp_path / "a.jsonl", [chat("a", "b")])
    model = bert(tmp_path / "model", do_lower_case=False)
    request = ["--dataset", data, "--model", model, "--engine", "hash", "--max-length", 64, "--output-dir", tmp_path]
    done = embedkit("prepare", *request, "--run-name", "run", code=2)
    assert (
        "tokenizer_config.json: transformers builds BertTokenizer with other settings (do_lower_case false"
        in done.stderr
    )
    assert not (tmp_path / "run").exists()


def ids_of(model: Path, texts: list[str] = TEXTS, **options: Any) -> list[list[int]]:
    """The ids that transformers gives."""
    from transformers import AutoTokenizer

    ids: list[list[int]] = AutoTokenizer.from_pretrained(model, **options)([*texts, "x<think>y river", "<img></stop>"])[
        "input_ids"
    ]
    return ids


def ours(model: Path, load: Any = load_tokenizer) -> list[list[int]]:
    return [ids.tolist() for ids in load(model).encode([*TEXTS, "x<think>y river", "<img></stop>"])]


@pytest.mark.parametrize("name", SAME)
def test_a_tokenizer_that_is_accepted_is_that_of_transformers(name: str, tmp_path: Path) -> None:
    model = SAME[name](tmp_path / "model")
    check_tokenizer(model)
    assert ours(model) == ours(model, load_reference) == ids_of(model)


@pytest.mark.parametrize("name", OTHER)
def test_a_setting_that_changes_ids_is_refused_by_name(name: str, tmp_path: Path) -> None:
    """transformers gives other ids than tokenizer.json for some text."""
    make, message = OTHER[name]
    model = make(tmp_path / "model")
    with pytest.raises(UsageError, match=message):
        check_tokenizer(model)
    assert ours(model) != ids_of(model)


def test_tokens_that_a_class_would_lose_are_named(tmp_path: Path) -> None:
    """transformers takes added tokens from added_tokens_decoder only, if there is one."""
    model = bert(tmp_path / "model", added_tokens_decoder={"4": THINK | {"content": "[MASK]", "special": True}})
    check_tokenizer(model)  # the others are named as special tokens
    whole = json.loads((model / "tokenizer.json").read_text())
    token = THINK | {"id": len(whole["model"]["vocab"]), "special": False}
    write_json(model, tokenizer=whole | {"added_tokens": [*whole["added_tokens"], token]})
    with pytest.raises(
        UsageError, match=r"added_tokens_decoder has no '<think>', which is an added token in tokenizer"
    ):
        check_tokenizer(model)
    assert ours(model) != ids_of(model)


def test_custom_code_and_classes_in_python_are_refused(tmp_path: Path) -> None:
    for auto_map in ({"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", None]}, ["tokenization.Mine", None]):
        model = qwen2(tmp_path / "code", auto_map=auto_map)
        with pytest.raises(UsageError, match=r"tokenizer_config\.json: auto_map names custom code as the tokenizer"):
            check_tokenizer(model)
    check_tokenizer(qwen2(tmp_path / "model code", auto_map={"AutoModel": "modeling.Mine"}))
    with pytest.raises(UsageError, match=r"tokenizer_class BertJapaneseTokenizer does not use tokenizer\.json"):
        check_tokenizer(bert(tmp_path / "japanese", tokenizer_class="BertJapaneseTokenizer"))
    with pytest.raises(UsageError, match=r"fix_mistral_regex changes token ids"):
        check_tokenizer(mistral(tmp_path / "regex", fix_mistral_regex=True))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"add_eos_token": True, "eos_token": ...},
            r"add_eos_token is true, but no file names the eos_token\. Name it",
        ),
        (
            {"add_bos_token": False},
            r"add_bos_token is false, but tokenizer\.json adds '<s>'; transformers 4 obeys the one",
        ),
        ({"add_bos_token": True, "bos_token": "</s>"}, r"add_bos_token is true, but tokenizer\.json adds '<s>'"),
    ],
)
def test_ends_that_contradict_the_file_are_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    """For a class that obeys these settings in transformers 4. No other class does, so tokenizer.json counts there."""
    model = mistral(tmp_path / "model", "unknown", **config)
    with pytest.raises(UsageError, match=message):
        check_tokenizer(model)
    if config.get("add_bos_token") is False:
        check_tokenizer(mistral(tmp_path / "other", tokenizer_class="PreTrainedTokenizerFast", **config))


def test_settings_of_sentence_transformers(tmp_path: Path) -> None:
    harmless = {
        "max_seq_length": 256,
        "do_lower_case": True,
        "tokenizer_args": {"model_max_length": 128, "padding_side": "left", "trust_remote_code": True},
        "processing_kwargs": {"text": {"padding": "max_length", "truncation": False}, "audio": {"anything": 1}},
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "query_expansion": None,
        "unpad_inputs": False,
    }
    model = write_json(bert(tmp_path), sentence_bert_config=harmless)
    check_tokenizer(model)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"tokenizer_args": {"add_eos_token": True}}, "tokenizer_args.add_eos_token"),
        ({"processor_kwargs": {"do_lower_case": True}}, "processor_kwargs.do_lower_case"),
        ({"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs: add_special_tokens"),
        ({"processing_kwargs": {"common": {"split_special_tokens": True}}}, "processing_kwargs: split_special_tokens"),
        ({"modality_config": {"text": {}, "message": {}}}, "modality_config"),
        ({"modality_config": {"image": {}}}, "modality_config"),
        ({"tokenizer_name_or_path": "elsewhere"}, "tokenizer_name_or_path"),
        ({"query_expansion": {"length": 32}}, "query_expansion"),
        ({"a_new_setting": 1}, "a_new_setting"),
    ]
    for config, name in refused:
        write_json(model, sentence_bert_config=config)
        where = rf"sentence_bert_config\.json: embedkit does not know the setting {re.escape(name)}, which changes"
        with pytest.raises(UsageError, match=where):
            check_tokenizer(model)
    (model / "sentence_bert_config.json").unlink()
    write_json(model, **{"sentence_xlm-roberta_config": {"a_new_setting": 1}})
    with pytest.raises(
        UsageError, match=r"sentence_xlm-roberta_config\.json: embedkit does not know the setting a_new"
    ):
        check_tokenizer(model)


def test_classes_of_types_are_those_of_transformers() -> None:
    """The tables of transformers_classes.py, against AutoTokenizer's own."""
    from transformers.models.auto import tokenization_auto

    theirs = tokenization_auto.TOKENIZER_MAPPING_NAMES
    assert {kind: theirs[kind] for kind in OF_TYPE} == OF_TYPE
    base = ("TokenizersBackend", "MistralCommonBackend")
    assert all(theirs[kind] in base for kind in BASE_TYPES)
    assert {kind: "" if theirs[kind] in base else theirs[kind] for kind in FORCED} == FORCED
    assert FORCED.keys() <= tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    for name in PYTHON_CLASSES:
        kind = tokenization_auto.tokenizer_class_from_name(name)
        assert kind is not None
        assert "TokenizersBackend" not in [base.__name__ for base in kind.__mro__]


def test_a_type_of_its_own_has_the_class_that_the_folder_names(tmp_path: Path) -> None:
    model = write_json(
        tmp_path, config={"model_type": "new"}, tokenizer_config={"tokenizer_class": "XLMRobertaTokenizer"}
    )
    assert tokenizer_class(model) == "XLMRobertaTokenizer"
    write_json(model, tokenizer_config={}, config={"model_type": "new", "tokenizer_class": "BertTokenizerFast"})
    assert tokenizer_class(model) == "BertTokenizer"
    write_json(model, config={"model_type": "new"})
    assert tokenizer_class(model) == ""
    write_json(model, config={"model_type": "qwen3"})
    assert tokenizer_class(model) == "Qwen2Tokenizer"
    (model / "tokenizer_config.json").unlink()
    assert tokenizer_class(model) == ""  # tokenizer.json alone


def sentence_model(folder: Path, **config: Any) -> Path:
    """A small BERT with mean pooling whose tokenizer does not lower."""
    import torch
    from transformers import BertConfig, BertModel

    model = bert(folder, {"lowercase": False, "strip_accents": False}, do_lower_case=False)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=600, **shape)).save_pretrained(model)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (model / "modules.json").write_text(json.dumps(modules))
    write_json(model / "1_Pooling", config={"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    return write_json(model, sentence_bert_config=config)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("prefix", ["", "Query: FIND "])
def test_lower_case_and_prompts_are_those_of_sentence_transformers(lower: bool, prefix: str, tmp_path: Path) -> None:
    """Texts are not stripped; the prompt is put before the text and lowered with it; special tokens are not lowered."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = sentence_model(tmp_path, max_seq_length=256, do_lower_case=lower)
    check_tokenizer(model)
    texts = [*TEXTS, "  ÄÖ  ", "Straße İSTANBUL ΣΑΣ"]
    theirs = SentenceTransformer(str(model), device="cpu")
    ids = load_tokenizer(model, prefix).encode(texts)
    for text, own in zip(texts, ids, strict=True):
        features = theirs.preprocess([text], prompt=prefix or None)
        assert own.tolist() == features["input_ids"][0].tolist()
    assert (
        load_tokenizer(model).encode(["RIVER"]).ids.tolist() == load_tokenizer(model).encode(["river"]).ids.tolist()
    ) == lower
    wanted = theirs.encode(texts, prompt=prefix or None)
    with torch.no_grad():
        for own, vector in zip(ids, wanted, strict=True):
            hidden = theirs[0].model(input_ids=torch.tensor([own.tolist()])).last_hidden_state[0]
            assert np.allclose(hidden.mean(0).numpy(), vector, atol=1e-5)


def test_the_demo_model_is_accepted(minilm: Path, tiny_qwen: Path, tokenizer_only: Path) -> None:
    for model in (minilm, tiny_qwen, tokenizer_only):
        check_tokenizer(model)
