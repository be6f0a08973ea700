"""Findings as a text to read."""

from collections.abc import Iterator, Mapping, Sequence

from embedkit.analysis.components.extremes import SHOWN_CHARACTERS, cut, printable
from embedkit.analysis.findings.find import Findings

TEMPLATE = 160
"""Rows of a source often begin with the same instructions. If they have more characters, only their begin is shown."""
BEGIN = 60
CONTEXT = 20
"""Characters that are shown of a template: at its begin, and before the place where the rows differ."""

Line = Mapping[str, object]


def as_text(findings: Findings) -> str:
    """`Findings.rows` as readable text, each with the rows that it is compared with, then what was skipped and why.

    Each text is on one line, cut to SHOWN_CHARACTERS, without control characters. What all the rows of a finding begin
    with is left out if it is long, so that the place where they differ is shown. A compared text that is that of the
    row is called the same.
    """
    return "".join(_lines(findings))


def _lines(findings: Findings) -> Iterator[str]:
    compared: dict[object, Line] = {line["id"]: line for line in findings.compared.iter_rows(named=True)}
    for line in findings.rows.iter_rows(named=True):
        others = [compared[id_] for id_ in line["compared_ids"]]
        yield (
            f"\n{line['rank']:>3}. {line['kind']} {line['kind_rank']} of {findings.counts[line['kind']]:,}  "
            f"strength {line['strength']:.3f}  {_place(line)}  {line['num_tokens']:,} tokens\n"
            f"     {printable(line['reason'])}\n"
        )
        yield from _texts(line, others, findings.text_names)
    if not findings.rows.height:
        yield "\nNo findings.\n"
    if findings.skipped:
        yield "\nNot computed:\n"
    for kind, reason in findings.skipped.items():
        yield f"  {kind}: {reason}\n"


def _texts(line: Line, others: Sequence[Line], names: Mapping[str, str]) -> Iterator[str]:
    """The texts of a row and of those it is compared with."""
    template = {column: shared_begin([_text(row, column) for row in (line, *others)]) for column in names}
    for row in (line, *others):
        if row is not line:
            yield f"     beside {_place(row)}\n"
        for column, name in names.items():
            text = _text(row, column)
            if text:
                is_same = row is not line and text == _text(line, column)
                yield f"       {name}: {'the same' if is_same else without_template(text, template[column])}\n"


def without_template(text: str, template: int) -> str:
    """A text on one line, cut, without most of its first `template` characters, which other rows have too."""
    if template <= TEMPLATE:
        return cut(text)
    left_out = template - BEGIN - CONTEXT
    rest = cut(text[template - CONTEXT :], SHOWN_CHARACTERS - BEGIN)
    return f"{cut(text[:BEGIN])} [... {left_out:,} characters ...] {rest}"


def shared_begin(texts: Sequence[str]) -> int:
    """Characters that all texts begin with; 0 for texts that are all equal."""
    low, high = min(texts), max(texts)  # whatever these two begin with, all begin with
    if low == high:
        return 0
    return next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))


def _text(line: Line, column: str) -> str:
    return str(line[column] or "").strip()


def _place(line: Line) -> str:
    return f"id {line['id']}  row {line['row']}  {printable(str(line['dataset_source']))}"
