"""Each kind finds what was planted, first and alone; a run of ordinary rows has no findings."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from embedkit.analysis.components.views import Views, compare_views
from embedkit.analysis.findings import (
    KINDS,
    Evidence,
    FindingOptions,
    Findings,
    answers_by_source,
    find_findings,
    rows_shared_by_sources,
)
from embedkit.analysis.merged import Merged, open_merged
from embedkit.analysis.texts import TextFacts, text_facts
from embedkit.errors import UsageError
from embedkit.prepare import DROPPED_SCHEMA
from tests.support.planted import shifted, unit
from tests.support.strange_rows import (
    COPIES,
    DUPLICATES,
    LONG_THOUGHT,
    LOOP,
    PHRASE,
    SAME_ANSWER,
    SAME_PROMPT,
    TWIN,
    naive_neighbors,
    ordinary,
    strange,
)

__all__ = ["ordinary", "strange"]  # fixtures

Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def facts(strange: Merged) -> TextFacts:
    return text_facts(strange)


@pytest.fixture(scope="module")
def views(strange: Merged) -> Views:
    return compare_views(strange.run)


def vectors_of(merged: Merged) -> Floats:
    """A copy of the vectors, to plant in."""
    return np.array(merged.vectors(merged.ids))


def of_kind(found: Findings, kind: str) -> list[dict[str, Any]]:
    return found.rows.filter(kind=kind).to_dicts()


def dropped_rows(counts: dict[tuple[str, str], int]) -> pl.DataFrame:
    lines = [(0, source, reason, None) for (source, reason), count in counts.items() for _ in range(count)]
    return pl.DataFrame(lines, schema=DROPPED_SCHEMA, orient="row")


def test_ordinary_rows_have_no_findings(ordinary: Merged) -> None:
    doubted = ordinary.rows.select("id", p_own=pl.lit(0.8), predicted=pl.col("dataset_source"))
    evidence = Evidence(
        text_facts(ordinary),
        neighbors=naive_neighbors(vectors_of(ordinary)),
        response=open_merged(ordinary.run, "response"),
        unknown=np.zeros(ordinary.rows.height, np.int32),
        dropped=dropped_rows({("alpha", "too_long"): 30}),
        views=compare_views(ordinary.run),
        doubted=doubted,
        near_duplicates=pl.DataFrame(
            schema={
                "id_a": pl.Int64,
                "id_b": pl.Int64,
                "cosine": pl.Float64,
                "source_a": pl.String,
                "source_b": pl.String,
            }
        ),
    )
    found = find_findings(ordinary, evidence)
    assert found.counts == dict.fromkeys(KINDS, 0)
    assert found.skipped == {}
    assert found.rows.height == found.compared.height == 0


def test_finds_the_same_prompt_with_another_answer(strange: Merged, facts: TextFacts) -> None:
    found = find_findings(strange, Evidence(facts))
    (line,) = of_kind(found, "same_prompt")
    assert (line["id"], line["compared_ids"]) == (SAME_PROMPT[0], [SAME_PROMPT[1]])
    assert found.counts["same_prompt"] == 1
    assert line["reason"] == f"answers the same prompt as row {SAME_PROMPT[1]}, with 0% of the words in common"
    assert line["strength"] == pytest.approx(1 - 0.9 * 2 / 49)  # two of beta's 49 rows have a prompt in common


def test_same_prompt_by_the_vectors_of_answers(strange: Merged, facts: TextFacts) -> None:
    response = open_merged(strange.run, "response")
    (line,) = of_kind(find_findings(strange, Evidence(facts, response=response)), "same_prompt")
    a, b = response.vectors(np.array(SAME_PROMPT)).astype(np.float64)
    assert line["id"] == SAME_PROMPT[0]
    assert line["strength"] == pytest.approx((1 - a @ b) * (1 - 0.9 * 2 / 49), abs=1e-6)
    assert f"with cosine {a @ b:.2f} between the answers" in line["reason"]


def test_finds_the_same_answer_to_other_prompts(strange: Merged, facts: TextFacts) -> None:
    found = find_findings(strange, Evidence(facts))
    (line,) = of_kind(found, "same_answer")
    assert (line["id"], line["compared_ids"]) == (SAME_ANSWER[0], [SAME_ANSWER[1]])
    assert f"as row {SAME_ANSWER[1]}, to a prompt with 0% of the words in common" in line["reason"]


def test_finds_exact_duplicates_as_one_group(strange: Merged, facts: TextFacts) -> None:
    (line,) = of_kind(find_findings(strange, Evidence(facts)), "exact_duplicates")
    assert (line["id"], line["compared_ids"], line["strength"]) == (DUPLICATES[0], list(DUPLICATES[1:]), 3)
    assert line["reason"] == "3 rows have exactly this text: 3 of beta"


def test_finds_contamination_by_prompts(strange: Merged, facts: TextFacts) -> None:
    (line,) = of_kind(find_findings(strange, Evidence(facts)), "contamination")
    assert (line["id"], line["compared_ids"]) == (COPIES[0], [0, COPIES[1], 3])
    assert line["reason"] == "60.0% of delta (6 of 10 rows) is in alpha too: 6 by the same prompt"
    assert line["strength"] == pytest.approx(0.3127, abs=1e-4)  # Wilson's interval of 6 of 10


def test_shared_rows_of_all_pairs_of_sources(strange: Merged, facts: TextFacts) -> None:
    vectors = vectors_of(strange)
    vectors[1] = vectors[2]  # of beta and gamma
    table = rows_shared_by_sources(strange, Evidence(facts, neighbors=naive_neighbors(vectors)))
    assert table.columns == ["dataset_source", "other_source", "rows", "share", "same_prompt"]
    assert table.rows() == [
        ("delta", "alpha", 6, 0.6, 6),
        ("alpha", "delta", 6, 0.15, 6),
        ("gamma", "beta", 1, 1 / 40, 0),
        ("beta", "gamma", 1, 1 / 49, 0),
    ]


def test_finds_contamination_by_vectors(ordinary: Merged) -> None:
    vectors = vectors_of(ordinary)
    vectors[[1, 4, 7]] = shifted(vectors[[2, 5, 8]], 0.015)  # of beta and gamma, with cosine 0.985
    evidence = Evidence(text_facts(ordinary), neighbors=naive_neighbors(vectors))
    (line,) = of_kind(find_findings(ordinary, evidence), "contamination")
    assert (line["id"], line["compared_ids"]) == (1, [2, 4, 5])
    assert line["reason"] == "7.5% of beta (3 of 40 rows) is in gamma too: 3 by a cosine of 0.98 or more"
    stricter = find_findings(ordinary, evidence, FindingOptions(near=0.99))
    assert stricter.counts["contamination"] == 0


def test_finds_loops_and_names_the_phrase(strange: Merged, facts: TextFacts) -> None:
    (line,) = of_kind(find_findings(strange, Evidence(facts)), "loops")
    assert line["id"] == LOOP
    assert line["reason"].startswith(f'repeats "{PHRASE}" 40 times; ')
    assert line["strength"] > 0.8


def test_finds_the_long_thought_for_a_short_answer(strange: Merged, facts: TextFacts) -> None:
    first, *_ = of_kind(find_findings(strange, Evidence(facts)), "long_thoughts")
    assert first["id"] == LONG_THOUGHT
    assert f"{facts.think_bytes[LONG_THOUGHT]:,} bytes of thought for 2 bytes of answer" in first["reason"]
    (usual,) = first["compared_rows"]
    assert usual < TWIN  # an ordinary row


def test_finds_outliers_beside_their_source(ordinary: Merged) -> None:
    vectors = vectors_of(ordinary)
    vectors[[10, 50]] = unit(np.random.default_rng(9).normal(size=(2, vectors.shape[1])))
    found = find_findings(ordinary, Evidence(text_facts(ordinary), neighbors=naive_neighbors(vectors)))
    lines = of_kind(found, "outliers")
    assert {line["id"] for line in lines} == {10, 50}
    assert found.counts["outliers"] == 2
    assert all(len(line["compared_ids"]) == 3 for line in lines)
    assert "to its 10th nearest row is" in lines[0]["reason"]


def test_outliers_near_each_other_are_listed_once(ordinary: Merged) -> None:
    """A few rows of one source that are far from its others: all are counted. Rows of another source stay."""
    vectors = vectors_of(ordinary)
    apart = unit(np.random.default_rng(9).normal(size=(1, vectors.shape[1])))
    vectors[[9, 12, 15, 16]] = shifted(np.repeat(apart, 4, axis=0), 0.05)
    found = find_findings(ordinary, Evidence(text_facts(ordinary), neighbors=naive_neighbors(vectors)))
    listed = [line["id"] for line in of_kind(found, "outliers")]
    assert found.counts["outliers"] == 4
    assert len(listed) == 2
    assert len({9, 12, 15} & set(listed)) == 1
    assert 16 in listed


def test_strangers_of_one_other_source_come_first(ordinary: Merged) -> None:
    """Two rows of alpha with the same cosines to rows of other sources: one to beta alone, one to beta and gamma."""
    neighbors = naive_neighbors(vectors_of(ordinary))
    neighbors.neighbors[0] = [2, 1, 5, 4, 8, 7, 11, 10, 14, 13]
    neighbors.neighbors[6] = range(1, 31, 3)
    neighbors.cosines[[0, 6]] = 0.9
    found = find_findings(ordinary, Evidence(text_facts(ordinary), neighbors=neighbors))
    first, second = of_kind(found, "strangers")
    assert (first["id"], second["id"]) == (6, 0)
    assert (first["strength"], second["strength"]) == (pytest.approx(0.9), pytest.approx(0.45))
    assert "(all of beta)" in first["reason"]
    assert "(5 of gamma)" in second["reason"]  # the nearest of two that are equally frequent


def test_finds_strangers_at_home_elsewhere(ordinary: Merged) -> None:
    vectors = vectors_of(ordinary)
    vectors[30] = shifted(vectors[31:32], 0.2)[0]  # of alpha, among the rows of beta
    found = find_findings(ordinary, Evidence(text_facts(ordinary), neighbors=naive_neighbors(vectors)))
    (line,) = of_kind(found, "strangers")
    assert line["id"] == 30
    assert set(ordinary.rows["dataset_source"][line["compared_ids"]]) == {"beta"}
    assert line["reason"].startswith("10 of its 10 nearest rows are of other sources (all of beta)")


def test_finds_texts_with_the_same_vector(ordinary: Merged) -> None:
    """Rows 9, 12 and 20 have one vector; so have 13 and 14, which have one text."""
    vectors = vectors_of(ordinary)
    vectors[[12, 20]], vectors[14] = vectors[9], vectors[13]
    facts = text_facts(ordinary)
    keys = facts.text_key.copy()
    keys[14] = keys[13]
    found = find_findings(ordinary, Evidence(replace(facts, text_key=keys), neighbors=naive_neighbors(vectors)))
    (line,) = of_kind(found, "same_vector")
    assert (line["id"], line["compared_ids"], line["strength"]) == (9, [12, 20], 3)
    assert line["reason"] == "3 different texts have this vector, so the model cannot tell them apart"


def test_finds_rows_full_of_unknown_tokens(ordinary: Merged) -> None:
    tokens = ordinary.rows["num_tokens"].to_numpy()
    unknown = (tokens * 0.08).astype(np.int32)
    unknown[[40, 80]] = tokens[40] // 2, tokens[80]
    found = find_findings(ordinary, Evidence(text_facts(ordinary), unknown=unknown))
    lines = of_kind(found, "unknown_tokens")
    assert [line["id"] for line in lines] == [80, 40]
    assert lines[0]["reason"] == (f"{tokens[80]:,} of its {tokens[80]:,} tokens (100%) are unknown to the tokenizer")


def test_finds_survivors_with_the_reasons(ordinary: Merged) -> None:
    dropped = dropped_rows(
        {("beta", "too_long"): 150, ("beta", "empty"): 10, ("alpha", "empty"): 39, ("gone", "empty"): 9}
    )
    found = find_findings(ordinary, Evidence(text_facts(ordinary), dropped=dropped))
    (line,) = of_kind(found, "survivors")
    assert (line["id"], line["compared_ids"], line["strength"]) == (1, [4, 7, 10], 0.8)
    assert line["reason"] == (
        "one of 40 rows left of beta, of which 160 of 200 rows (80%) were dropped: too_long 94%, empty 6%"
    )


def test_finds_answers_that_do_not_follow(strange: Merged, facts: TextFacts, views: Views) -> None:
    cosine = views.rows["cosine"].to_numpy().copy()
    cosine[60] = 0.1
    planted = replace(views, rows=views.rows.with_columns(cosine=pl.Series(cosine)))
    found = find_findings(strange, Evidence(facts, views=planted))
    (line,) = of_kind(found, "unrelated_answers")
    assert line["id"] == 60
    of_source = cosine[views.rows["dataset_source"] == "alpha"]
    usual = f"where {np.median(of_source):.2f} is usual for its source"
    assert line["reason"] == f"the cosine between its thought and its answer is 0.10, {usual}"
    table = answers_by_source(planted)
    assert table["far_below"].to_list() == [1, 0, 0, 0]
    assert table["median"][0] == pytest.approx(np.median(of_source))
    assert table["mad"][0] == pytest.approx(np.median(np.abs(of_source - np.median(of_source))))
    assert table["rows"].to_list() == [40, 49, 10, 40]


def test_finds_rows_whose_source_is_doubted(ordinary: Merged) -> None:
    names = ordinary.rows["dataset_source"].to_list()
    p_own = np.full(len(names), 0.5)
    p_own[[5, 6, 7]] = 0.02, 0.001, 0.0
    predicted = ["alpha" if at in (5, 7) else "beta" if at == 6 else name for at, name in enumerate(names)]
    doubted = pl.DataFrame({"id": ordinary.ids, "p_own": p_own, "predicted": predicted})
    neighbors = naive_neighbors(vectors_of(ordinary))
    found = find_findings(ordinary, Evidence(text_facts(ordinary), neighbors=neighbors, doubted=doubted))
    lines = of_kind(found, "doubted_sources")
    assert [line["id"] for line in lines] == [7, 6, 5]
    assert "a probe expects alpha from its vector" in lines[2]["reason"]


def test_kinds_without_evidence_are_skipped(strange: Merged, facts: TextFacts) -> None:
    found = find_findings(strange, Evidence(facts))
    by_neighbors = {"outliers", "strangers", "same_vector"}
    skipped = by_neighbors | {"unknown_tokens", "survivors", "unrelated_answers", "doubted_sources"}
    assert set(found.skipped) == skipped
    assert set(found.counts) == set(KINDS) - skipped
    assert found.skipped["doubted_sources"] == "no probe was fitted"


def test_the_first_lines_show_each_kind_once(strange: Merged, facts: TextFacts) -> None:
    rows = find_findings(strange, Evidence(facts, neighbors=naive_neighbors(vectors_of(strange)))).rows
    first = rows.filter(pl.col("kind_rank") == 1)
    assert first["rank"].to_list() == list(range(1, first.height + 1))
    assert first["kind"].to_list() == [kind for kind in KINDS if kind in set(rows["kind"])]
    assert rows["rank"].to_list() == list(range(1, rows.height + 1))
    assert not rows.select("kind", "id").is_duplicated().any()


def test_lines_have_whole_texts(strange: Merged, facts: TextFacts) -> None:
    found = find_findings(strange, Evidence(facts))
    texts = strange.texts(found.rows["id"].to_list())
    for column in ("user_prompt", "think_text", "response_text"):
        assert found.rows[column].to_list() == texts[column].to_list()
    assert set(found.compared["id"]) == {id_ for ids in found.rows["compared_ids"] for id_ in ids}


def test_of_some_sources_rows_keep_their_ids(strange: Merged) -> None:
    some = open_merged(strange.run, sources=["beta", "delta"])
    found = find_findings(some, Evidence(text_facts(some), neighbors=naive_neighbors(vectors_of(some))))
    assert of_kind(found, "same_prompt")[0]["id"] == SAME_PROMPT[0]
    assert of_kind(found, "exact_duplicates")[0]["compared_rows"] == list(DUPLICATES[1:])
    assert found.counts["contamination"] == 0


def test_evidence_of_other_rows_is_refused(strange: Merged, facts: TextFacts) -> None:
    some = open_merged(strange.run, sources=["beta"])
    with pytest.raises(UsageError, match=f"facts has {len(facts.text_key)} rows, the view 49"):
        find_findings(some, Evidence(facts))
    with pytest.raises(UsageError, match="the view response has different rows"):
        find_findings(some, Evidence(text_facts(some), response=open_merged(strange.run, "response")))


def test_lists_few_rows_and_counts_all(ordinary: Merged) -> None:
    unknown = ordinary.rows["num_tokens"].to_numpy().astype(np.int32)
    evidence = Evidence(text_facts(ordinary), unknown=unknown)
    found = find_findings(ordinary, evidence, FindingOptions(rows=6, per_source=2))
    assert found.counts["unknown_tokens"] == 120
    assert found.rows["dataset_source"].value_counts().sort("dataset_source").rows() == [
        ("alpha", 2),
        ("beta", 2),
        ("gamma", 2),
    ]
    alone = open_merged(ordinary.run, sources=["alpha"])
    of_alpha = Evidence(text_facts(alone), unknown=alone.rows["num_tokens"].to_numpy().astype(np.int32))
    assert find_findings(alone, of_alpha, FindingOptions(rows=6, per_source=2)).rows.height == 6


def test_pairs_of_near_duplicates_are_contamination(ordinary: Merged) -> None:
    """Pairs with rows that were not chosen are left out."""
    pairs = pl.DataFrame(
        {
            "id_a": [0, 2, 3, 6],
            "id_b": [1, 4, 7, 9],
            "cosine": [0.99, 0.99, 0.99, 0.99],
            "source_a": ["alpha", "gamma", "alpha", "alpha"],
            "source_b": ["beta", "beta", "beta", "alpha"],
        }
    )
    some = open_merged(ordinary.run, sources=["alpha", "beta"])
    (line,) = of_kind(find_findings(some, Evidence(text_facts(some), near_duplicates=pairs)), "contamination")
    assert line["reason"] == "5.0% of alpha (2 of 40 rows) is in beta too: 2 by a cosine of 0.98 or more"
    assert (line["id"], line["compared_ids"]) == (0, [1, 3, 7])


@pytest.mark.parametrize(
    ("kind", "key", "rows"),
    [
        ("same_prompt", "prompt_key", (0, 1)),
        ("same_answer", "answer_key", (0, 1)),
        ("exact_duplicates", "text_key", (0, 3)),
        ("contamination", "prompt_key", (0, 1, 3, 4)),
    ],
)
def test_texts_with_equal_keys_are_compared(ordinary: Merged, kind: str, key: str, rows: tuple[int, ...]) -> None:
    """Two texts that have the same key by chance are not listed."""
    facts = text_facts(ordinary)
    keys = getattr(facts, key).copy()
    keys[list(rows[::2])] = keys[list(rows[1::2])]
    found = find_findings(ordinary, Evidence(replace(facts, **{key: keys})))
    assert found.counts[kind] == 1
    assert of_kind(found, kind) == []


def test_near_duplicates_are_one_finding(ordinary: Merged) -> None:
    unknown = np.zeros(ordinary.rows.height, np.int32)
    unknown[[3, 9, 20, 21]] = ordinary.rows["num_tokens"].to_numpy()[[3, 9, 20, 21]]
    pairs = pl.DataFrame(
        {
            "id_a": [3, 20],
            "id_b": [9, 21],
            "cosine": [0.995, 0.985],
            "source_a": ["alpha", "gamma"],
            "source_b": ["alpha", "alpha"],
        }
    )
    found = find_findings(ordinary, Evidence(text_facts(ordinary), unknown=unknown, near_duplicates=pairs))
    listed = {line["id"] for line in of_kind(found, "unknown_tokens")}
    assert len(listed & {3, 9}) == 1
    assert {20, 21} <= listed  # 0.985 is less than the cosine of texts that read the same
