"""Names of planted texts: real words in any script, no templates, and never the same name twice on a level."""

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.groups.choose_names import LevelWords, are_alike, choose_names
from embedkit.analysis.groups.count_words import count_words

FILLERS = {
    "en": ["the weather is fine", "we went there today", "nobody knows it", "that was long ago", "maybe it works"],
    "zh": ["今天天气很好", "大家都觉得可以", "这里需要注意", "后来发生了变化", "首先要说明情况"],
    "ja": ["今日は晴れです", "それは面白い", "昔の話をする", "次に説明する", "とても便利だと思う"],
    "th": ["วันนี้อากาศดี", "เราไปที่นั่น", "ไม่มีใครรู้", "นานมาแล้ว", "อาจจะได้ผล"],
}


def texts_about(words: list[str], language: str, rows: int, seed: int = 0) -> list[str]:
    """Sentences of a language without a topic, with words of a topic in between."""
    rng = random.Random(f"{seed}{words}")
    space = " " if language == "en" else ""
    return [
        space.join([rng.choice(FILLERS[language]), rng.choice(words), rng.choice(FILLERS[language]), rng.choice(words)])
        for _ in range(rows)
    ]


def names_of(groups: list[list[str]], sources: list[int] | None = None, siblings: list[int] | None = None) -> list[str]:
    """The names of groups of texts. sources: of each group; None for one each."""
    sizes = [len(texts) for texts in groups]
    labels = np.repeat(np.arange(len(groups), dtype=np.int32), sizes)
    codes = labels if sources is None else np.repeat(np.array(sources, np.int32), sizes)
    texts = pl.Series([text for texts in groups for text in texts], dtype=pl.String)
    rates = count_words(texts, labels, codes, len(groups))
    level = LevelWords([one.own for one in rates], [one.template for one in rates], siblings or [0] * len(groups))
    return [" ".join(word for word, _ in name) for name in choose_names(level)]


@pytest.mark.parametrize(
    ("language", "topics"),
    [
        ("en", [["volcano", "magma"], ["violin", "orchestra"], ["goalkeeper", "penalty"]]),
        ("zh", [["机器学习", "神经网络"], ["红烧豆腐", "麻婆茄子"], ["量子力学", "相对论"]]),
        ("ja", [["機械学習", "データ"], ["寿司", "ラーメン"], ["新幹線", "地下鉄"]]),
        ("th", [["ฟุตบอล", "ผู้รักษา"], ["ดนตรี", "ไวโอลิน"], ["ภูเขาไฟ", "ลาวา"]]),
    ],
)
def test_names_are_whole_words_of_the_topic(language: str, topics: list[list[str]]) -> None:
    """In scripts without spaces, too: no halves of words, and no words of the sentences around them."""
    names = names_of([texts_about(words, language, 60) for words in topics], sources=[0] * len(topics))
    for name, words in zip(names, topics, strict=True):
        assert set(name.split()[:2]) == set(words)


def test_planted_templates_are_in_no_name() -> None:
    """All rows of a source share a wording. It is in no name where the rows have words of their own."""
    template = "Imagine being a gastronomer assessing dishes carefully. Text: {} Respond with yes or no."
    groups = [
        [template.format(text) for text in texts_about(words, "en", 40)]
        for words in (["volcano", "magma"], ["violin", "orchestra"])
    ]
    assert [set(name.split()[:2]) for name in names_of(groups, [0, 0])] == [
        {"volcano", "magma"},
        {"violin", "orchestra"},
    ]


def test_a_template_names_a_group_without_other_words() -> None:
    """Rows that differ in numbers only get the words of their template that are the most frequent in it."""
    numbers = [f"Compute the recurrence. A recurrence has a runtime: T({i}) = {i * 7}" for i in range(30)]
    texts = texts_about(["volcano", "magma"], "en", 30)
    assert names_of([numbers, texts])[0].split()[:2] == ["recurrence", "compute"]


def test_code_is_named_by_what_it_is_about() -> None:
    code = [
        f"def f{i}(self): import numpy\n    return self.{verb}_matrix({i}) if None else True"
        for i, verb in enumerate(["invert", "transpose"] * 20)
    ]
    pages = [f"<div class='{kind}'> const page = await fetch({i}) return null" for i, kind in enumerate(["menu"] * 40)]
    names = names_of([code, pages])
    for word in ("def", "self", "return", "import", "const", "await", "null"):
        assert word not in " ".join(names).split()
    assert set(names[0].split()) <= {"invert", "transpose", "matrix", "numpy"}


def test_siblings_differ_where_words_do() -> None:
    """A word that a sibling has as often counts half, so that the words that tell them apart come first."""
    shared = {"python": 0.9}
    level = LevelWords(
        [shared | {"pandas": 0.5, "frames": 0.4}, shared | {"django": 0.5, "server": 0.4}, {"violin": 0.8, "bow": 0.3}],
        [{}, {}, {}],
        [0, 0, 1],
    )
    names = [[word for word, _ in name] for name in choose_names(level)]
    assert names[0][:1] == ["pandas"]
    assert names[1][:1] == ["django"]


words = st.sampled_from(["river", "stone", "violin", "volcano", "the", "def", "机器", "学习", "データ", "ab", "rivers"])
rates = st.dictionaries(words, st.sampled_from([0.1, 0.2, 0.5, 1.0]), max_size=8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(rates, rates, st.integers(0, 2)), max_size=8))
def test_words_of_a_name_are_few_and_never_alike(groups: list[tuple[dict[str, float], dict[str, float], int]]) -> None:
    """At most four words, none contained in another, no word of grammar, and the same names twice."""
    level = LevelWords([one[0] for one in groups], [one[1] for one in groups], [one[2] for one in groups])
    names = choose_names(level)
    assert len(names) == len(groups)
    assert names == choose_names(level)
    for name, (own, template, _) in zip(names, groups, strict=True):
        chosen = [word for word, _ in name]
        assert len(chosen) <= 4
        assert set(chosen) <= {*own, *template}
        assert "the" not in chosen
        assert not any(a in b for a in chosen for b in chosen if a != b)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12))
def test_equal_groups_get_other_words(count: int) -> None:
    """Groups with the same words have different names while there are words."""
    topic = dict.fromkeys(["granite", "violin", "meadow", "copper", "sailor", "pepper", "window", "zebra"], 0.5)
    names = choose_names(LevelWords([topic] * count, [{}] * count, [0] * count))
    assert len({frozenset(word for word, _ in name) for name in names}) == min(count, 7)


@pytest.mark.parametrize(
    ("a", "b", "alike"),
    [
        ("river", "rivers", True),
        ("city", "cities", False),
        ("hypertensive", "hypertension", True),
        ("river", "riven", True),
        ("car", "care", True),
        ("stone", "storm", False),
        ("机器学", "器学习", True),
        ("机器", "学习", False),
        ("データ", "データベース", True),
    ],
)
def test_forms_and_pieces_of_a_word_are_alike(a: str, b: str, alike: bool) -> None:
    assert are_alike(a, b) is are_alike(b, a) is alike
