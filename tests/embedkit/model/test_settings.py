"""Settings outside the modules that change vectors and that no engine honours: each is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from embedkit.errors import UsageError
from embedkit.model.json_file import SENTENCE_CONFIGS
from embedkit.model.settings import check_settings

TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
ST, BERT = "config_sentence_transformers.json", "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter_config.json", {}, r"an adapter is not applied\. Merge it into the weights"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config: quantized weights"),
        ("config.json", {"compression_config": {"x": 1}}, "compression_config: quantized weights"),
        ("config.json", {"text_config": {"quantization_config": {"x": 1}}}, "quantization_config: quantized weights"),
        *((name, {}, "quantized weights") for name in ("hf_quant_config.json", "quantize_config.json")),
        ("quant_config.json", {}, "quantized weights are not read; use the original"),
        ("config.json", {"auto_map": {"AutoModel": "modeling.M"}}, "auto_map: the model comes with its own code"),
        ("config.json", {"model_type": "llama", "use_bidirectional_attention": True}, "is ignored for the model type"),
        (ST, {"model_type": "SparseEncoder"}, "model_type SparseEncoder: such a model gives no single vector per text"),
        (BERT, {"model_args": {"subfolder": "x"}}, "model_args: subfolder is not honoured"),
        (BERT, {"model_kwargs": {"file_name": "x"}}, "model_kwargs: file_name is not honoured"),
        (BERT, {"config_args": {"num_hidden_layers": 1}}, "config_args: num_hidden_layers is not honoured"),
        (BERT, {"config_kwargs": {"is_causal": False}}, "config_kwargs: is_causal is not honoured"),
        (BERT, {"tokenizer_args": {"use_fast": False}}, "tokenizer_args: use_fast is not honoured"),
        (BERT, {"processor_kwargs": {"model_max_length": 9}}, "processor_kwargs: model_max_length is not honoured"),
        (BERT, {"processing_kwargs": {"text": {"add_special_tokens": False}}}, "processing_kwargs: text is not honou"),
        (BERT, {"processing_kwargs": {"common": {"max_length": 8}}}, "processing_kwargs: common is not honoured"),
        (BERT, {"document_length": 180}, "document_length is not honoured"),
        (BERT, {"query_length": 32}, "query_length is not honoured"),
        (BERT, {"query_expansion": {"strategy": "fixed"}}, "query_expansion is not honoured"),
        (BERT, {"tokenizer_name_or_path": "bert-base"}, "tokenizer_name_or_path is not honoured"),
        (BERT, {"transformer_task": "fill-mask"}, "transformer_task fill-mask is not honoured"),
        (BERT, {"module_output_name": "scores"}, "module_output_name scores is not honoured"),
        (BERT, {"modality_config": {"image": TEXT}}, "modality_config is not honoured"),
        (BERT, {"modality_config": {"text": TEXT | {"method": "encode"}}}, "modality_config is not honoured"),
        *((name, {"document_length": 180}, "document_length is not honoured") for name in SENTENCE_CONFIGS),
    ],
)
def test_a_setting_that_no_engine_honours_is_refused(
    file: str, content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    check_settings(tmp_path)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UsageError, match=message) as error:
        check_settings(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / file}: ")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"auto_map": {}, "quantization_config": None, "torch_dtype": "float16", "is_causal": False}),
        ("config.json", {"model_type": "gemma3_text", "use_bidirectional_attention": True}),
        ("config.json", {"text_config": "x"}),
        (ST, {"model_type": "SentenceTransformer", "similarity_fn_name": "dot", "prompts": {}}),
        (BERT, {"max_seq_length": 9, "do_lower_case": True, "model_args": {"torch_dtype": "x"}, "unpad_inputs": False}),
        (BERT, {"tokenizer_args": {"padding_side": "left"}, "document_length": None, "processing_kwargs": {}}),
        (BERT, {"modality_config": {"text": TEXT}, "module_output_name": "token_embeddings"}),
        (BERT, {"transformer_task": "feature-extraction", "processing_kwargs": {"chat_template": {"a": 1}}}),
    ],
)
def test_settings_without_effect_are_accepted(file: str, content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    check_settings(tmp_path)


def test_the_first_file_of_transformer_settings_counts(tmp_path: Path) -> None:
    """sentence-transformers reads no further than the first that is not empty."""
    (tmp_path / BERT).write_text("{}")
    (tmp_path / "sentence_xlnet_config.json").write_text('{"query_length": 3}')
    with pytest.raises(UsageError, match=r"sentence_xlnet_config\.json: query_length"):
        check_settings(tmp_path)
    (tmp_path / BERT).write_text('{"max_seq_length": 9}')
    check_settings(tmp_path)
