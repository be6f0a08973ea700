"""tokenizer.json is read without truncation and padding, and with what settings beside it add."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from embedkit.errors import UsageError
from embedkit.model.tokenizer import FastTokenizer, HfTokenizer, load_reference, load_tokenizer
from embedkit.model.tokenizer_file import added_ends, read_tokenizer
from tests.support import tokenizers

Json = dict[str, Any]
LONG = "The river runs past the old mill. " * 100
STRATEGIES = ("longest_first", "only_first", "only_second")
TRUNCATIONS = [
    {"max_length": 8, "stride": 0, "strategy": strategy, "direction": direction}
    for strategy, direction in product(STRATEGIES, ("Left", "Right"))
]
PADDINGS = [
    {
        "strategy": how,
        "direction": side,
        "pad_to_multiple_of": multiple,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    for how, side, multiple in product(("BatchLongest", {"Fixed": 4096}), ("Left", "Right"), (None, 64))
]


def with_parts(folder: Path, model: Path, **parts: Any) -> Path:
    """A copy of a model's tokenizer with some parts of tokenizer.json replaced."""
    folder.mkdir(exist_ok=True)
    whole = json.loads((model / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(whole | parts))
    return folder


def strategy_name(strategy: str) -> str:
    return "".join(word.capitalize() for word in strategy.split("_"))


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=lambda t: f"{t['strategy']}-{t['direction']}")
@pytest.mark.parametrize("padding", [None, *PADDINGS], ids=str)
def test_neither_library_truncates_or_pads(
    truncation: Json, padding: Json | None, tokenizer_only: Path, tmp_path: Path
) -> None:
    truncation = truncation | {"strategy": strategy_name(truncation["strategy"])}
    model = with_parts(tmp_path, tokenizer_only, truncation=truncation, padding=padding)
    plain = load_reference(tokenizer_only).encode(["a", LONG, ""])
    assert plain.lengths.tolist()[0::2] == [2, 1]  # a letter and the end, the end alone
    assert plain.lengths[1] > 700
    fast, reference = load_tokenizer(model), load_reference(model)
    assert isinstance(fast, FastTokenizer)
    for tokenizer in (fast, reference):
        ids = tokenizer.encode(["a", LONG, ""])
        assert ids.ids.tolist() == plain.ids.tolist()
        assert tokenizer.count(["a", LONG, ""]).tolist() == plain.lengths.tolist()


def test_hf_alone_does_not_truncate_either(
    tokenizer_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDKIT_TOKENIZER", "hf")
    model = with_parts(tmp_path, tokenizer_only, truncation=TRUNCATIONS[0] | {"strategy": "LongestFirst"})
    tokenizer = load_tokenizer(model)
    assert isinstance(tokenizer, HfTokenizer)
    assert tokenizer.count([LONG])[0] > 700


@pytest.mark.parametrize(
    "broken", [b"", b"[]", b'{"model": ', b"version https://git-lfs.github.com/spec/v1\n", b"\xff"]
)
def test_a_broken_tokenizer_file_is_named(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(broken)
    with pytest.raises(UsageError, match=r"tokenizer\.json: not a tokenizer that Hugging Face tokenizers can load"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("prefix", ["query: ", "", "Instruct: find\nQuery: "])
def test_the_prefix_is_put_before_every_text(prefix: str, tokenizer_only: Path) -> None:
    texts = ["the river", "", "漢字"]
    for load in (load_tokenizer, load_reference):
        plain, tokenizer = load(tokenizer_only), load(tokenizer_only, prefix)
        wanted = plain.encode([prefix + text for text in texts])
        assert tokenizer.encode(texts).ids.tolist() == wanted.ids.tolist()
        assert tokenizer.count(texts).tolist() == wanted.lengths.tolist()


LOWER = {"type": "Lowercase"}
NFC = {"type": "NFC"}


@pytest.mark.parametrize(
    ("normalizer", "wanted"),
    [
        (None, [LOWER]),
        (NFC, [LOWER, NFC]),
        (LOWER, [LOWER]),
        ({"type": "Sequence", "normalizers": [NFC]}, [LOWER, NFC]),
        ({"type": "Sequence", "normalizers": [NFC, LOWER]}, [NFC, LOWER]),
    ],
)
def test_do_lower_case_is_the_first_normalizer(
    normalizer: Json | None, wanted: list[Json], tokenizer_only: Path, tmp_path: Path
) -> None:
    model = with_parts(tmp_path, tokenizer_only, normalizer=normalizer)
    assert json.loads(read_tokenizer(model))["normalizer"] == normalizer
    tokenizers.write_json(model, sentence_bert_config={"max_seq_length": 64, "do_lower_case": True})
    assert json.loads(read_tokenizer(model))["normalizer"] == {"type": "Sequence", "normalizers": wanted}
    assert load_tokenizer(model).encode(["RIVER"]).ids.tolist() == load_tokenizer(model).encode(["river"]).ids.tolist()


def test_the_first_sentence_config_with_contents_counts(tokenizer_only: Path, tmp_path: Path) -> None:
    model = with_parts(tmp_path, tokenizer_only)
    tokenizers.write_json(model, sentence_bert_config={}, sentence_roberta_config={"do_lower_case": True})
    assert LOWER in json.loads(read_tokenizer(model))["normalizer"]["normalizers"]
    tokenizers.write_json(model, sentence_bert_config={"do_lower_case": False})
    assert json.loads(read_tokenizer(model))["normalizer"] == NFC


@pytest.mark.parametrize("flags", [{"add_eos_token": True}, {"add_eos_token": True, "add_bos_token": True}])
def test_an_end_token_is_added_where_the_file_has_none(flags: dict[str, bool], tmp_path: Path) -> None:
    """As transformers 4 did for intfloat/e5-mistral-7b-instruct; transformers 5 does so if it is given the settings."""
    from transformers import AutoTokenizer

    model = tokenizers.mistral(tmp_path / "e5", **flags)
    texts = ["The river runs", "漢字 🙂", "a </s> b"]
    theirs = AutoTokenizer.from_pretrained(model, add_bos_token=True, add_eos_token=True)(texts)["input_ids"]
    for load in (load_tokenizer, load_reference):
        ours = [ids.tolist() for ids in load(model).encode(texts)]
        assert ours == theirs
        assert all((ids[0], ids[-1]) == (1, 2) for ids in ours)  # <s> and </s>
    assert AutoTokenizer.from_pretrained(model)(texts)["input_ids"] == [ids[:-1] for ids in ours]


def test_ends_that_are_there_are_not_added_again(tmp_path: Path) -> None:
    both = tokenizers.mistral(tmp_path / "both", end=True, add_eos_token=True, add_bos_token=True)
    plain = tokenizers.mistral(tmp_path / "plain", end=True)
    assert read_tokenizer(both) == read_tokenizer(plain)


def test_a_post_processor_is_added_where_there_is_none(tmp_path: Path) -> None:
    model = tokenizers.mistral(tmp_path / "model", add_eos_token=True, add_bos_token=True)
    with_parts(model, model, post_processor=None)
    assert load_reference(model).encode([""])[0].tolist() == [1, 2]


def test_an_end_token_that_is_unknown_is_an_error(tmp_path: Path) -> None:
    model = tokenizers.mistral(tmp_path / "model", add_eos_token=True, eos_token="</t>")
    with pytest.raises(UsageError, match=r"tokenizer_config\.json: add_bos_token or add_eos_token adds '</t>'"):
        load_tokenizer(model)


def test_added_ends_of_each_kind_of_post_processor() -> None:
    def template(*single: Json) -> Json:
        return {"type": "TemplateProcessing", "single": list(single)}

    text, start, end = {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "<s>"}}, {"SpecialToken": {"id": "</s>"}}
    byte_level = {"type": "ByteLevel"}
    assert added_ends(None) == (None, None)
    assert added_ends(byte_level) == (None, None)
    assert added_ends(template(text)) == (None, None)
    assert added_ends(template(start, text)) == ("<s>", None)
    assert added_ends(template(text, end)) == (None, "</s>")
    for kind in ("BertProcessing", "RobertaProcessing"):
        assert added_ends({"type": kind, "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}) == ("[CLS]", "[SEP]")
    sequence = {"type": "Sequence", "processors": [byte_level, template(start, text), template(text, end)]}
    assert added_ends(sequence) == ("<s>", "</s>")
