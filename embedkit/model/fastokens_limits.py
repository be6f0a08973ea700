"""Tokenizers for which fastokens 0.3.5 gives other ids than Hugging Face tokenizers 0.23.3, and is not used.

Found by comparing both on random texts, over some thousand small tokenizers with random settings. tests/embedkit/model/
test_fastokens_limits.py has a text for each that shows the difference.
"""

from typing import Any

import msgspec


def known_difference(tokenizer: str) -> str | None:
    """What fastokens gets wrong in a tokenizer, given as JSON; None if nothing is known."""
    try:
        return _known_difference(tokenizer)
    except msgspec.ValidationError as error:
        return f"settings that cannot be read: {error}"


def _known_difference(tokenizer: str) -> str | None:
    parts = msgspec.json.decode(tokenizer, type=dict[str, msgspec.Raw])
    settings = _decode(parts, "model", _Model) or _Model()
    added = _decode(parts, "added_tokens", list[_AddedToken]) or []
    before = [_decode(parts, key, dict[str, Any]) for key in ("normalizer", "pre_tokenizer")]
    if settings.dropout:
        return "dropout, which is random"
    if not (settings.unk_token or settings.byte_fallback or any(map(_is_byte_level, before))):
        return "characters that are in no token, where there is no unk_token"
    if not _numbered_in_order(added, settings.vocab):
        return "ids of added tokens, which Hugging Face tokenizers numbers anew"
    if any(not token.content.strip() for token in added):
        return "added tokens of white space"
    if any(token.single_word for token in added):
        return "added tokens with single_word"
    if len({token.content.lower() for token in added}) < len(added):
        return "added tokens that differ only in case"
    if _overlap(
        [token.content for token in added if token.normalized],
        [token.content for token in added if not token.normalized],
    ):
        return "a normalized added token that overlaps one that is not"
    return None


class _Model(msgspec.Struct):
    dropout: float | None = None
    unk_token: str | None = None
    byte_fallback: bool = False
    vocab: dict[str, int] = {}


class _AddedToken(msgspec.Struct):
    id: int
    content: str
    single_word: bool = False
    normalized: bool = True


def _numbered_in_order(added: list[_AddedToken], vocabulary: dict[str, int]) -> bool:
    """Whether added tokens have the ids that Hugging Face tokenizers gives them: the vocabulary's, or the next."""
    ids: dict[str, int] = {}
    following = len(vocabulary)
    for token in added:
        wanted = vocabulary.get(token.content, ids.get(token.content, following))
        if token.id != wanted:
            return False
        ids[token.content] = wanted
        following = max(following, wanted + 1)
    return True


def _overlap(normalized: list[str], others: list[str]) -> bool:
    """Whether a text may have one of `others` that begins within one of `normalized`. fastokens takes the first one."""
    return any(
        other[0] in token and (other in token or any(token.endswith(other[:n]) for n in range(1, len(other))))
        for token in normalized
        for other in others
    )


def _decode(parts: dict[str, msgspec.Raw], key: str, kind: Any) -> Any:
    return msgspec.json.decode(parts[key], type=kind | None) if key in parts else None


def _is_byte_level(step: dict[str, Any] | None) -> bool:
    """Whether a normalizer or pre-tokenizer is ByteLevel, or has it as a step."""
    if step is None:
        return False
    steps = step.get("normalizers") or step.get("pretokenizers") or []
    return step["type"] == "ByteLevel" or any(map(_is_byte_level, steps))
