"""Changes of one file of a run, each undone afterwards."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from embedkit.documents.codec import sealed

Change = Callable[[Path, list[Path]], list[Path]]
"""Changes a file, given all files of its kind. Returns the paths that it touched; empty if it does not apply."""


def _rewrite(edit: Callable[[bytes], bytes]) -> Change:
    def change(path: Path, _: list[Path]) -> list[Path]:
        data = path.read_bytes()
        if edit(data) == data:
            return []
        path.write_bytes(edit(data))
        return [path]

    return change


def _flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :] if data else data


def _remove(path: Path, _: list[Path]) -> list[Path]:
    path.unlink()
    return [path]


def _swap(path: Path, alike: list[Path]) -> list[Path]:
    """Swap two files of a kind, such as those of two shards."""
    other = next(
        (p for p in alike if p != path and p.suffix == path.suffix and p.read_bytes() != path.read_bytes()), None
    )
    if other is None:
        return []
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)
    return [path, other]


def _copy_as(name: Callable[[str], str]) -> Change:
    def change(path: Path, _: list[Path]) -> list[Path]:
        copy = path.with_name(name(path.name))
        shutil.copy(path, copy)
        return [copy]

    return change


CHANGES: dict[str, Change] = {
    "flipped bit": _rewrite(_flipped),
    "truncated": _rewrite(lambda data: data[: len(data) * 2 // 3]),
    "empty": _rewrite(lambda data: b""),
    "extended": _rewrite(lambda data: data + b"\0\n"),
    "missing": _remove,
    "swapped": _swap,
    "doubled": _copy_as(lambda name: f"copy-of-{name}"),
    "hidden copy": _copy_as(lambda name: f".{name}.copy"),
}


@contextmanager
def changed(path: Path, alike: list[Path], change: Change) -> Iterator[bool]:
    """Change a file, and undo it in the end. Yields whether the change applied."""
    before = {p: p.read_bytes() for p in alike}
    touched = change(path, alike)
    try:
        yield bool(touched)
    finally:
        for p in touched:
            if p in before:
                p.write_bytes(before[p])
            else:
                p.unlink()


def fields_of(path: Path) -> list[str]:
    """Fields of a sealed document, those of its first list or dictionary of objects as `field.name`."""
    document = json.loads(path.read_bytes())
    names: list[str] = []
    for name, value in document.items():
        if name == "seal":
            continue
        inner = _first_object(value)
        names += [f"{name}.{key}" for key in inner] if inner is not None and name != "request" else [name]
    return names


def _first_object(value: Any) -> dict[str, Any] | None:
    if isinstance(value, list):
        value = next(iter(value), None)
    return value if isinstance(value, dict) and value else None


def reseal(field: str) -> Change:
    """Change a field of a document and seal it again with a right digest, as a careless tool would."""

    def change(path: Path, _: list[Path]) -> list[Path]:
        document = json.loads(path.read_bytes())
        del document["seal"]
        name, _, key = field.partition(".")
        holder, at = (document, name) if not key else (document[name], key)
        if isinstance(holder, list):
            holder = holder[0]
        holder[at] = _other(holder[at])
        body = msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=1) + b"\n"
        path.write_bytes(sealed(body))
        return [path]

    return change


def _other(value: Any) -> Any:
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value[:-1] + ("a" if value[-1:] != "a" else "b")
        case list():
            return [*value[:-1], _other(value[-1])] if value else value
        case dict():
            first = next(iter(value), None)
            return value if first is None else value | {first: _other(value[first])}
        case _:
            return 1
