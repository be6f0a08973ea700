"""The messages of a chat as they are used, from a column as a reader gives it."""

from typing import Any

import polars as pl

from embedkit.data.reader import BLANK_LINE, PART_FIELDS, REASONING_FIELDS


def messages_expression(column: str, dtype: pl.DataType, reasoning: bool) -> pl.Expr:
    """Expression for a column of messages: lists of structs with the text fields role and content.

    Args:
        column: name of the column.
        dtype: its type.
        reasoning: also give those of REASONING_FIELDS that the column has. Parts of a list are joined by a blank line.
            A flag or a number is no reasoning: null.
    """
    fields = [pl.element().struct.field(name).cast(pl.String) for name in ("role", "content")]
    if reasoning:
        kinds = _field_types(dtype)
        fields += [_reasoning_text(name, kinds[name]).alias(name) for name in REASONING_FIELDS if name in kinds]
    return pl.col(column).list.eval(pl.struct(fields))


def _reasoning_text(name: str, kind: Any) -> pl.Expr:
    field = pl.element().struct.field(name)
    if kind == pl.Boolean or kind.is_numeric():
        return pl.lit(None, pl.String)
    if not isinstance(kind, pl.List):
        return field.cast(pl.String)
    part = pl.element()
    if isinstance(kind.inner, pl.Struct):
        there = _field_types(kind)
        texts = (pl.element().struct.field(name).cast(pl.String) for name in PART_FIELDS if name in there)
        part = pl.coalesce(pl.when(text != "").then(text) for text in texts)
    part = part.cast(pl.String)
    return field.list.eval(part.filter(part != "")).list.join(BLANK_LINE)


def _field_types(dtype: pl.DataType) -> dict[str, Any]:
    """Types of the fields of a list of structs."""
    assert isinstance(dtype, pl.List)
    assert isinstance(dtype.inner, pl.Struct)
    return {field.name: field.dtype for field in dtype.inner.fields}
