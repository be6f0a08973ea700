"""Source names as folder names: safe on any file system, and never two sources in one folder."""

import hashlib
import unicodedata
from collections.abc import Iterable

MAX_BYTES = 200
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}
"""Devices on Windows, whatever follows the first dot."""


def source_folders(sources: Iterable[str]) -> dict[str, str]:
    """A folder name for each source.

    The plain name replaces "/" and space by "_". A source whose plain name is unsafe, or taken by a source
    that sorts before it (case and Unicode form aside), gets a name that ends in a hash of the source.
    """
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for source in sorted(set(sources)):
        name = source.replace("/", "_").replace(" ", "_")
        if not _is_safe(name) or _fold(name) in taken:
            name = _hashed(source)
        taken.add(_fold(name))
        folders[source] = name
    return folders


def _is_safe(name: str) -> bool:
    return (
        name not in ("", ".", "..")
        and not name.startswith((".", "-"))
        and not name.endswith(".")
        and name.split(".")[0].casefold() not in RESERVED
        and len(name.encode()) <= MAX_BYTES
        and not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") or c in '\\:*?"<>|' for c in name)
    )


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _hashed(source: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in source)[:80].strip("_")
    return f"{kept or 'source'}-{hashlib.sha256(source.encode()).hexdigest()[:16]}"
