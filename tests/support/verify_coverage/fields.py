"""Every field of a sealed document, each with other valid values, as a careless tool would leave it."""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from embedkit.documents import Document
from embedkit.documents.codec import sealed
from tests.support.verify_coverage.changes import Change

T = TypeVar("T")
Edit = tuple[str, Any]
"""A field's name, such as `chunks.tokens` (elements of a list have no name of their own), and the whole new value."""


def resealed_fields(path: Path, kind: type[Document]) -> Iterator[tuple[str, Change]]:
    """The changes of a document: one leaf has another value of its type, or a list or dictionary has one less.

    Of lists and dictionaries, the first, the middle and the last element are changed. The new seal is right.
    """
    body = json.loads(path.read_bytes())
    del body["seal"]
    for name, edited in _edits(inspect.type_info(kind), body, ""):
        yield f"resealed {name}", _write(_sealed(edited))


def _sealed(body: Any) -> bytes:
    return sealed(msgspec.json.format(msgspec.json.encode(body, order="sorted"), indent=1) + b"\n")


def _write(data: bytes) -> Change:
    def change(path: Path, _: list[Path]) -> list[Path]:
        path.write_bytes(data)
        return [path]

    return change


def _edits(kind: inspect.Type, value: Any, name: str) -> Iterator[Edit]:
    match kind:
        case inspect.StructType():
            fields = [field for field in kind.fields if field.encode_name in value]
            for field in fields:
                key = field.encode_name
                for inner, other in _edits(field.type, value[key], f"{name}.{key}" if name else key):
                    yield inner, value | {key: other}
        case inspect.DictType():
            for key in spread(list(value)):
                for inner, other in _edits(kind.value_type, value[key], f"{name}.{key}"):
                    yield inner, value | {key: other}
            if value:
                yield f"{name} (fewer)", {key: value[key] for key in list(value)[:-1]}
        case inspect.VarTupleType() | inspect.TupleType():
            items = [kind.item_type] * len(value) if isinstance(kind, inspect.VarTupleType) else kind.item_types
            for at in spread(range(len(value))):
                for inner, other in _edits(items[at], value[at], name):
                    yield inner, [*value[:at], other, *value[at + 1 :]]
            if value and isinstance(kind, inspect.VarTupleType):
                yield f"{name} (fewer)", value[:-1]
        case inspect.UnionType():
            if value is not None:
                yield name, None
            for one in kind.types:
                if not isinstance(one, inspect.NoneType):
                    yield from _edits(one, _default(one) if value is None else value, name)
        case _:
            yield from ((name, other) for other in _others(kind, value))


def _others(kind: inspect.Type, value: Any) -> list[Any]:
    """Other valid values of a leaf."""
    match kind:
        case inspect.LiteralType():
            return [other for other in kind.values if other != value][:1]
        case inspect.BoolType():
            return [not value]
        case inspect.IntType():
            least = kind.ge or 0
            return [value + 1, *([least] if value > least + 1 else [])]
        case inspect.FloatType():
            return [value + 1, value / 2 or 2.0]
        case inspect.StrType():
            return [value[:-1] + ("a" if value[-1:] != "a" else "b")]
        case inspect.BytesType():
            data = base64.b64decode(value)
            edited = [data[:3] + bytes([data[3] ^ 0x10]) + data[4:], data[:-1]] if len(data) > 3 else [b"abcd"]
            return [base64.b64encode(other).decode() for other in edited]
        case _:
            raise AssertionError(f"documents have a new type of field: {kind}")


def _default(kind: inspect.Type) -> Any:
    """Some value where a document has None; `_others` makes it another one."""
    match kind:
        case inspect.StructType():
            return {"name": "a", "bytes": 1, "sha256": "0" * 64}
        case inspect.StrType():
            return "None"
        case _:
            return 1


def spread(items: Sequence[T]) -> list[T]:
    """The first, the middle and the last item, without repeats."""
    if not items:
        return []
    return [items[at] for at in sorted({0, len(items) // 2, len(items) - 1})]
