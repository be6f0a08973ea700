"""Turns source names into folder names: safe on any file system, and different for different sources."""

import hashlib
import unicodedata
from collections.abc import Iterable

MAX_BYTES = 200
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}
"""Names of devices on Windows, which ignores what follows the first dot."""


def source_folders(sources: Iterable[str]) -> dict[str, str]:
    """Folder name by source.

    The plain name has "_" in place of "/" and space. If it is unsafe, or equal to the name of a source that sorts
    earlier (case and Unicode form ignored), the name ends in a hash of the source instead.
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
