"""Reads tokenizer.json as the model needs it: nothing truncated or padded, and with the settings of files beside it.

tokenizer.json decides the ids. Two settings beside it add to it, as their libraries do:

- `do_lower_case` of sentence_bert_config.json. sentence-transformers 6.2 puts a Lowercase normalizer before the
  tokenizer's own, unless that has one.
- `add_bos_token` and `add_eos_token` of tokenizer_config.json. transformers 4 adds the token where tokenizer.json does
  not; transformers 5 ignores the settings, so that intfloat/e5-mistral-7b-instruct pools the wrong token there.

tokenizer_settings.py refuses a model with any other setting that changes ids.
"""

from pathlib import Path
from typing import Any

import msgspec

from embedkit.documents import UNREADABLE
from embedkit.errors import UsageError
from embedkit.model.json_file import read_json, read_sentence_config

ENDS = {"add_bos_token": ("bos_token", 0), "add_eos_token": ("eos_token", 1)}
"""For each setting: the name of its token, and the end of the text at which the token is added."""


def tokenizer_file(model: Path) -> Path:
    """Path of the model's tokenizer.json. Raises UsageError if the folder has none."""
    file = model / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"--model {model}: no tokenizer.json there; embedkit needs the model's fast tokenizer")
    return file


def read_tokenizer(model: Path) -> str:
    """The model's tokenizer as JSON: tokenizer.json without `truncation` and `padding`, with what settings add to it.

    Raises UsageError if tokenizer.json is missing or no JSON object, or names no token that a setting adds.
    """
    raw = read_parts(model)
    if read_sentence_config(model)[1].get("do_lower_case"):
        raw["normalizer"] = _encode(_with_lowercase(decode_part(raw, "normalizer")))
    missing = _missing_ends(model, raw)
    if any(missing):
        raw["post_processor"] = _encode(_with_ends(model, raw, missing))
    return join_parts(raw)


def is_as_in_file(model: Path) -> bool:
    """Whether no setting beside tokenizer.json adds to it. Raises UsageError as read_tokenizer."""
    return read_tokenizer(model) == join_parts(read_parts(model))


def read_parts(model: Path) -> dict[str, msgspec.Raw]:
    """The parts of tokenizer.json, without `truncation` and `padding`. They are not decoded yet."""
    file = tokenizer_file(model)
    try:
        raw = msgspec.json.decode(file.read_bytes().decode(), type=dict[str, msgspec.Raw])
    except UNREADABLE as error:
        raise UsageError(f"{file}: not a tokenizer that Hugging Face tokenizers can load: {error}") from None
    raw["truncation"] = raw["padding"] = msgspec.Raw(b"null")
    return raw


def decode_part(raw: dict[str, msgspec.Raw], key: str) -> Any:
    """A part of tokenizer.json; None if there is none."""
    return msgspec.json.decode(raw[key]) if key in raw else None


def join_parts(raw: dict[str, msgspec.Raw]) -> str:
    """The tokenizer as JSON."""
    return msgspec.json.encode(raw).decode()


def special_token(model: Path, name: str) -> str | None:
    """The token that tokenizer_config.json or special_tokens_map.json calls `name`, such as eos_token."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        value = read_json(model, file).get(name)
        if value is not None:
            return str(value["content"] if isinstance(value, dict) else value)
    return None


def added_ends(post_processor: dict[str, Any] | None) -> tuple[str | None, str | None]:
    """The first special token that a post-processor puts before a text, and the last that it puts after it."""
    if post_processor is None:
        return None, None
    if post_processor["type"] == "Sequence":
        ends = [added_ends(part) for part in post_processor["processors"]]
        # Each processor adds to what the one before it made.
        return next((a for a, _ in reversed(ends) if a), None), next((b for _, b in reversed(ends) if b), None)
    if post_processor["type"] in ("BertProcessing", "RobertaProcessing"):
        return post_processor["cls"][0], post_processor["sep"][0]
    if post_processor["type"] != "TemplateProcessing":
        return None, None
    tokens = [piece.get("SpecialToken", {}).get("id") for piece in post_processor["single"]]
    return tokens[0], tokens[-1]


def _missing_ends(model: Path, raw: dict[str, msgspec.Raw]) -> list[str | None]:
    """Tokens that settings add before and after a text, and tokenizer.json does not."""
    config = read_json(model, "tokenizer_config.json")
    missing: list[str | None] = [None, None]
    if any(config.get(setting) is True for setting in ENDS):
        there = added_ends(decode_part(raw, "post_processor"))
        for setting, (name, end) in ENDS.items():
            if config.get(setting) is True and there[end] is None:
                missing[end] = special_token(model, name)
    return missing


def _with_lowercase(normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """The normalizer with Lowercase before it, as sentence-transformers' Transformer module has it."""
    steps = [] if normalizer is None else [normalizer]
    if normalizer is not None and normalizer["type"] == "Sequence":
        steps = normalizer["normalizers"]
    if any(step["type"] == "Lowercase" for step in steps):
        return {"type": "Sequence", "normalizers": steps}
    return {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}


def _with_ends(model: Path, raw: dict[str, msgspec.Raw], tokens: list[str | None]) -> dict[str, Any]:
    """The post-processor of tokenizer.json, followed by one that puts these tokens before and after the text."""
    ids = {token["content"]: token["id"] for token in decode_part(raw, "added_tokens") or []}
    first, last = ([] if token is None else [{"SpecialToken": {"id": token, "type_id": 0}}] for token in tokens)
    named = [token for token in tokens if token is not None]
    if unknown := [token for token in named if token not in ids]:
        raise UsageError(
            f"{model / 'tokenizer_config.json'}: add_bos_token or add_eos_token adds {unknown[0]!r} to every text, but "
            "tokenizer.json has no such added token; set it to false if the model was trained without the token"
        )
    text = [{"Sequence": {"id": "A", "type_id": 0}}]
    template = {
        "type": "TemplateProcessing",
        "single": [*first, *text, *last],
        "pair": [*first, *text, {"Sequence": {"id": "B", "type_id": 1}}, *last],
        "special_tokens": {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in named},
    }
    before = decode_part(raw, "post_processor")
    return template if before is None else {"type": "Sequence", "processors": [before, template]}


def _encode(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
