"""fastokens is not used where it is known to differ. Each case has a text on which it does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.model.fastokens_limits import known_difference
from embedkit.model.tokenizer import FastTokenizer, HfTokenizer, load_tokenizer
from embedkit.model.tokenizer_file import read_tokenizer

Json = dict[str, Any]


def added(content: str, number: int = 0, **flags: bool) -> Json:
    """An added token, the `number`th after the vocabulary."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    return {"id": number, "content": content, **plain, **flags}


DIFFERENCES: dict[str, tuple[str, Json, str]] = {
    "dropout": ("dropout, which is random", {"model": {"dropout": 0.5}}, "The river runs past the old mill " * 9),
    "spaces": (
        "added tokens of white space",
        {"added_tokens": [added("   ", lstrip=True, rstrip=True, normalized=False)]},
        "      ",
    ),
    "spaces beside a token that strips": (
        "added tokens of white space",
        {
            "normalizer": None,
            "added_tokens": [added("\xa0"), added("HELLO", 1, lstrip=True, rstrip=True, normalized=False)],
        },
        "\xa0HELLO",
    ),
    "ignore_merges and spaces": (
        "added tokens of white space",
        {
            "normalizer": None,
            "model": {"ignore_merges": True},
            "added_tokens": [added("   ", rstrip=True), added("  ", 1, lstrip=True, normalized=False)],
        },
        "   ",
    ),
    "single_word": (
        "added tokens with single_word",
        {"normalizer": None, "added_tokens": [added("<x>", single_word=True), added("HELLO", 1, normalized=False)]},
        "<x>HELLO",
    ),
    "overlap": (
        "a normalized added token that overlaps one that is not",
        {"normalizer": None, "added_tokens": [added("~|", normalized=False), added("=~|", 1)]},
        "=~|",
    ),
    "a gap in the ids": (
        "ids of added tokens, which Hugging Face tokenizers numbers anew",
        {"added_tokens": [added("<think>", 9)]},
        "<think>",
    ),
    "no unknown token": (
        "characters that are in no token, where there is no unk_token",
        {
            "model": {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]},
            "pre_tokenizer": None,
            "normalizer": None,
            "added_tokens": [],
            "post_processor": None,
        },
        "a~b",
    ),
}


def changed(tokenizer: str, changes: Json) -> str:
    """The tokenizer with some parts replaced; of `model`, the given settings only."""
    parts = json.loads(tokenizer)
    vocabulary = parts["model"]["vocab"]
    tokens = [
        token | {"id": vocabulary.get(token["content"], len(vocabulary) + token["id"])}
        for token in changes.get("added_tokens", parts["added_tokens"])
    ]
    if "added_tokens" in changes:
        changes = changes | {"added_tokens": tokens, "post_processor": None}
    return json.dumps(parts | changes | {"model": parts["model"] | changes.get("model", {})})


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_known_difference_is_shown_and_avoided(name: str, tokenizer_only: Path, tmp_path: Path) -> None:
    """Both libraries give other ids of the text. The model is counted with the reference alone."""
    why, changes, text = DIFFERENCES[name]
    tokenizer = changed(read_tokenizer(tokenizer_only), changes)
    fast, reference = FastTokenizer(tokenizer).encode([text] * 4), HfTokenizer(tokenizer).encode([text] * 4)
    assert not np.array_equal(fast.ids, reference.ids)
    assert known_difference(tokenizer) == why
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    assert load_tokenizer(tmp_path).name.startswith("tokenizers ")


def test_tokens_that_differ_only_in_case_are_avoided(tokenizer_only: Path) -> None:
    """After Lowercase both are one text. Hugging Face tokenizers takes either, as its hash table happens to be."""
    changes = {"normalizer": {"type": "Lowercase"}, "added_tokens": [added("he"), added("HE", rstrip=True)]}
    tokenizer = changed(read_tokenizer(tokenizer_only), changes)
    assert known_difference(tokenizer) == "added tokens that differ only in case"


def test_ordinary_tokenizers_are_left_to_fastokens(tokenizer_only: Path) -> None:
    """Llama 3's ignore_merges, chat tokens of both kinds, and tokens that strip have no known difference."""
    assert known_difference(read_tokenizer(tokenizer_only)) is None
    several = [added("<think>"), added("</s>", 1, normalized=False, lstrip=True), added("<|im_end|>", 2)]
    tokenizer = changed(read_tokenizer(tokenizer_only), {"model": {"ignore_merges": True}, "added_tokens": several})
    assert known_difference(tokenizer) is None
    texts = ["a <think> b</s>c  </s>", "<|im_end|>", "The river  runs"]
    assert np.array_equal(FastTokenizer(tokenizer).encode(texts).ids, HfTokenizer(tokenizer).encode(texts).ids)
