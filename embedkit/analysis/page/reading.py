"""The tab "Worth reading": all listed findings, each with the rows that it is compared with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedkit.analysis.findings import KINDS, Findings
from embedkit.analysis.findings.loop import find_loop
from embedkit.analysis.merged import Merged
from embedkit.analysis.page.packed import packed
from embedkit.analysis.page.sections import Section
from embedkit.analysis.page.side_by_side import Ids, Line, after_beginning, rows_of, side_by_side

TITLE = "Worth reading"
PLACE = "reading"
"""The id of the element that the script fills, and the name of the block with its data."""
MAX_BYTES = 2_000_000
"""Bytes of the block. Parts of texts that do not fit are left out, those of the last findings first."""

MEANING = {
    "same_prompt": "another row has its prompt, and another answer",
    "survivors": "most rows of its source were dropped; what is left may not be like what was lost",
    "same_vector": "a row with another text has its vector",
    "unknown_tokens": "the tokenizer does not know a tenth or more of it",
    "contamination": "rows of its source are in another source",
    "strangers": "its nearest rows are of other sources, which is unusual in its source",
    "unrelated_answers": "its answer is unusually far from its thought",
    "loops": "a phrase of its text recurs and recurs",
    "same_answer": "a row with another prompt has its answer",
    "outliers": "it is unusually far from all other rows",
    "exact_duplicates": "another row has the same text",
    "long_thoughts": "its thought is unusually long for its answer",
    "doubted_sources": "by its vector alone, it would be of another source",
}
"""When a row is a finding, by kind."""


def reading_section(findings: Sequence[Findings], run: str) -> Section:
    """The tab without its findings, which the script adds. run: the run as an argument of a command."""
    if not findings:
        text = f"No findings were computed for this page. `embedkit analyze {run} --findings 20` computes them."
        return Section(TITLE, [text])
    return Section(
        TITLE,
        [
            "A finding says that a row is unusual, not that it is wrong. findings.parquet has all that are listed, "
            "with whole texts."
        ],
        place=PLACE,
    )


def rows_to_read(findings: Sequence[Findings]) -> list[int]:
    """Ids of the findings and of the rows that they are compared with."""
    return sorted({id_ for found in findings for id_ in [*found.rows["id"], *found.compared["id"]]})


def pack_reading(
    views: Sequence[Merged],
    findings: Sequence[Findings],
    beginnings: Sequence[Mapping[str, str]],
    max_bytes: int = MAX_BYTES,
) -> str:
    """Pack the findings of each view: names of the texts, kinds, rows, and findings by rank.

    findings, beginnings: of each view, these as `shared_beginnings` returns them.
    """
    plain = [_of_view(*of_view) for of_view in zip(views, findings, beginnings, strict=True)]
    kept = max((len(view["findings"]) for view in plain), default=0)
    while len(block := _block(plain, kept)) > max_bytes and kept:
        kept //= 2
    return block


def _block(views: Sequence[dict[str, Any]], kept: int) -> str:
    """The block, with parts of texts for the first `kept` findings."""
    short = [
        view | {"findings": [one if at < kept else one | {"starts": []} for at, one in enumerate(view["findings"])]}
        for view in views
    ]
    return packed(json.dumps(short, ensure_ascii=False, separators=(",", ":")).encode(errors="replace"))


def _of_view(merged: Merged, found: Findings, beginnings: Mapping[str, str]) -> dict[str, Any]:
    texts = {line["id"]: line for line in found.compared.iter_rows(named=True)}
    texts |= {line["id"]: line for line in found.rows.iter_rows(named=True)}
    ids = np.array(sorted(texts), np.int64)
    lines = [_finding(line, texts, ids, found.text_names, beginnings) for line in found.rows.iter_rows(named=True)]
    return {
        "names": list(found.text_names.values()),
        "kinds": [_kind(name, found) for name in KINDS],
        "rows": rows_of(merged, ids),
        "findings": lines,
    }


def _kind(name: str, found: Findings) -> dict[str, Any]:
    shown = int((found.rows["kind"] == name).sum())
    return {
        "name": name,
        "meaning": MEANING[name],
        "shown": shown,
        "found": found.counts.get(name, 0),
        "skipped": found.skipped.get(name),
    }


def _finding(
    line: Line, texts: Mapping[int, Line], ids: Ids, names: Mapping[str, str], beginnings: Mapping[str, str]
) -> dict[str, Any]:
    pairs = _pairs(line)
    starts = [
        side_by_side(
            texts[left],
            None if right is None else texts[right],
            names,
            [_starts(texts[id_], line["kind"], names, beginnings) for id_ in (left, right) if id_ is not None],
        )
        for left, right in pairs
    ]
    return {
        **{name: line[name] for name in ("rank", "kind", "kind_rank", "reason")},
        "strength": float(f"{line['strength']:.4g}"),
        "pairs": [[_position(ids, left), None if right is None else _position(ids, right)] for left, right in pairs],
        "starts": starts if any(starts) else [],
    }


def _position(ids: Ids, id_: int) -> int:
    return int(np.searchsorted(ids, id_))


def _pairs(line: Line) -> list[tuple[int, int | None]]:
    """The rows to show side by side: the finding beside each row that it is compared with, or alone.

    Contamination names a second pair of rows of the two sources after the first.
    """
    compared: list[int] = line["compared_ids"]
    if line["kind"] == "contamination":
        ends = [line["id"], *compared]
        return [(ends[at], ends[at + 1]) for at in range(0, len(ends) - 1, 2)]
    return [(line["id"], other) for other in compared] or [(line["id"], None)]


def _starts(line: Line, kind: str, names: Mapping[str, str], beginnings: Mapping[str, str]) -> dict[str, int]:
    """Where the texts of a row begin to matter by themselves: at their loop, or after what their source shares."""
    if kind == "loops":
        texts = {column: str(line[column] or "") for column in names}
        loops = {column: find_loop(text) for column, text in texts.items()}
        return {column: texts[column].index(loop.phrase) for column, loop in loops.items() if loop is not None}
    return after_beginning(line, names, beginnings)
