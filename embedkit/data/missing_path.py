"""Explains a path that does not exist: the part that is missing, and the nearest name that is there."""

import difflib
import os
from pathlib import Path


def explain_missing(path: Path) -> str:
    """Say which part of a path does not exist, and the nearest existing name in that folder."""
    missing = next((part for part in (*reversed(path.parents), path) if not part.exists()), path)
    if missing.is_symlink():
        return f"{missing} is a link to {os.readlink(missing)}, which does not exist"  # noqa: PTH115
    if not missing.parent.is_dir():
        return f"{missing} does not exist, since {missing.parent} is a file"
    near = _nearest(missing)
    nearest = f"; the nearest name there is {near}" if near is not None else ""
    user = path.parts[0] if str(path).startswith("~") else ""
    tilde = f"; {user} is no user's home folder on this machine" if user else ""
    return f"{missing} does not exist{nearest}{tilde}"


def _nearest(missing: Path) -> Path | None:
    """The path in the same folder whose name is most like a missing one; None if none is like it."""
    try:
        names = os.listdir(missing.parent)  # noqa: PTH208
    except OSError:
        return None
    lower = {name.lower(): name for name in sorted(names)}
    near = difflib.get_close_matches(missing.name.lower(), lower, n=1, cutoff=0.5)
    return missing.with_name(lower[near[0]]) if near else None
