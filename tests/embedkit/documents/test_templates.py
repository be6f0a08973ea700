"""Templates of views: text, and names of columns in braces."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedkit.documents.templates import Piece, parse_template, template_columns

names = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=5)
texts = st.text(st.sampled_from("{}ab \n.") | st.characters(codec="utf-8"), max_size=5)


@given(st.lists(st.tuples(texts, names), max_size=5), texts)
@example([("{", "a"), ("}}", "a")], "{}")
def test_pieces_are_what_the_template_was_made_of(pairs: list[tuple[str, str]], end: str) -> None:
    template, wanted = "", []
    for text, name in pairs:
        template += text.replace("{", "{{").replace("}", "}}") + "{" + name + "}"
        wanted += [Piece(text, False)] * bool(text) + [Piece(name, True)]
    template += end.replace("{", "{{").replace("}", "}}")
    wanted += [Piece(end, False)] * bool(end)
    assert list(parse_template(template)) == wanted
    assert template_columns(template) == tuple(dict.fromkeys(name for _, name in pairs))


@given(st.lists(st.sampled_from(["{{", "}}", "{a}", "{b c}", "x"]), max_size=6).map("".join))
def test_braces_mean_what_they_mean_in_python(template: str) -> None:
    values = {"a": "1", "b c": "2"}
    rendered = "".join(values[piece.text] if piece.is_column else piece.text for piece in parse_template(template))
    assert rendered == template.format(**values)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{a", "it has a { without a }; write {{ for a brace"),
        ("a{", "it has a { without a }"),
        ("{a{b}", "it has a { without a }"),
        ("a}", "it has a } without a {; write }} for a brace"),
        ("{a}}", "it has a } without a {"),
        ("x {} y", "it has {} without the name of a column"),
    ],
)
def test_wrong_braces_are_refused(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^it has") as refused:
        parse_template(template)
    assert message in str(refused.value)
