"""What differs between two runs, or a run and an engine, apart from the vectors."""

from collections.abc import Sequence

from embedkit.changes import Change
from embedkit.documents import EngineRecord
from embedkit.request import changed_files, setting_changes
from embedkit.row_keys import EarlierRun

FILES = ("reuse", "path_columns")
"""Settings whose values are too long for a line."""


def run_changes(a: EarlierRun, b: EarlierRun) -> list[Change]:
    """Data files, settings, model files, engines and row counts that differ."""
    settings = [
        Change(change.what, "...", "... (differs)") if change.what[0] in FILES else change
        for change in setting_changes(a.config.request, b.config.request)
    ]
    return [
        *changed_files(a.config, b.config),
        *settings,
        *engine_changes(a.success.engines, b.success.engines),
        *_count_changes(a, b),
    ]


def engine_changes(a: Sequence[EngineRecord], b: Sequence[EngineRecord]) -> list[Change]:
    """Fields of engine records that differ: all values that each side has."""
    changes = []
    for field in EngineRecord.__struct_fields__:
        one, other = (list(dict.fromkeys(str(getattr(record, field)) for record in side)) for side in (a, b))
        if set(one) != set(other):
            shown = [", ".join(name or "-" for name in side) for side in (one, other)]
            changes.append(Change(("engine", field), *shown))
    return changes


def _count_changes(a: EarlierRun, b: EarlierRun) -> list[Change]:
    counts = [
        {"rows": opened.plan.rows, "chosen rows": opened.plan.rows_chosen, "kept rows": opened.plan.rows_kept}
        | {"tokens": opened.plan.tokens}
        | {f"dropped: {reason}": rows for reason, rows in opened.plan.dropped.items()}
        for opened in (a, b)
    ]
    names = list(dict.fromkeys([*counts[0], *counts[1]]))
    pairs = [(name, counts[0].get(name, 0), counts[1].get(name, 0)) for name in names]
    return [Change(("count", name), f"{one:,}", f"{other:,}") for name, one, other in pairs if one != other]
