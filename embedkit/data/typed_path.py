"""Paths as they were typed."""

from pathlib import Path


def expand_home(name: str) -> str:
    """Replace `~` and `~user` at the beginning, as in --dataset=~/x, where a shell does not. Names that exist stay."""
    if not name.startswith("~") or Path(name).exists():
        return name
    try:
        return str(Path(name).expanduser())
    except RuntimeError:  # there is no such user
        return name
