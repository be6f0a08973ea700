"""Unknown tokens are those of the ids that the run embedded."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.analysis.losses import UnknownTokens, count_unknown_tokens
from embedkit.analysis.merged import Merged, open_merged
from embedkit.documents.codec import read
from embedkit.documents.schema import Plan
from embedkit.embed import embed_shards
from embedkit.embed.inputs import InputReader
from embedkit.merge import merge
from embedkit.prepare import prepare
from embedkit.request import Options, create_run, make_config
from embedkit.run import RunFolder
from tests.conftest import chat, write_chats
from tests.support import tokenizers

MakeModel = Callable[[Path], Path]
TEXTS = [
    ("en", "The river runs", "past the old mill."),
    ("en", "ꙮ river", "stone [UNK] bridge ꙮꙮ"),
    ("odd", "ꙮ", "𓀀 ꙮ ⸘ the"),
    ("odd", "river", ""),
    ("zzz", "It is nineteen.", "漢字 🙂"),
]


def make_run(
    folder: Path, make_model: MakeModel, rows: list[tuple[str, str, str]] = TEXTS, **options: Any
) -> RunFolder:
    """A merged run of chats, each with source, prompt and response. An empty response is only a thought."""
    folder.mkdir(exist_ok=True)
    chats = [chat(prompt, answer or "<think>It is nineteen.</think>") for _, prompt, answer in rows]
    data = write_chats(folder / "chats.parquet", chats, [source for source, _, _ in rows])
    make_model(folder / "model")
    wanted = {"max_length": 512, "sample_size": None, "shards": 2, "views": ("combined", "response"), **options}
    run = RunFolder(folder / "run")
    options_of = Options(dataset=(str(data),), model=str(folder / "model"), engine="hash", **wanted)
    create_run(run, make_config(options_of, ["embedkit", "run"]))
    prepare(run, workers=1)
    embed_shards(run, [0, 1])
    merge(run)
    return run


def embedded_unknown(merged: Merged, unknown: int) -> list[int]:
    """Unknown tokens of each row among the ids that embed reads, -1 for rows without a text."""
    reader = InputReader(merged.run, merged.config, read(merged.run.plan, Plan))
    ids = reader.read(0, merged.success.rows).token_ids[merged.view]
    return [sum(int(token == unknown) for token in row) if len(row) else -1 for row in ids]


def check(found: UnknownTokens, expected: list[int], merged: Merged) -> None:
    assert found.counts is not None
    assert found.by_source is not None
    assert (found.counts.dtype, found.counts.tolist()) == (np.int32, expected)
    rows = list(zip(merged.rows.iter_rows(named=True), expected, strict=True))
    assert found.by_source["dataset_source"].to_list() == list(merged.sources)
    for line in found.by_source.iter_rows(named=True):
        its = [(row["num_tokens"], n) for row, n in rows if row["dataset_source"] == line["dataset_source"] and n >= 0]
        tokens, unknown = sum(count for count, _ in its), sum(n for _, n in its)
        assert (line["rows"], line["tokens"], line["unknown"]) == (len(its), tokens, unknown)
        assert line["rows_with_unknown"] == sum(n > 0 for _, n in its)
        assert line["share"] == (unknown / tokens if tokens else None)


@pytest.mark.parametrize("options", [{}, {"layout": "sharded", "prefix": "query ꙮ: "}, {"texts": "none"}])
@pytest.mark.parametrize(("make_model", "unknown"), [(tokenizers.bert, 1), (tokenizers.xlm_roberta, 3)])
def test_counts_are_of_the_ids_that_were_embedded(
    tmp_path: Path, make_model: MakeModel, unknown: int, options: dict[str, Any]
) -> None:
    run = make_run(tmp_path, make_model, **options)
    for view in ("combined", "response"):
        merged = open_merged(run, view)
        expected = embedded_unknown(merged, unknown)
        found = count_unknown_tokens(merged)
        check(found, expected, merged)
        assert sum(expected) > 2
        some = open_merged(run, view, ["odd", "zz"])
        check(count_unknown_tokens(some), expected[2:], some)


def test_planted_unknown_words_are_counted_by_hand(tmp_path: Path) -> None:
    """Four words that WordPiece does not know, and [UNK] in a text, which it takes for its own."""
    merged = open_merged(make_run(tmp_path, tokenizers.bert))
    found = count_unknown_tokens(merged)
    assert found.counts is not None
    assert found.counts.tolist()[:4] == [0, 3, 4, 0]
    assert found.how == "tokens '[UNK]' of all rows"
    assert found.summary()["unknown"] == int(found.counts.sum())
    assert found.summary()["worst"][0]["dataset_source"] == "odd"


def test_a_sample_has_so_many_rows_of_each_source(tmp_path: Path) -> None:
    merged = open_merged(make_run(tmp_path, tokenizers.bert), "response")
    found, whole = count_unknown_tokens(merged, sample=1), count_unknown_tokens(merged)
    assert found.counts is not None
    assert whole.counts is not None
    counted = found.counts >= 0
    assert merged.rows["dataset_source"].to_numpy()[counted].tolist() == ["en", "odd", "zzz"]
    assert found.counts[counted].tolist() == whole.counts[counted].tolist()
    assert found.how == "tokens '[UNK]' of at most 1 rows per source"
    nothing = count_unknown_tokens(merged, sample=0)
    check(nothing, [-1] * 5, merged)
    assert (nothing.summary()["share"], nothing.summary()["worst"]) == (None, [])


@pytest.mark.parametrize("make_model", [tokenizers.qwen2, tokenizers.mistral])
def test_a_tokenizer_of_bytes_knows_every_text(tmp_path: Path, make_model: MakeModel) -> None:
    merged = open_merged(make_run(tmp_path, make_model), "response")
    found = count_unknown_tokens(merged)
    check(found, [0, 0, 0, -1, 0], merged)
    assert found.how == "0 in all rows: the tokenizer has no unknown token"


def test_a_model_that_is_gone_or_changed_is_a_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path, tokenizers.bert)
    model = tmp_path / "model"

    def why() -> str:
        found = count_unknown_tokens(open_merged(run))
        assert (found.counts, found.by_source) == (None, None)
        assert found.summary() == {"how": found.how, "tokens": None, "unknown": None, "share": None, "worst": []}
        return found.how

    (model / "special_tokens_map.json").write_text("{}")
    assert why().endswith("special_tokens_map.json: the run's model had no such file")
    (model / "special_tokens_map.json").unlink()
    text = (model / "tokenizer.json").read_text(encoding="utf-8")
    (model / "tokenizer.json").write_text(text.replace("[MASK]", "[mask]"), encoding="utf-8")
    assert "tokenizer.json: its bytes are not those that were written" in why()
    shutil.rmtree(model)
    assert why() == f"unknown tokens were not counted: {model}: the model's folder is missing"


def test_other_token_counts_than_the_runs_are_a_reason(tmp_path: Path) -> None:
    run = make_run(tmp_path, tokenizers.bert)
    merged = open_merged(run)
    merged.rows.replace_column(merged.rows.get_column_index("num_tokens"), merged.rows["num_tokens"] + 1)
    found = count_unknown_tokens(merged)
    assert found.counts is None
    assert found.how == "unknown tokens were not counted: the texts' token counts are not the run's"


WORDS = st.lists(st.sampled_from(["river", "mill", "ꙮ", "漢", "[UNK]", "the"]), min_size=1, max_size=300)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS, min_size=2, max_size=6))
@pytest.mark.slow
def test_counts_of_any_texts_are_those_embedded(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]]
) -> None:
    rows = [("s", " ".join(words), "so") for words in texts]
    merged = open_merged(make_run(tmp_path_factory.mktemp("run"), tokenizers.bert, rows))
    check(count_unknown_tokens(merged), embedded_unknown(merged, 1), merged)
