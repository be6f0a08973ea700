"""Compares the files of a run with those that are there now: by name, whatever their order and their folders."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from embedkit.documents import DataFile, FileRecord

MOST_LINES = 20
"""Changes that a message lists."""
NOT_IN_RUN = "not in the run"
NOT_THERE = "not there"

Identity = DataFile | FileRecord


@dataclass(frozen=True)
class Change:
    """One line of a message: what differs (`data  train-2.jsonl`), its value in the run, and its value now."""

    what: tuple[str, ...]
    old: str
    new: str


@dataclass(frozen=True)
class _File:
    """path: where the file is; its name if that is not known. place: its position in the list of files."""

    identity: Identity
    path: str
    place: int


def data_changes(
    old: Sequence[DataFile], new: Sequence[DataFile | None], old_paths: Sequence[str], new_paths: Sequence[str]
) -> list[Change]:
    """Compare the data files of a run with those of now. None in `new` is a file that is missing."""
    there = [(file, path) for file, path in zip(new, new_paths, strict=True) if file is not None]
    changes = file_changes("data", old, [file for file, _ in there], old_paths, [path for _, path in there])
    if changes or len(old) != len(there):
        return changes
    labels, pairs = _labels(old_paths), _pairs(_files(old, old_paths), _files([file for file, _ in there], new_paths))
    return [
        Change(("data", labels[before.path]), _at(before.place, len(old)), _at(after.place, len(old)))
        for before, after in pairs
        if before is not None and after is not None and before.place != after.place
    ]


def _at(place: int, files: int) -> str:
    return f"file {place + 1} of {files}"


def file_changes(
    kind: str,
    old: Sequence[Identity],
    new: Sequence[Identity],
    old_paths: Sequence[str] = (),
    new_paths: Sequence[str] = (),
) -> list[Change]:
    """The files that differ, in the run's order, then the new ones.

    Files of one name are compared with each other: those at one path first, then equal ones, then the rest in order.
    A name that several files have is shown with as many of its folders as tell them apart.

    Args:
        kind: begins each line, such as `model file`.
        old: the run's files.
        new: the files now.
        old_paths: where the run's files are or were; () for both where no two files have one name.
        new_paths: where the files are now.
    """
    here, there = _files(old, old_paths), _files(new, new_paths)
    if old_paths or new_paths:
        labels = _labels([file.path for file in here]) | _labels([file.path for file in there])
    else:
        labels = {file.path: file.path for file in (*here, *there)}
    changes: list[tuple[tuple[bool, int], Change]] = []
    for before, after in _pairs(here, there):
        shown, now = (file.identity if file else None for file in (before, after))
        if shown != now:
            known = [file for file in (after, before) if file is not None]
            texts = _described(shown, now, NOT_IN_RUN), _described(now, shown, NOT_THERE)
            changes.append(((before is None, known[-1].place), Change((kind, labels[known[0].path]), *texts)))
    return [change for _, change in sorted(changes, key=lambda item: item[0])]


def order_of_run(old: Sequence[DataFile], new: Sequence[DataFile]) -> list[int] | None:
    """For each of the run's files the position in `new`; None if the files differ, or two are alike.

    Two JSONL files of one name and size are alike, so nobody can say which is which.
    """
    if Counter(old) != Counter(new) or len(set(old)) < len(old):
        return None
    places = {file: place for place, file in enumerate(new)}
    return [places[file] for file in old]


def show_changes(changes: Sequence[Change]) -> str:
    """The lines of a message, in columns."""
    shown = changes[:MOST_LINES]
    widths = [max(len(change.what[i]) for change in shown if len(change.what) > i) for i in range(_columns(shown))]
    lines = []
    for change in shown:
        words = [word.ljust(width) for word, width in zip(change.what, widths, strict=False)]
        lines.append(f"  {'  '.join(words)}  {change.old}  ->  {change.new}")
    if len(changes) > len(shown):
        lines.append(f"  ... and {len(changes) - len(shown):,} more")
    return "\n".join(lines)


def _columns(changes: Iterable[Change]) -> int:
    return max((len(change.what) for change in changes), default=0)


def _files(files: Sequence[Identity], paths: Sequence[str]) -> list[_File]:
    named = paths or [file.name for file in files]
    return [_File(file, path, place) for place, (file, path) in enumerate(zip(files, named, strict=True))]


def _pairs(old: Sequence[_File], new: Sequence[_File]) -> list[tuple[_File | None, _File | None]]:
    """Each file beside its counterpart of the same name. None beside one that has none."""
    keys: tuple[Callable[[_File], Hashable], ...] = (
        lambda file: (file.identity.name, file.path),
        lambda file: file.identity,
        lambda file: file.identity.name,
    )
    pairs: list[tuple[_File | None, _File | None]] = []
    for key in keys:
        waiting: dict[Hashable, deque[_File]] = defaultdict(deque)
        for file in new:
            waiting[key(file)].append(file)
        alone = []
        for file in old:
            if waiting[key(file)]:
                pairs.append((file, waiting[key(file)].popleft()))
            else:
                alone.append(file)
        old, new = alone, [file for files in waiting.values() for file in files]
    return [*pairs, *((file, None) for file in old), *((None, file) for file in new)]


def _labels(paths: Sequence[str]) -> dict[str, str]:
    """The shortest end of each path that no other path has: its name, or some of its folders too."""
    labels: dict[str, str] = {}
    left, depth = {path: PurePath(path).parts for path in paths}, 1
    while left:
        ends = {path: "/".join(parts[-depth:]).replace("//", "/") for path, parts in left.items()}
        count = Counter(ends.values())
        labels |= {path: end for path, end in ends.items() if count[end] == 1 or len(left[path]) <= depth}
        left = {path: parts for path, parts in left.items() if path not in labels}
        depth += 1
    return labels


def _described(file: Identity | None, beside: Identity | None, missing: str) -> str:
    """A file's size and, where only that tells it from the other, its rows or its sha256."""
    if file is None:
        return missing
    text = f"{file.bytes:,} bytes"
    if beside is None or beside.bytes != file.bytes:
        return text
    if isinstance(file, DataFile):
        rows = "" if file.rows is None else f", {file.rows:,} rows"
        return text + rows + (f", footer sha256 {file.footer_sha256[:12]}" if file.footer_sha256 else "")
    return f"{text}, sha256 {file.sha256[:12]}"
