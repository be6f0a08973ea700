"""Words of any script, templates and class-based TF-IDF, against planted texts and plain loops."""

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.analysis.groups.ctfidf import class_tfidf
from embedkit.analysis.groups.stop_words import common_words, is_weak, stop_words
from embedkit.analysis.groups.templates import learn_template, without_template
from embedkit.analysis.groups.words import candidates, is_word, split_runs


def runs_of(*texts: str) -> list[list[list[str]]]:
    return [[list(run) for run in runs] for runs in split_runs(pl.Series(texts, dtype=pl.String))]


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", []),
        (" \n\t🙂 -- ", []),
        ("Don't STOP, it’s 3.5 kg", [["don't"], ["stop"], ["it’s"], ["0"], ["0"], ["kg"]]),  # noqa: RUF001
        ("snake_case x2 12th 897T", [["snake"], ["case"], ["x2"], ["0"], ["0"]]),
        ("Cafe\u0301", [["café"]]),
        ("हिन्दी भाषा", [["हिन्दी"], ["भाषा"]]),
        ("한국어 문장", [["한국어"], ["문장"]]),
        ("مَرحبا عالم", [["مَرحبا"], ["عالم"]]),
        ("Python学习 と データ", [["python"], ["学", "习"], ["と"], ["データ"]]),
        ("ภาษาไทย", [["ภา", "ษา", "ไท", "ย"]]),
        ("ភាសាខ្មែរ", [["ភា", "សា", "ខ្មែ", "រ"]]),
        ("မြန်မာ", [["မြန်", "မာ"]]),
    ],
)
def test_texts_are_cut_into_runs(text: str, runs: list[list[str]]) -> None:
    assert runs_of(text) == [runs]


def test_candidates_are_words_and_short_ngrams() -> None:
    assert candidates([["river"], ["a"], ["0"], ["x" * 31], ["データ"]]) == {"river", "データ"}
    assert candidates([["机", "器", "学"]]) == {"机器", "器学", "机器学"}
    assert candidates([["我", "的", "家", "乡"]]) == {"家乡"}
    long = candidates([list("东西南北上下左右")])
    assert max(map(len, long)) == 7
    assert not is_word("0")


def test_only_the_beginning_of_a_long_text_has_ngrams() -> None:
    runs = [["天"] * 400, ["river"], ["天"] * 199 + ["地", "人"], ["水", "火"], ["stone"]]
    assert {word for word in candidates(runs) if set(word) != {"天"}} == {
        "river",
        "stone",
        *("天" * n + "地" for n in range(1, 7)),
    }


TEMPLATE = "You are a helpful judge of food. Answer with 1 or 0 only.\n\n{} Thanks"


def without(texts: list[str]) -> list[list[str]]:
    every = runs_of(*texts)
    template = learn_template(every)
    return [["".join(run) for run in without_template(runs, template)] for runs in every]


def test_a_template_around_a_variable_part_is_removed() -> None:
    """Both ends and the words around a variable middle go, however long the middle is; numbers count as equal."""
    parts = [f"a{c}pple p{c}ie {f'sw{c}eet ' * i}" for i, c in enumerate("bcdfghjklmno")]
    texts = [TEMPLATE.format(part).replace("1 or 0", f"{i} or {i + 7}") for i, part in enumerate(parts)]
    for part, left in zip(parts, without(texts), strict=True):
        assert left == part.split()


def test_a_template_in_a_script_without_spaces_is_removed() -> None:
    names = ["札幌", "函館", "小樽", "旭川", "室蘭", "釧路", "帯広", "北見", "夕張", "岩見沢", "網走", "留萌"]
    for name, left in zip(names, without([f"次の都市名を答えよ:{name}。以上。" for name in names]), strict=True):
        assert left == [name]


def test_words_of_most_rows_in_other_places_stay() -> None:
    """A word that nearly all texts have, but beside other words each time, is no template."""
    texts = [f"w{chr(97 + i)} v{chr(97 + i)} river u{chr(97 + i)} t{chr(97 + i)}" for i in range(20)]
    assert all("river" in left for left in without(texts))


@pytest.mark.parametrize(("with_it", "removed"), [(17, False), (18, True)])
def test_a_template_is_in_nine_of_ten_texts(with_it: int, removed: bool) -> None:
    others = [f"p{chr(97 + i)} q{chr(97 + i)}" for i in range(20 - with_it)]
    texts = [f"say this now k{chr(97 + i)} l{chr(97 + i)}" for i in range(with_it)] + others
    assert ("say" not in without(texts)[0]) is removed


@pytest.mark.parametrize(("texts", "known"), [(9, False), (10, True)])
def test_few_texts_have_no_template(texts: int, known: bool) -> None:
    assert bool(learn_template(runs_of(*["the same words"] * texts))) is known


def test_texts_equal_to_their_template_leave_nothing() -> None:
    assert without(["the same words"] * 10) == [[]] * 10
    assert without([""] * 10) == [[]] * 10


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.floats(0.01, 5, allow_subnormal=False)),
        min_size=1,
        max_size=5,
    )
)
def test_class_tfidf_equals_the_paper_in_a_loop(groups: list[dict[str, float]]) -> None:
    """W(t, c) = tf(t, c) * log(1 + A / f(t)), with A the average number of words per class."""
    words_in_all = 0.0
    for group in groups:
        for word in group:
            words_in_all += group[word]
    scores = class_tfidf(groups)
    assert [set(score) for score in scores] == [set(group) for group in groups]
    for group, score in zip(groups, scores, strict=True):
        for word, tf in group.items():
            frequency = math.fsum(other.get(word, 0.0) for other in groups)
            assert score[word] == pytest.approx(tf * math.log(1 + words_in_all / len(groups) / frequency))


def test_common_words_are_those_of_more_than_half_of_the_groups() -> None:
    groups = [{"often": 0.2, "rarely": 0.19, "half": 0.9 if i < 3 else 0.0} for i in range(6)]
    assert common_words(groups) == {"often"}
    assert common_words(groups[:4]) == frozenset()


def test_words_of_grammar_and_weak_words() -> None:
    assert {"the", "para", "nicht", "это", "على", "について", "don't"} <= stop_words()
    assert {"river", "music"}.isdisjoint(stop_words())
    weak = ["def", "frac", "return", "ab", "c1ccc", "cnc", "さっぽろ", "aaaa", "answer"]
    assert [is_weak(word) for word in weak] == [True] * len(weak)
    strong = ["river", "データ", "机器", "año", "river's", "мир"]
    assert [is_weak(word) for word in strong] == [False] * len(strong)
