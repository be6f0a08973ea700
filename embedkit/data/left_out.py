"""Which names below a folder are not read as data, and the notes that list them."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from embedkit.data.dataset import READABLE, has_reader
from embedkit.data.text_file import COMPRESSED

HIDDEN = (".", "_")
"""Other programs keep their own files under names that begin so: .ipynb_checkpoints, _SUCCESS, _delta_log."""
TEMPORARY = {
    *(".tmp", ".temp", ".part", ".partial", ".incomplete", ".inprogress", ".crdownload", ".download", ".aria2"),
    *(".lock", ".crc", ".swp", ".swo"),
}
"""Last suffixes of files that are being written or edited, of locks and of checksums."""
LOST_AND_FOUND = "lost+found"
"""In the top folder of a file system; only root may list it."""
PACKED = {*COMPRESSED, ".lz4", ".sz", ".snappy", ".zip"}
"""Suffixes after which the one before says what is in a file, for the notes."""
PROSE = {".md", ".rst", ".pdf", ".png", ".jpg", ".svg", ".html", ".py", ".sh", ".log", ".yaml", ".yml"}
"""Suffixes of files that hardly have rows; the notes list them last."""
NAMES, KINDS = 3, 8
"""How many names of each kind, and how many kinds, a note lists."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is never read unless its name is typed: a hidden or a temporary name."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    return (
        name.startswith(HIDDEN)
        or name == LOST_AND_FOUND
        or name.endswith("~")
        or ".tmp" in suffixes  # also x.tmp.parquet
        or (bool(suffixes) and suffixes[-1] in TEMPORARY)
    )


@dataclass
class LeftOut:
    """What is not read below a folder, or of what a pattern matches.

    hidden: hidden and temporary names. foreign: files whose format is not read, and names that are no files. beside:
    JSON, CSV and TSV beside other data files. bookkeeping, unlisted: of `datasets`, and what is in a folder that it
    saved without being part of the data set. folder: notes have names relative to it.
    """

    folder: Path | None = None
    hidden: set[Path] = field(default_factory=set)
    foreign: set[Path] = field(default_factory=set)
    beside: set[Path] = field(default_factory=set)
    bookkeeping: set[Path] = field(default_factory=set)
    unlisted: set[Path] = field(default_factory=set)

    def notes(self) -> list[str]:
        """What is not read and why, one text per cause."""
        notes = []
        if self.foreign:
            groups = _by_kind(self.foreign)
            listed = [f"{len(paths):,} {kind} ({self._first(paths)})" for kind, paths in groups[:KINDS]]
            more = sum(len(paths) for _, paths in groups[KINDS:])
            listed += [f"{more:,} more"] if more else []
            notes.append(
                f"{len(self.foreign):,} not read: {', '.join(listed)}. Only {READABLE} files are read; convert those "
                "that have rows"
            )
        for paths, why in (
            (self.beside, "not read: .json, .csv and .tsv files beside other data files; to read them, name them"),
            (self.unlisted, "not read: not in the lists of state.json and dataset_dict.json beside them"),
            (self.bookkeeping, "skipped: files in which `datasets` describes data"),
        ):
            if paths:
                notes.append(f"{len(paths):,} {why} ({self._first(paths)})")
        if self.hidden:
            notes.append(
                f"{len(self.hidden):,} skipped: names that begin with . or _ and temporary files are not data "
                f"({self._first(self.hidden)})"
            )
        return notes

    def _first(self, paths: Collection[Path]) -> str:
        """The first names in sorted order."""
        names = [str(path.relative_to(self.folder) if self.folder else path) for path in sorted(paths)[:NAMES]]
        return ", ".join(names) + (", ..." if len(paths) > NAMES else "")


def _by_kind(paths: Collection[Path]) -> list[tuple[str, list[Path]]]:
    """The paths by what their names end in, the most likely data first."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[_kind(path)].append(path)
    return sorted(groups.items(), key=lambda group: (group[0] in PROSE, -len(group[1]), group[0]))


def _kind(path: Path) -> str:
    """The suffix in words, with the one before it if the file is compressed. A number, as in part.00000, is none."""
    if has_reader(path):
        return "that are no files"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    last = suffixes[-2:] if suffixes and suffixes[-1] in PACKED else suffixes[-1:]
    return "".join(suffix for suffix in last if not suffix[1:].isdigit()) or "without suffix"
