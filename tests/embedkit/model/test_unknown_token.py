"""Which tokenizers have an unknown token: as Hugging Face tokenizers gives it for a text of rare characters."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedkit.errors import UsageError
from embedkit.model.tokenizer import load_reference
from embedkit.model.unknown_token import UnknownToken, unknown_token
from tests.support import tokenizers

RARE = "ꙮ 𓀀 \U0010fffd ⸘"
"""Characters that are in no word of the small tokenizers."""
KNOWN = {"bert": UnknownToken(1, "[UNK]"), "mpnet": UnknownToken(1, "[UNK]"), "xlm_roberta": UnknownToken(3, "<unk>")}
KNOWN |= {"albert": UnknownToken(1, "<unk>"), "deberta_v2": UnknownToken(3, "<unk>")}
NONE = ("roberta", "qwen2", "mistral", "gemma")


def changed(model: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    file = model / "tokenizer.json"
    parts = json.loads(file.read_text(encoding="utf-8"))
    change(parts)
    file.write_text(json.dumps(parts), encoding="utf-8")
    return model


@pytest.mark.parametrize("kind", [*KNOWN, *NONE])
def test_the_unknown_token_is_that_of_the_library(kind: str, tmp_path: Path) -> None:
    model = getattr(tokenizers, kind)(tmp_path / "model")
    found = unknown_token(model)
    assert found == KNOWN.get(kind)
    encoding = load_reference(model).backend.encode(RARE, add_special_tokens=False)
    assert (found is not None and found.id in encoding.ids) == (kind in KNOWN)


def test_a_fallback_without_all_bytes_has_an_unknown_token(tmp_path: Path) -> None:
    def without_a_byte(parts: dict[str, Any]) -> None:
        vocabulary = parts["model"]["vocab"]
        vocabulary["<other>"] = vocabulary.pop("<0xEA>")  # ꙮ is EA 99 AE

    model = changed(tokenizers.mistral(tmp_path / "model"), without_a_byte)
    found = unknown_token(model)
    assert found is not None
    assert found.text == "<unk>"
    assert found.id in load_reference(model).backend.encode("ꙮ").ids


def test_a_bpe_without_bytes_has_an_unknown_token(tmp_path: Path) -> None:
    model = tokenizers.gemma(tmp_path / "model")
    changed(model, lambda parts: parts["model"].update(byte_fallback=False))
    assert unknown_token(model) == UnknownToken(3, "<unk>")
    assert 3 in load_reference(model).backend.encode("ꙮ").ids


def test_a_byte_level_with_a_suffix_may_have_unknown_tokens(tmp_path: Path) -> None:
    """The last byte of a word is another token, which the vocabulary may lack."""
    model = tokenizers.roberta(tmp_path / "model")
    changed(model, lambda parts: parts["model"].update(unk_token="<unk>"))
    assert unknown_token(model) is None
    changed(model, lambda parts: parts["model"].update(end_of_word_suffix="</w>"))
    assert unknown_token(model) == UnknownToken(3, "<unk>")
    assert 3 in load_reference(model).backend.encode("ꙮ").ids


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model":')
    with pytest.raises(UsageError, match=r"tokenizer\.json: not a tokenizer"):
        unknown_token(tmp_path)
