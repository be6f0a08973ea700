"""Token ids are those of the model's own tokenizer, exactly."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import EmbedkitError, UsageError
from embedkit.model.audit import audit
from embedkit.model.tokenizer import FastTokenizer, HfTokenizer, TokenIds, load_reference, load_tokenizer
from embedkit.model.tokenizer_file import read_tokenizer
from tests.support.models import CORPUS, END

TEXTS = [
    *CORPUS[:5],
    "",
    " ",
    "0123456789" * 50,
    "漢字" * 40,
    "🙂🙃",
    "a\u0301 e\u0301",
    "\x1c\x00",
    END,
    "<|im_end|>x",
]


def ids_of(tokens: TokenIds) -> list[list[int]]:
    return [tokens[i].tolist() for i in range(len(tokens))]


def test_fastokens_is_used_and_gives_the_references_ids(tiny_qwen: Path) -> None:
    fast, reference = load_tokenizer(tiny_qwen), load_reference(tiny_qwen)
    assert isinstance(fast, FastTokenizer)
    assert ids_of(fast.encode(TEXTS)) == ids_of(reference.encode(TEXTS))


@pytest.fixture(scope="module")
def both(tiny_qwen: Path) -> tuple[FastTokenizer, HfTokenizer]:
    tokenizer = read_tokenizer(tiny_qwen)
    return FastTokenizer(tokenizer), HfTokenizer(tokenizer)


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(TEXTS), max_size=6))
@settings(max_examples=300, deadline=None)
def test_fastokens_equals_the_reference(both: tuple[FastTokenizer, HfTokenizer], texts: list[str]) -> None:
    fast, reference = both
    assert ids_of(fast.encode(texts)) == ids_of(reference.encode(texts))


def test_ids_are_those_of_transformers(tiny_qwen: Path, minilm: Path) -> None:
    from transformers import AutoTokenizer

    for model in (tiny_qwen, minilm):
        theirs = AutoTokenizer.from_pretrained(model)
        texts = [text for text in TEXTS if text]
        assert ids_of(load_tokenizer(model).encode(texts)) == theirs(texts)["input_ids"]


def test_special_tokens_are_there_and_nothing_is_truncated(tiny_qwen: Path, minilm: Path) -> None:
    reference = load_reference(tiny_qwen)
    end = reference.encode([""]).ids[-1]
    assert all(ids[-1] == end for ids in ids_of(reference.encode(TEXTS)))
    bert = load_tokenizer(minilm)  # its tokenizer.json truncates to 128 and pads
    assert isinstance(bert, HfTokenizer)
    assert bert.encode(["word " * 300, "a"]).lengths.tolist() == [302, 3]


def test_the_audit_names_the_row(tiny_qwen: Path) -> None:
    reference = load_reference(tiny_qwen)

    class Wrong:
        name = "wrong 1.0"

        def encode(self, texts: Sequence[str]) -> TokenIds:
            good = reference.encode(texts)
            return TokenIds(np.where(good.ids == good.ids[-2], 0, good.ids).astype(np.uint32), good.offsets)

    audit(reference, reference, ["a", "b"], [4, 9])
    with pytest.raises(EmbedkitError, match=r"row 9: wrong 1\.0 gives other token ids than tokenizers"):
        audit(Wrong(), reference, ["zz", "b"], [4, 9])


def test_two_characters_a_token_is_no_bound(tiny_qwen: Path) -> None:
    """Digits, CJK and emoji have more than a token per two characters; the replaced scripts believed otherwise."""
    reference = load_reference(tiny_qwen)
    for text in ("1234567890" * 10, "漢字" * 50, "🙂" * 20):
        assert reference.encode([text]).lengths[0] > len(text) / 2


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no tokenizer\.json there"):
        load_tokenizer(tmp_path)
