"""The token that a tokenizer gives where it has no token for a piece of a text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from embedkit.model.json_file import SENTENCE_CONFIGS
from embedkit.model.tokenizer_file import read_tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", *SENTENCE_CONFIGS)
"""The files of a model folder that decide token ids: those that tokenizer_file.py reads."""


@dataclass(frozen=True)
class UnknownToken:
    """text: as the vocabulary has it, such as `[UNK]`."""

    id: int
    text: str


def unknown_token(model: Path) -> UnknownToken | None:
    """The unknown token of the model's tokenizer; None if it knows every text, or has none.

    Every text is known to a BPE whose vocabulary has all bytes, as characters (a ByteLevel step) or, as fallback, in
    the form `<0x00>`; and to a Unigram with that fallback. A WordPiece or WordLevel knows only its words.

    Raises UsageError if there is no tokenizer.json, or it cannot be read.
    """
    parts = msgspec.json.decode(read_tokenizer(model))
    settings = parts["model"]
    kind = _kind(settings)
    if kind == "Unigram":
        place = settings.get("unk_id")
        if place is None or _has_byte_fallback(settings, {piece for piece, _ in settings["vocab"]}):
            return None
        return UnknownToken(place, settings["vocab"][place][0])
    text = settings.get("unk_token")
    if text not in settings["vocab"]:
        return None
    if kind == "BPE" and (_has_all_byte_characters(parts) or _has_byte_fallback(settings, settings["vocab"])):
        return None
    return UnknownToken(settings["vocab"][text], text)


def _kind(settings: dict[str, Any]) -> str:
    """The kind of model. Old files do not name it."""
    if "type" in settings:
        return str(settings["type"])
    if isinstance(settings["vocab"], list):
        return "Unigram"
    return "BPE" if "merges" in settings else "WordPiece"


def _has_byte_fallback(settings: dict[str, Any], vocabulary: Any) -> bool:
    return bool(settings.get("byte_fallback")) and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))


def _has_all_byte_characters(parts: dict[str, Any]) -> bool:
    """Whether each text becomes characters for its bytes, and the vocabulary has them all."""
    from tokenizers.pre_tokenizers import ByteLevel  # a large library, which most commands do not need

    steps = [step for key in ("normalizer", "pre_tokenizer") for step in _steps(parts.get(key))]
    settings = parts["model"]
    if settings.get("continuing_subword_prefix") or settings.get("end_of_word_suffix"):
        return False  # the vocabulary needs more than one token for each byte
    return any(step["type"] == "ByteLevel" for step in steps) and settings["vocab"].keys() >= set(ByteLevel.alphabet())


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    return [step for inner in part.get("normalizers", part.get("pretokenizers", ())) for step in _steps(inner)] or [
        part
    ]
