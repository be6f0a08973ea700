"""Names of the groups of a run: which texts are read, what a summary has, and names by a function of the caller."""

import dataclasses
import re
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.analysis.groups.find import GroupOptions, Groups, find_groups, groups_frame
from embedkit.analysis.groups.group_texts import cut_texts
from embedkit.analysis.groups.name import GroupSummary, NamedGroups, NameOptions, name_groups, rename_groups
from embedkit.analysis.merged import Merged, open_merged
from embedkit.embed import embed_shards
from embedkit.errors import UsageError
from embedkit.merge import merge
from embedkit.prepare import prepare
from embedkit.request import Options, create_run, make_config
from embedkit.run import RunFolder
from tests.conftest import chat, made_once, write_chats
from tests.support.merged_runs import merged_of
from tests.support.models import make_tokenizer
from tests.support.planted import plant

TOPICS = {"fire": ["volcano", "magma"], "music": ["violin", "orchestra"], "food": ["豆腐", "茄子"], "": [""]}
ROWS = 24
"""Of each topic. Rows of "" have no text in the view `ask`."""


def make_topics_run(folder: Path) -> None:
    """Chats about three topics in two sources, with a view of the user, and texts only in extracted_data.parquet."""
    prompts = {
        topic: [f"{words[i % 2]} thing{chr(97 + i)}" if topic else "" for i in range(ROWS)]
        for topic, words in TOPICS.items()
    }
    chats = [chat(prompt, f"answer about {topic or 'nothing'}") for topic, found in prompts.items() for prompt in found]
    sources = ["first" if topic == "fire" else "rest" for topic in TOPICS for _ in range(ROWS)]
    data = write_chats(folder / "chats.parquet", chats, sources)
    make_tokenizer(folder / "model")
    options = Options(
        dataset=(str(data),),
        model=str(folder / "model"),
        engine="hash",
        max_length=256,
        views=("combined", "ask"),
        templates={"ask": "{user_prompt}"},
        sample_size=None,
        shards=1,
        texts="none",
    )
    run = RunFolder(folder / "run")
    create_run(run, make_config(options, ["embedkit", "run"]))
    prepare(run, workers=1)
    embed_shards(run, [0])
    merge(run)
    directions = np.eye(4, 8, dtype=np.float32)[np.repeat(np.arange(4), ROWS)]
    directions += 0.01 * np.random.default_rng(0).standard_normal(directions.shape).astype(np.float32)
    dim = open_merged(run).dim
    plant(run, np.pad(directions, ((0, 0), (0, dim - 8))), "ask")


@pytest.fixture(scope="session")
def topics_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Read only."""
    return RunFolder(made_once(tmp_path_factory, "topics-run", make_topics_run) / "run")


@pytest.fixture
def named(topics_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> tuple[Merged, NamedGroups]:
    """The three topics with a text in the view `ask`, as groups."""
    merged = open_merged(topics_run, "ask")
    groups = fake_groups(merged, np.repeat([0, 1, 2], ROWS), monkeypatch)
    return merged, name_groups(merged, groups)


def fake_groups(merged: Merged, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Groups with these labels in the sample, instead of those of UMAP and HDBSCAN, which take seconds."""
    monkeypatch.setattr("embedkit.analysis.groups.find.cluster_sample", lambda *_: labels.astype(np.int32))
    return find_groups(merged, GroupOptions(levels=2))


def test_topics_have_names_from_their_own_view(named: tuple[Merged, NamedGroups]) -> None:
    """Texts come from the view `ask` of a run without texts in its tables; rows without one are left out."""
    merged, found = named
    assert len(found.groups.positions) == 3 * ROWS
    fine = found.summaries["fine"]
    assert [set(one.name.split(", ")) for one in fine] == [set(TOPICS[topic]) for topic in ("fire", "music", "food")]
    assert [one.rows for one in fine] == [ROWS] * 3
    assert [one.sources for one in fine] == [(("first", 1.0),), (("rest", 1.0),), (("rest", 1.0),)]
    assert [(one.level, one.group) for one in fine] == [("fine", group) for group in range(3)]
    assert [one.parent for one in found.summaries["coarse"]] == [None] * len(found.summaries["coarse"])
    labels = groups_frame(merged, found.groups)
    for one in fine:
        ids = labels.filter(pl.col("fine") == one.group)
        assert set(one.examples) <= set(ids["id"])
        assert one.parent == ids["coarse"][0]
        assert one.examples == tuple(ids.sort(["cosine", "id"], descending=[True, False])["id"][:3])


def test_the_json_form_has_all_levels(named: tuple[Merged, NamedGroups]) -> None:
    plain = msgspec.json.decode(msgspec.json.encode(named[1].as_dict()))
    assert {name: plain[name] for name in ("rows", "rows_in_no_group", "sampled", "min_rows")} == {
        "rows": 72,
        "rows_in_no_group": 0,
        "sampled": 72,
        "min_rows": 10,
    }
    assert list(plain["levels"]) == ["coarse", "fine"]
    first = plain["levels"]["fine"][0]
    assert set(first) == {"group", "name", "words", "rows", "sources", "parent", "examples"}
    assert first["sources"] == [{"source": "first", "share": 1.0}]
    assert [word["word"] for word in first["words"]] == first["name"].split(", ")


def test_names_by_a_function_of_the_caller(named: tuple[Merged, NamedGroups]) -> None:
    """Each group is named once; white space is cleaned; a name that a level has already gets a number."""
    asked: list[GroupSummary] = []

    def ask(summary: GroupSummary) -> str:
        asked.append(summary)
        return " A\n topic "

    renamed = rename_groups(named[1], ask)
    assert Counter(one.level for one in asked) == {level: len(found) for level, found in named[1].summaries.items()}
    assert [one.name for one in renamed.summaries["fine"]] == ["A topic", "A topic (2)", "A topic (3)"]
    assert [one.words for one in renamed.summaries["fine"]] == [one.words for one in named[1].summaries["fine"]]
    with pytest.raises(UsageError, match="coarse group 0: its new name is empty"):
        rename_groups(named[1], lambda summary: " ")


def test_texts_are_those_of_the_view_and_cut(topics_run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of ids, over several batches."""
    monkeypatch.setattr("embedkit.analysis.groups.group_texts.BATCH_ROWS", 7)
    ids = np.array([0, 5, *range(10, 40)])
    for view in ("combined", "ask"):
        merged = open_merged(topics_run, view)
        whole = merged.texts(ids.tolist())
        prompts = whole["user_prompt"].to_list()
        expected = prompts
        if view == "combined":
            rest = whole.select("think_text", "response_text").rows()
            expected = ["\n\n".join([prompt, *texts]) for prompt, texts in zip(prompts, rest, strict=True)]
        found = cut_texts(merged, ids, 9)
        assert [re.sub(r"\s+", " ", text) for text in found] == [re.sub(r"\s+", " ", text[:9]) for text in expected]


def test_names_differ_on_every_level_of_equal_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts are the same few words, so that names need numbers. Names are the same twice."""
    vectors = np.eye(8, dtype=np.float32)[np.arange(96) % 8]
    merged = merged_of(tmp_path, vectors, [f"s{i % 3}" for i in range(96)])
    groups = fake_groups(merged, np.arange(96) % 8, monkeypatch)
    found = name_groups(merged, groups, NameOptions(rows=40))
    for level, summaries in found.summaries.items():
        names = [one.name for one in summaries]
        assert len(set(names)) == len(names) == len(groups.sizes(level))
        assert all(names)
    assert found.as_dict() == name_groups(merged, groups, NameOptions(rows=40)).as_dict()


def test_a_mixed_group_is_named_by_what_its_templates_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four sources of one coarse group ask for rhymes in a wording of their own each; a fifth is a group by itself."""
    openings = [
        "Find the rhyme for",
        "Which rhyme suits",
        "Give one rhyme with",
        "Name some rhyme of",
        "Buy a ticket to",
    ]
    texts = [f"{openings[i % 5]} w{chr(97 + i // 5)}ord in this list" for i in range(100)]
    monkeypatch.setattr(
        "embedkit.analysis.groups.name.cut_texts", lambda merged, ids, *_: pl.Series(texts)[ids.tolist()]
    )
    angles = np.array([[1, 0.4, 0, 0, 0], [1, 0, 0.4, 0, 0], [1, 0, 0, 0.4, 0], [1, 0, 0, 0, 0.4], [-1, 0, 0, 0, 0]])
    merged = merged_of(tmp_path, angles[np.arange(100) % 5].astype(np.float32), [f"s{i % 5}" for i in range(100)])
    groups = fake_groups(merged, np.arange(100) % 5, monkeypatch)
    assert groups.parents["coarse"].tolist() == [0, 0, 0, 0, 1]
    found = name_groups(merged, groups)
    assert found.summaries["coarse"][0].words[0][0] == "rhyme"
    assert {word for word, _ in found.summaries["fine"][4].words} == {"ticket", "buy"}


def test_a_group_without_words_has_the_name_of_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "embedkit.analysis.groups.name.cut_texts", lambda merged, ids, *_: pl.Series(["7 8"] * len(ids))
    )
    merged = merged_of(tmp_path, np.eye(2, 8, dtype=np.float32)[np.arange(40) % 2], ["numbers"] * 40)
    found = name_groups(merged, fake_groups(merged, np.arange(40) % 2, monkeypatch))
    assert [one.name for one in found.summaries["fine"]] == ["numbers", "numbers (2)"]
    assert [one.words for one in found.summaries["fine"]] == [(), ()]


def test_no_groups_have_no_names(tmp_path: Path) -> None:
    merged = merged_of(tmp_path, np.eye(3, 8, dtype=np.float32))
    found = name_groups(merged, find_groups(merged))
    assert found.as_dict() == {
        "rows": 3,
        "rows_in_no_group": 3,
        "sampled": 3,
        "min_rows": 10,
        "levels": {"coarse": [], "middle": [], "fine": []},
    }


@pytest.mark.parametrize(("rows", "read"), [(20_000, 96), (400, 96), (10, 96)])
def test_a_bounded_number_of_texts_is_read(
    rows: int, read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each group up to rows_per_group, fewer if there are many groups, but LEAST_READ even then."""
    merged = merged_of(tmp_path, np.eye(2, 8, dtype=np.float32)[np.arange(300) % 2])
    groups = fake_groups(merged, np.arange(300) % 2, monkeypatch)
    seen: list[int] = []
    name_groups(merged, groups, dataclasses.replace(NameOptions(rows=rows), rows_per_group=48), seen.append)
    assert sum(seen) == (40 if rows == 10 else read)
