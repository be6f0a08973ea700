"""Refuses a model whose tokenizer would give other ids in sentence-transformers than tokenizer.json does here.

Settings beside tokenizer.json are honoured (tokenizer_file.py), have no influence on ids, or are refused by name. They
are those that the readers of sentence-transformers 6.2 (its Transformer module) and transformers 5.19 (AutoTokenizer)
know. transformers_classes.py says what the classes of transformers make of them.
"""

from pathlib import Path
from typing import Any

import msgspec

from embedkit.errors import UsageError
from embedkit.model.json_file import read_json, read_sentence_config
from embedkit.model.tokenizer import reference_of
from embedkit.model.tokenizer_file import (
    ENDS,
    added_ends,
    decode_part,
    join_parts,
    read_parts,
    read_tokenizer,
    special_token,
)
from embedkit.model.transformers_classes import (
    CLASSES,
    DEFAULT_TOKENS,
    FORCED,
    HONOURS_ENDS,
    PYTHON_CLASSES,
    tokenizer_class,
)

HARMLESS = {
    *("max_seq_length", "query_length", "document_length", "unpad_inputs", "module_output_name", "do_lower_case"),
    *("transformer_task", "model_args", "model_kwargs", "config_args", "config_kwargs"),  # these change the model
}
"""Keys of sentence_bert_config.json that change no ids of a text that fits, or that tokenizer_file.py honours."""
HARMLESS_LOADING = {"model_max_length", "padding_side", "truncation_side", "use_fast", "trust_remote_code"}
HARMLESS_CALLING = {"padding", "truncation", "max_length", "pad_to_multiple_of", "return_tensors"}
SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
Flags = dict[str, bool]
Parts = dict[str, msgspec.Raw]
TRUST_FILE = 'If tokenizer.json is right, set "tokenizer_class" to "PreTrainedTokenizerFast" there'

PROBES = (
    "Héllo WÖRLD, ÀÉ! Ångström",
    "漢字かな交じり文 한글 кириллица العربية",
    "a  b   c     d",
    "tabs\tand\nlines\n\n\nand \r\n more",
    "don't it's I'LL we've ``quoted'' \"text\"",
    "1234567 3.14 x=y+z; f(a,b)[0]",
    "ﬁ ½ ① é e\u0301 ß İ",
    "🙂🙃 👩\u200d👩\u200d👧 \u00a0\u2003\u3000x",
    "\x00\x01a\u00adb\ufeffc\ufffd",
    "supercalifragilisticexpialidocious" * 4,
)
"""Texts on which normalizers, pre-tokenizers and post-processors show how they differ. None begins or ends with white
space: embedkit strips its texts."""


def check_tokenizer(model: Path) -> None:
    """Raise UsageError if a setting in the model's folder changes ids and is not honoured, or a file cannot be read."""
    _check_sentence_config(model)
    parts = read_parts(model)
    _check_tokenizer_config(model, parts)
    read_tokenizer(model)
    _check_class_and_tokens(model, parts)


def _check_sentence_config(model: Path) -> None:
    """Settings of sentence-transformers' Transformer module."""
    name, config = read_sentence_config(model)
    loading, calling = ("tokenizer_args", "processor_kwargs"), ("processing_kwargs",)
    for key, value in config.items():
        if key in HARMLESS or not value:
            continue
        changes = [key]
        if key in loading and isinstance(value, dict):
            changes = [f"{key}.{inner}" for inner in value if inner not in HARMLESS_LOADING]
        elif key in calling and isinstance(value, dict):
            texts = {**value.get("common", {}), **value.get("text", {})}
            changes = [f"{key}: {inner}" for inner in texts if inner not in HARMLESS_CALLING]
        elif key == "modality_config" and isinstance(value, dict):
            # A `message` goes through the chat template, even if the input is a text.
            changes = [] if "text" in value and "message" not in value else [key]
        if changes:
            raise UsageError(
                f"{model / name}: embedkit does not know the setting {changes[0]}, which changes token ids. Embed with "
                "sentence-transformers, or remove it if the model gives the right vectors without it"
            )


def _check_tokenizer_config(model: Path, parts: Parts) -> None:
    """Settings of tokenizer_config.json that no class is needed to understand."""
    path, config = model / "tokenizer_config.json", read_json(model, "tokenizer_config.json")
    auto_map = config.get("auto_map")
    if auto_map and (not isinstance(auto_map, dict) or "AutoTokenizer" in auto_map):
        raise UsageError(
            f"{path}: auto_map names custom code as the tokenizer, which embedkit does not run. If tokenizer.json "
            "alone gives the same token ids, remove auto_map"
        )
    for setting in ("split_special_tokens", "fix_mistral_regex"):
        if config.get(setting):
            raise UsageError(
                f"{path}: {setting} changes token ids, and embedkit does not know it. Remove it if the model gives the "
                "right vectors without it"
            )
    kind = tokenizer_class(model)
    if kind in PYTHON_CLASSES:
        raise UsageError(
            f"{path}: tokenizer_class {kind} does not use tokenizer.json, which embedkit needs. {TRUST_FILE}"
        )
    _check_ends(model, kind, parts)


def _check_ends(model: Path, kind: str, parts: Parts) -> None:
    """add_bos_token and add_eos_token against tokenizer.json, where transformers 4 obeyed them and 5 does not.

    tokenizer_file.py adds a token that tokenizer.json does not. What it adds against the settings, it would add anyway.
    """
    config = read_json(model, "tokenizer_config.json")
    there = added_ends(decode_part(parts, "post_processor"))
    for setting, (name, end) in ENDS.items():
        value, token = config.get(setting), special_token(model, name)
        if value is True and token is None and there[end] is None and kind in HONOURS_ENDS:
            raise UsageError(
                f"{model / 'tokenizer_config.json'}: {setting} is true, but no file names the {name}. Name it there"
            )
        is_contradicted = (value is False and there[end] is not None) or (
            value is True and there[end] not in (None, token)
        )
        if is_contradicted and kind in HONOURS_ENDS:
            raise UsageError(
                f"{model / 'tokenizer_config.json'}: {setting} is {str(value).lower()}, but tokenizer.json adds "
                f"{there[end]!r}; transformers 4 obeys the one, and transformers 5 the other. Remove {setting} if "
                "tokenizer.json is right"
            )


def _check_class_and_tokens(model: Path, parts: Parts) -> None:
    """Build the tokenizer as transformers does, and compare the ids of some texts with those of tokenizer.json."""
    path, kind = model / "tokenizer_config.json", tokenizer_class(model)
    there = {token["content"]: _flags(token) for token in decode_part(parts, "added_tokens") or []}
    new = _new_tokens(model, DEFAULT_TOKENS.get(kind, {}), there)
    if kind not in CLASSES and not new:
        return  # transformers takes tokenizer.json as it is
    built = reference_of(model, join_parts(parts)).backend
    texts = [*PROBES, *(text for token in there | new for text in (f"x{token}y", f"x {token} y"))]
    ids = _encode(built, texts)
    if kind in CLASSES:
        config, (rebuild, names) = read_json(model, "tokenizer_config.json"), CLASSES[kind]
        # For some types transformers takes its own class, whatever the file names.
        is_forced = read_json(model, "config.json").get("model_type") in FORCED
        hint = "Embed with sentence-transformers" if is_forced else TRUST_FILE
        rebuild(built, _class_settings(model, names))
        if _encode(built, texts) != ids:
            settings = ", ".join(f"{name} {_show(config.get(name))}" for name in names) or "it has none in this file"
            raise UsageError(
                f"{path}: transformers builds {kind} with other settings ({settings}) than tokenizer.json has, which "
                f"gives other token ids. {hint}"
            )
        listed = {str(token["content"]) for token in config.get("added_tokens_decoder", {}).values()}
        if listed and (lost := sorted(there.keys() - listed - set(map(_text, _special_tokens(config))))):
            raise UsageError(
                f"{path}: added_tokens_decoder has no {lost[0]!r}, which is an added token in tokenizer.json; "
                f"transformers builds {kind} without it. {hint}"
            )
    built.add_tokens([_added_token(text, flags) for text, flags in new.items()])
    if _encode(built, texts) != ids:
        raise UsageError(
            f"{path}: it has the special or added tokens {', '.join(map(repr, sorted(new)[:3]))} (or "
            "special_tokens_map.json, added_tokens.json or its class has), which tokenizer.json has not, or with other "
            "flags; transformers adds them, which gives other ids. Add them to tokenizer.json, or remove them there"
        )


def _encode(backend: Any, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in backend.encode_batch_fast(texts)]


def _show(value: object) -> str:
    return "not set" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _class_settings(model: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The settings that a class reads: its own, and the names of the special tokens."""
    config = read_json(model, "tokenizer_config.json")
    settings = {name: config.get(name) for name in names} | {
        name: special_token(model, name) for name in SPECIAL_TOKENS
    }
    return {name: value for name, value in settings.items() if value is not None}


def _new_tokens(model: Path, defaults: dict[str, str], there: dict[str, Flags]) -> dict[str, Flags]:
    """Tokens that transformers adds to those of tokenizer.json, or with other flags, by their text.

    defaults: special tokens of the class. there: the added tokens of tokenizer.json.
    """
    config = defaults | read_json(model, "tokenizer_config.json")
    wanted: dict[str, Flags] = {}
    if "added_tokens_decoder" in config:
        listed = {str(token["content"]): _flags(token) for token in config["added_tokens_decoder"].values()}
        wanted = {text: flags for text, flags in listed.items() if there.get(text) != flags}
    else:
        config = config | read_json(model, "special_tokens_map.json")
        special = set(map(_text, _special_tokens(config)))
        more = {text: _flags({"special": text in special}) for text in read_json(model, "added_tokens.json")}
        wanted = {text: flags for text, flags in more.items() if text not in there}
    for token in _special_tokens(config):
        if _text(token) not in there | wanted:
            wanted[_text(token)] = _flags((token if isinstance(token, dict) else {}) | {"special": True})
    return wanted


def _flags(token: dict[str, Any]) -> Flags:
    """The flags of an added token: those that it has, and the defaults of Hugging Face tokenizers."""
    defaults = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not token.get("special", False)}
    return {key: bool(token.get(key, default)) for key, default in (defaults | {"special": False}).items()}


def _added_token(text: str, flags: Flags) -> Any:
    from tokenizers import AddedToken

    return AddedToken(text, **flags)


def _text(token: str | dict[str, Any]) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _special_tokens(config: dict[str, Any]) -> list[str | dict[str, Any]]:
    """Special tokens that tokenizer_config.json names: the usual ones, further ones, and any other `*_token`."""
    named = [config[key] for key in config if key.endswith("_token") and isinstance(config[key], str | dict)]
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    return [*named, *(more.values() if isinstance(more, dict) else more)]
