"""Changes of one file of a run, each undone afterwards."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
def changed(path: Path, alike: list[Path], change: Change) -> Iterator[list[Path]]:
    """Change a file, and undo it in the end. Yields the paths that it touched."""
    before = {p: p.read_bytes() for p in alike}
    touched = change(path, alike)
    try:
        yield touched
    finally:
        for p in touched:
            if p in before:
                p.write_bytes(before[p])
            else:
                p.unlink()
