"""Finds the reasoning in answers that hold it between tags, or in the channels of harmony.

FORMS lists the tags, in the order in which they are tried; the first form that fits an answer decides. Capital letters
do not matter. A tag in running text is a word and not a mark: before it is a space, a quotation mark or an opening
bracket, and after it is one of these, a closing bracket or a punctuation mark. A tag that begins or ends its line is
always a mark. A tag inside a code block (an odd number of ``` before it) never is one. A form fits if
- its first opening mark has a closing tag after it: what is between is the reasoning; what is before the opening tag
  and after the closing one is the response, joined by a blank line;
- or the answer begins with its opening tag, and no closing tag follows: all of it is reasoning;
- or a closing mark has no opening tag before it: what is before is the reasoning, what is after the response.
An answer that no form fits stays whole.
"""

from dataclasses import dataclass

import polars as pl

PYTHON_WHITESPACE = "".join(chr(c) for c in range(0x3001) if chr(c).isspace())
"""Characters that str.strip() removes. Polars' default leaves \\x1c to \\x1f, so the set is passed explicitly."""

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Form:
    """The tags around a reasoning, and those around the response, which are left out if they are there."""

    opening: str
    closing: str
    response_opening: str = ""
    response_closing: str = ""


FORMS = (
    Form("<think>", "</think>"),  # DeepSeek-R1, Qwen3, GLM, Olmo and most others
    Form("<seed:think>", "</seed:think>"),  # Seed-OSS
    Form("<mm:think>", "</mm:think>"),  # MiniMax-M3
    Form("[THINK]", "[/THINK]"),  # Magistral
    Form("◁think▷", "◁/think▷"),  # Kimi-VL
    Form("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),  # Command A
    Form("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"),  # OpenThoughts
    Form("<|channel>thought", "<channel|>"),  # Gemma 4
    Form("<thinking>", "</thinking>"),  # what many prompts ask for
    Form("<thought>", "</thought>"),
    Form("<reasoning>", "</reasoning>"),
)
CHANNEL = "<|channel|>"
"""Begins the header of a message in harmony, the format of gpt-oss (github.com/openai/harmony, docs/format.md)."""
MARKERS = [CHANNEL, *(tag for form in FORMS for tag in (form.opening, form.closing))]
"""An answer without any of these is whole."""

_QUOTES = "\"'`“”„«»\u2018\u2019"
_BLANK = f"[{PYTHON_WHITESPACE.replace(chr(10), '')}]"
_BEFORE_A_WORD = rf"{_QUOTES}(\[{{{PYTHON_WHITESPACE}"
_AFTER_A_WORD = rf"{_QUOTES})\]}}.,:;!?…{PYTHON_WHITESPACE}"

_TEXT = pl.col("text")


def find_think(answers: pl.Series) -> pl.DataFrame:
    """Split answers, String (n,). Returns (think, response), n rows, stripped; both are null for a whole answer."""
    left = pl.DataFrame({"text": answers}).with_row_index("place")
    found = []
    for form in (None, *FORMS):
        markers = [CHANNEL] if form is None else [form.opening, form.closing]
        marked = left.filter(_TEXT.str.contains_any(markers, ascii_case_insensitive=True))
        if marked.height:
            split = _split_channels(marked) if form is None else _split_tags(marked, form)
            found.append(split.select("place", strip("think"), strip("response")))
            left = left.join(split, on="place", how="anti")
    whole = left.select("place", think=pl.lit(None, pl.String), response=pl.lit(None, pl.String))
    return pl.concat([*found, whole]).sort("place").drop("place")


def strip(name: str) -> pl.Expr:
    """The column without whitespace around it, as str.strip() does it."""
    return pl.col(name).str.strip_chars(PYTHON_WHITESPACE)


def join_filled(*texts: pl.Expr) -> pl.Expr:
    """Join those texts that are not empty by a blank line."""
    return pl.concat_str([pl.when(text != "").then(text) for text in texts], separator=SEPARATOR, ignore_nulls=True)


def _split_tags(rows: pl.DataFrame, form: Form) -> pl.DataFrame:
    """(place, think, response) of the rows (place, text) that a form fits."""
    opening, closing = _pattern(form.opening), _pattern(form.closing)
    size, closing_size = len(form.opening.encode()), len(form.closing.encode())
    # Three ways to cut a text; a column is null where its tag is missing.
    cut = rows.with_columns(_first_mark(opening).alias("opens"), _first_mark(closing).alias("closes"))
    cut = cut.with_columns(
        _slice(pl.lit(0), pl.col("opens")).alias("before"),
        _slice(pl.col("opens") + size).alias("rest"),
        _slice(pl.lit(0), pl.col("closes")).alias("ahead"),
        _slice(pl.col("closes") + closing_size).alias("behind"),
    ).with_columns(pl.col("rest").str.find(closing).cast(pl.Int64).alias("ends"))
    has_pair = pl.col("ends").is_not_null() & ~_in_code("before")
    is_unclosed = pl.col("ends").is_null() & (strip("before") == "")
    is_lone = pl.col("closes").is_not_null() & ~pl.col("ahead").str.contains(opening) & ~_in_code("ahead")
    between, after = (
        _slice(pl.lit(0), pl.col("ends"), "rest"),
        _slice(pl.col("ends") + closing_size, None, "rest"),
    )
    return (
        cut.select(
            "place",
            think=pl.when(has_pair).then(between).when(is_unclosed).then("rest").when(is_lone).then("ahead"),
            before=pl.when(has_pair).then(strip("before")).otherwise(pl.lit("")),
            after=pl.when(has_pair).then(after).when(is_unclosed).then(pl.lit("")).when(is_lone).then("behind"),
        )
        .filter(pl.col("think").is_not_null())
        .select("place", "think", response=join_filled(pl.col("before"), _unwrap(form)))
    )


def _pattern(tag: str) -> str:
    """Pattern of a tag in small or capital letters of ASCII, so that its size in bytes is that of the tag."""
    return f"(?i-u:{pl.escape_regex(tag)})"


def _first_mark(tag: str) -> pl.Expr:
    """Where the first mark of a tag begins, in bytes; null without one."""
    pattern = rf"(?m)(?P<before>^{_BLANK}*|[^{_BEFORE_A_WORD}]){tag}|{tag}(?:{_BLANK}*$|[^{_AFTER_A_WORD}])"
    before = _TEXT.str.extract_groups(pattern).struct.field("before")
    return _TEXT.str.find(pattern).cast(pl.Int64) + before.str.len_bytes().fill_null(0)


def _slice(start: pl.Expr, length: pl.Expr | None = None, column: str = "text") -> pl.Expr:
    """Bytes of a text as text; null where start or length is."""
    is_there = start.is_not_null() if length is None else length.is_not_null()
    return pl.when(is_there).then(pl.col(column).cast(pl.Binary).bin.slice(start, length).cast(pl.String))


def _in_code(before: str) -> pl.Expr:
    """Whether what is before a tag leaves a code block open."""
    return pl.col(before).str.count_matches("```", literal=True) % 2 == 1


def _unwrap(form: Form) -> pl.Expr:
    """The text after the reasoning, without the tags of a response around it."""
    text = strip("after")
    if form.response_opening:
        opened = text.str.replace(f"^{_pattern(form.response_opening)}", "")
        text = opened.str.replace(f"{_pattern(form.response_closing)}$", "").str.strip_chars(PYTHON_WHITESPACE)
    return text


def _split_channels(rows: pl.DataFrame) -> pl.DataFrame:
    """(place, think, response) of the rows (place, text) that are messages of harmony, and nothing else.

    A message is `<|start|>role<|channel|>name ...<|message|>text<|end|>`. The last tag may be missing, and so may the
    first two, which a chat template writes. The response is the messages of the channel `final`. All others
    (analysis, commentary) are reasoning. Messages are joined by a blank line.
    """
    pieces = rows.select("place", piece=_TEXT.str.split(CHANNEL)).explode("piece")
    pieces = pieces.with_columns(
        is_first=pl.col("place").is_first_distinct(),
        channel=pl.col("piece").str.extract(_HEADER),
    )
    is_sound = pl.when("is_first").then(pl.col("piece").str.contains(_START)).otherwise(pl.col("channel").is_not_null())
    texts = pl.col("piece").str.replace(_HEADER, "").str.replace(_START_AT_END, "").str.replace(_END, "")
    messages = (
        pieces.filter(is_sound.all().over("place"), ~pl.col("is_first"))
        .select("place", "channel", text=texts.str.strip_chars(PYTHON_WHITESPACE))
        .with_columns(text=pl.when(_TEXT != "").then(_TEXT))
    )
    is_final = pl.col("channel") == "final"
    return messages.group_by("place").agg(
        think=_TEXT.filter(~is_final).str.join(SEPARATOR),
        response=_TEXT.filter(is_final).str.join(SEPARATOR),
    )


_SPACE = f"[{PYTHON_WHITESPACE}]"
_START = rf"^{_SPACE}*(?:<\|start\|>[^<\n]*)?$"
"""What may be before the first channel."""
_HEADER = r"^([A-Za-z]+)[^<\n]*(?:<\|constrain\|>[^<\n]*)?<\|message\|>"
_START_AT_END = r"<\|start\|>[^<\n]*$"
_END = rf"<\|(?:end|return|call)\|>{_SPACE}*$"
