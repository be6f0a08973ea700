"""Facts about texts, beside plain Python, in both layouts, with and without texts in the tables."""

import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.texts import TextFacts, batches, text_facts
from embedkit.analysis.texts.batches import text_batches
from embedkit.analysis.texts.repetition import BLOCK_BYTES, LEAST_BYTES, repetition
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from tests.support.chosen_run import Row, chosen_run, run_of_file
from tests.support.small_run import small, small_embedded_run, small_run, small_sharded_run

__all__ = ["small", "small_embedded_run", "small_run", "small_sharded_run"]  # fixtures

ROWS = [
    Row(" What? ", "So."),
    Row("What?", "So.\n", " since 漢字 🙂 "),
    Row("what?", "So", "since 漢字 🙂"),
    Row("مرحبا", "مرحبا " * 20, source="t"),
    Row("What  ?", "since 漢字 🙂", source="t"),
]


def same_pairs(values: list[str]) -> list[list[bool]]:
    return [[a == b for b in values] for a in values]


def check(facts: TextFacts, prompts: list[str], thoughts: list[str], responses: list[str], texts: list[str]) -> None:
    """Compare facts with the stripped texts."""
    for key, values in ((facts.prompt_key, prompts), (facts.answer_key, responses), (facts.text_key, texts)):
        assert (key[:, None] == key[None, :]).tolist() == same_pairs(values)
    sizes = (facts.prompt_bytes, facts.think_bytes, facts.response_bytes, facts.text_bytes)
    for found, values in zip(sizes, (prompts, thoughts, responses, texts), strict=True):
        assert found.tolist() == [len(value.encode()) for value in values]


def stripped(merged: Merged, view: str = "combined") -> tuple[list[str], list[str], list[str], list[str]]:
    """The texts of a run by plain Python."""
    frame = merged.texts(merged.ids.tolist())
    columns = [[str(text).strip() for text in frame[name]] for name in ("user_prompt", "think_text", "response_text")]
    whole = ["\n\n".join(texts).strip() for texts in frame.drop("id").iter_rows()]
    return columns[0], columns[1], columns[2], {"combined": whole, "response": columns[2]}[view]


def test_keys_and_bytes_are_of_the_stripped_texts(tmp_path: Path) -> None:
    merged = open_merged(chosen_run(tmp_path, ROWS, views=("combined", "think")))
    prompts = ["What?", "What?", "what?", "مرحبا", "What  ?"]
    thoughts = ["", "since 漢字 🙂", "since 漢字 🙂", "", ""]
    responses = ["So.", "So.", "So", ("مرحبا " * 20).strip(), "since 漢字 🙂"]
    whole = [merged.texts([i]).drop("id").row(0) for i in range(5)]
    check(text_facts(merged), prompts, thoughts, responses, ["\n\n".join(texts).strip() for texts in whole])
    check(text_facts(open_merged(merged.run, "think")), prompts, thoughts, responses, thoughts)


@pytest.mark.parametrize("view", ["combined", "response"])
@pytest.mark.parametrize("layout", ["small_run", "small_sharded_run"])
def test_facts_of_all_rows(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, layout: str, view: str
) -> None:
    monkeypatch.setattr(batches, "BATCH_ROWS", 7)
    merged = open_merged(request.getfixturevalue(layout), view)
    done: list[int] = []
    check(text_facts(merged, done.append), *stripped(merged, view))
    assert sum(done) == merged.rows.height
    assert len(done) >= merged.rows.height / 7  # each batch has its share of the tokens


@pytest.mark.parametrize("layout", ["small_run", "small_sharded_run"])
def test_facts_of_some_sources(request: pytest.FixtureRequest, layout: str) -> None:
    merged = open_merged(request.getfixturevalue(layout), sources=["zzz"])
    assert merged.ids.tolist() != list(range(merged.rows.height))
    check(text_facts(merged), *stripped(merged))


def test_texts_that_only_the_parts_have(tmp_path: Path) -> None:
    run = chosen_run(tmp_path, ROWS, texts="none")
    for sources in ([], ["t"]):
        merged = open_merged(run, sources=sources)
        check(text_facts(merged), *stripped(merged))


def test_plain_text_and_a_view_of_the_user(tmp_path: Path) -> None:
    data = tmp_path / "texts.parquet"
    pl.DataFrame({"title": ["one", "two", ""], "body": ["a b", "a b", "a b " * 200]}).write_parquet(data)
    run = run_of_file(
        tmp_path, data, text_columns=("title", "body"), views=("combined", "bold"), templates={"bold": "*{body}* "}
    )
    facts = text_facts(open_merged(run, "bold"))
    bold = ["*a b*", "*a b*", f"*{'a b ' * 200}*"]
    texts = ["one\n\na b", "two\n\na b", ("a b " * 200).strip()]
    check(facts, texts, [""] * 3, [""] * 3, bold)
    assert facts.repetition[2] > 0.9  # plain text has no answer, so the text itself counts


def test_a_damaged_table_is_named(small: RunFolder) -> None:
    merged = open_merged(small)
    small.metadata.write_bytes(small.metadata.read_bytes()[:2000])
    with pytest.raises(EmbedkitError, match=r"metadata\.parquet: cannot be read"):
        list(text_batches(merged, ["user_prompt"]))


def prose(words: int, seed: int = 0) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(words))


def repetition_of(text: str) -> float:
    return float(repetition(pl.Series([text]))[0])


@pytest.mark.parametrize("before", [0, 5_000])
def test_a_loop_counts_wherever_it_is(before: int) -> None:
    loop = "Wait, let me think about it once more. " * 500
    assert repetition_of(prose(before) + loop) > 0.9


def test_prose_hardly_repeats_itself() -> None:
    assert repetition_of(prose(6_000)) < 0.3


def test_the_model_text_is_measured_and_not_the_prompt(tmp_path: Path) -> None:
    loop = "again and again " * 100
    rows = [Row(loop, prose(80)), Row("q", loop, prose(80)), Row("q", loop), Row("q", prose(80), loop)]
    found = text_facts(open_merged(chosen_run(tmp_path, rows))).repetition
    assert (found > 0.9).tolist() == [False, False, True, True]


def test_short_texts_and_rests_are_not_measured() -> None:
    assert repetition_of("a" * (LEAST_BYTES - 1)) == 0
    assert repetition_of("a" * LEAST_BYTES) > 0.9
    block = prose(3_000)[:BLOCK_BYTES]
    assert repetition_of(block + "a" * (LEAST_BYTES - 1)) == repetition_of(block)
    assert repetition_of(block + "a" * LEAST_BYTES) > 0.9


@settings(max_examples=50)
@given(st.lists(st.text(max_size=600), max_size=5))
def test_repetition_is_a_share_for_each_text(texts: list[str]) -> None:
    found = repetition(pl.Series(texts, dtype=pl.String))
    assert found.dtype == np.float32
    assert found.shape == (len(texts),)
    assert ((found >= 0) & (found < 1)).all()
