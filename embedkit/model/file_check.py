"""Finds files of a model folder that are there by name only: links that lead nowhere, and pointers of Git LFS."""

from pathlib import Path, PurePosixPath

from embedkit.errors import UsageError
from embedkit.model.folder import is_identity

POINTER = b"version https://git-lfs.github.com/spec/"
"""How a pointer begins. Source: the specification of Git LFS; pointers have less than 1,024 bytes."""
POINTER_BYTES = 1024


def check_files(model: Path) -> None:
    """Raise UsageError naming the first file that is there by name only, if it decides the model's vectors.

    Without it such a file would be read as damaged, or left out: a missing tokenizer_config.json is no error.
    """
    paths = [path for path in sorted(model.rglob("*")) if is_identity(PurePosixPath(path.relative_to(model)))]
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise UsageError(f"{path}: a link to {path.readlink()}, which is not there; fetch the model again")
    pointers = [path for path in paths if _is_pointer(path)]
    if pointers:
        more = f" and {len(pointers) - 1} more" if len(pointers) > 1 else ""
        raise UsageError(f"{pointers[0]}{more}: a pointer of Git LFS, not the file; run `git lfs pull` in {model}")


def _is_pointer(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size >= POINTER_BYTES:
        return False
    with path.open("rb") as file:
        return file.read(len(POINTER)) == POINTER
