"""Was a model trained so that the first numbers of its vectors are vectors, too (Matryoshka)? What its folder says.

Sources: config.json with `matryoshka_dimensions` or `is_matryoshka`, as vLLM 0.32 reads them; `truncate_dim` of
config_sentence_transformers.json; the model card (README.md) that sentence-transformers 6.2 writes, with the tag
`loss:MatryoshkaLoss` and the loss's `matryoshka_dims`. Many models say it in prose alone, which no program can trust.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from embedkit.model.json_file import read_json

CARD = "README.md"
CARD_BYTES = 4 << 20
"""A card's first bytes: those of sentence-transformers have samples of the data, which may be long."""


@dataclass(frozen=True)
class Matryoshka:
    """What a model folder says. dimensions: those it was trained for, ascending; empty if it does not say which."""

    file: Path
    what: str
    dimensions: tuple[int, ...]


def read_matryoshka(model: Path) -> Matryoshka | None:
    """What the model folder says of its dimensions; None if it says nothing.

    Raises UsageError naming a configuration that is not JSON.
    """
    config = read_json(model, "config.json")
    dimensions = _numbers(config.get("matryoshka_dimensions"))
    if dimensions:
        return Matryoshka(model / "config.json", "matryoshka_dimensions", dimensions)
    if config.get("is_matryoshka") is True:
        return Matryoshka(model / "config.json", "is_matryoshka", ())
    return _card(model / CARD) or _truncated(model)


def _truncated(model: Path) -> Matryoshka | None:
    name = "config_sentence_transformers.json"
    dim = _numbers([read_json(model, name).get("truncate_dim")])
    return Matryoshka(model / name, "truncate_dim", dim) if dim else None


def _card(path: Path) -> Matryoshka | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        text = file.read(CARD_BYTES).decode("utf-8", "replace")
    found = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.DOTALL)
    tags = re.findall(r"^ *- *['\"]?(.+?)['\"]? *$", found[1] if found else "", re.MULTILINE)
    tag = next((tag for tag in tags if re.fullmatch(r"(loss:)?matryoshka\w*", tag, re.IGNORECASE)), None)
    if tag is None:
        return None
    listed = re.search(r'"matryoshka_dims":\s*\[([\d,\s]+)\]', text)
    dimensions = _numbers([int(number) for number in re.findall(r"\d+", listed[1])]) if listed else ()
    return Matryoshka(path, f"tag {tag}", dimensions)


def _numbers(value: object) -> tuple[int, ...]:
    """The positive whole numbers of a list, ascending; none if it is no list of such numbers."""
    if not isinstance(value, list) or not all(type(one) is int and one > 0 for one in value):
        return ()
    return tuple(sorted(set(value)))
