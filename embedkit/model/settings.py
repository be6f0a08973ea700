"""Settings of a model folder, outside its modules, that change vectors and that no engine honours.

Sources: sentence-transformers 6.2 (`Transformer.load_config`, `BaseModel._load_config_modules`), transformers 5.19
(quantizers, adapters, custom code) and vLLM 0.32 (`transformers_utils/config.py`). docs/models.md lists all settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedkit.errors import UsageError
from embedkit.model.json_file import read_json, read_sentence_config

QUANTIZED = ("quantization_config", "compression_config")
"""Keys of config.json, or of the text model's part of it, whose weights are quantized."""
QUANTIZED_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
READS_BIDIRECTIONAL = {"gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "gemma4_text"}
"""Model types whose code in transformers reads use_bidirectional_attention."""
LOADING = {
    *("attn_implementation", "cache_dir", "device_map", "dtype", "local_files_only", "low_cpu_mem_usage"),
    *("padding_side", "revision", "torch_dtype", "truncation_side", "trust_remote_code", "use_safetensors"),
}
"""Arguments that change where and how a model is loaded, and no vector: --dtype decides the type, nothing is cut, and
each row is pooled at its own tokens, on whichever side others pad."""
TEXT_METHOD = {"method": "forward", "method_output_name": "last_hidden_state"}
"""How a text becomes hidden states, unless modality_config says otherwise."""


def check_settings(model: Path) -> None:
    """Raise UsageError if the folder has a setting that changes vectors and that no engine honours.

    The message has the file, the setting and what to do.
    """
    _check_weight_settings(model)
    path = model / "config.json"
    config = read_json(model, path.name)
    if config.get("auto_map"):
        raise UsageError(
            f"{path}: auto_map: the model comes with its own code, which is not run, and the built-in code of the same "
            "name may give other vectors; choose a model without it"
        )
    if config.get("use_bidirectional_attention") and config.get("model_type") not in READS_BIDIRECTIONAL:
        raise UsageError(
            f"{path}: use_bidirectional_attention is ignored for the model type {config.get('model_type')}, whose "
            "attention would be causal; is_causal is the setting that is read"
        )
    _check_transformer(model)
    name = "config_sentence_transformers.json"
    kind = read_json(model, name).get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise UsageError(f"{model / name}: model_type {kind}: such a model gives no single vector per text")


def _check_weight_settings(model: Path) -> None:
    """Raise UsageError for weights that are quantized, or that an adapter changes."""
    if (model / "adapter_config.json").exists():
        raise UsageError(
            f"{model / 'adapter_config.json'}: an adapter is not applied. Merge it into the weights "
            "(merge_and_unload of peft, then save_pretrained), and remove this file"
        )
    config = read_json(model, "config.json")
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        for name in QUANTIZED:
            if part.get(name):
                raise UsageError(f"{model / 'config.json'}: {name}: quantized weights are not read; use the original")
    for name in QUANTIZED_FILES:
        if (model / name).exists():
            raise UsageError(f"{model / name}: quantized weights are not read; use the original model")


def _check_transformer(model: Path) -> None:
    """Raise UsageError if the Transformer module has settings that change its inputs, weights or outputs."""
    file, config = read_sentence_config(model)
    found = [
        *_arguments(config),
        *(f"processing_kwargs: {name}" for name in ("common", "text") if _part(config, "processing_kwargs").get(name)),
        *(
            name
            for name in ("document_length", "query_length", "query_expansion", "tokenizer_name_or_path")
            if config.get(name) is not None
        ),
    ]
    if config.get("transformer_task", "feature-extraction") != "feature-extraction":
        found.append(f"transformer_task {config['transformer_task']}")
    if config.get("module_output_name", "token_embeddings") != "token_embeddings":
        found.append(f"module_output_name {config['module_output_name']}")
    modalities = _part(config, "modality_config")
    if modalities and modalities.get("text") != TEXT_METHOD:
        found.append("modality_config")
    if found:
        raise UsageError(
            f"{model / file}: {found[0]} is not honoured by any engine, so vectors would be wrong; choose another model"
        )


def _arguments(config: Mapping[str, Any]) -> list[str]:
    """Arguments of the model, its configuration and its tokenizer that may change vectors."""
    kinds = ("model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs")
    return [f"{kind}: {name}" for kind in kinds for name in _part(config, kind) if name not in LOADING]


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}
