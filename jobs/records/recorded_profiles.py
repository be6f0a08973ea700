"""Copies of the profiles that a run was submitted with: `profiles/NAME-HASH.toml`, whole, and never changed.

So a rerun requests the same from Slurm, from any folder, also if the profile's file was edited, moved or removed.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder, program
from embedkit.storage import atomic_write_bytes, durable_mkdir, write_once
from embedkit.terminal import command_line, quote
from jobs.profiles import Profile, Stage, load_profile, parse_profile
from jobs.records.submission import Submission

NAME_BYTES = 200
"""A file's name has at most 255 bytes."""


def record_profile(run: RunFolder, profile: Profile) -> Path:
    """Write the copy of a profile unless the run has it, and repair one that was changed. Returns its path."""
    path = _copy(run, profile.path, profile.sha256)
    durable_mkdir(path.parent)
    if not write_once(path, profile.content) and path.read_bytes() != profile.content:
        atomic_write_bytes(path, profile.content)
    return path


def recorded_profile(run: RunFolder, line: Submission) -> Profile:
    """The profile of a submission, from the run's copy; runs of 0.2.0 and before have none.

    Raises:
        EmbedkitError: the copy is missing or was changed.
        UsageError: the profile is not valid in this version, or a run without a copy names a file that is not there.
    """
    if not line.profile_sha256:
        return _from_path(run, line)
    path = _copy(run, Path(line.profile), line.profile_sha256)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise EmbedkitError(f"{path} is missing: it is the {_copy_of(line)}; {_to_name(run, line)}") from None
    if hashlib.sha256(content).hexdigest() != line.profile_sha256:
        raise EmbedkitError(f"{path} was changed or is damaged: it is the {_copy_of(line)}; {_to_name(run, line)}")
    try:
        return parse_profile(content, Path(line.profile))
    except UsageError as error:
        raise UsageError(f"{path}: {error}; it is the {_copy_of(line)}; {_to_name(run, line)}") from None


def launcher_stages(run: RunFolder, lines: Sequence[Submission]) -> tuple[Stage, ...]:
    """The stages whose newest submission had a `launcher` in its profile; none if the copy cannot be read."""
    newest = {line.stage: line for line in lines if line.what == "submitted"}
    found: list[Stage] = []
    for stage, line in newest.items():
        with suppress(EmbedkitError, OSError):
            if recorded_profile(run, line).stages[stage].launcher:
                found.append(stage)
    return tuple(found)


def changed_note(line: Submission) -> tuple[str, ...]:
    """One line if the profile's file has changed since a submission; none if it has not, or cannot be read."""
    try:
        content = Path(line.profile).read_bytes()
    except (OSError, ValueError):
        return ()
    if line.profile_sha256 in ("", hashlib.sha256(content).hexdigest()):
        return ()
    return (
        f"note: {line.profile} has changed since the run was submitted with it; the recorded content is used. For the "
        f"new one add --profile {quote(line.profile)}",
    )


def _from_path(run: RunFolder, line: Submission) -> Profile:
    """The profile of a submission without a copy."""
    path = Path(line.profile)
    if not path.exists():
        relative = "" if path.is_absolute() else "; the path is relative to the folder of that command"
        raise UsageError(
            f"{path}: no such file, and the run was submitted with this profile{relative}; {_to_name(run, line)}"
        )
    return load_profile(str(path) if path.is_absolute() else f"./{path}")


def _copy(run: RunFolder, path: Path, sha256: str) -> Path:
    """Where the copy of a profile is."""
    stem = os.fsdecode(os.fsencode(path.stem)[:NAME_BYTES])
    return run.profiles / f"{stem}-{sha256[:12]}.toml"


def _copy_of(line: Submission) -> str:
    return f"copy of {line.profile} that the run was submitted with"


def _to_name(run: RunFolder, line: Submission) -> str:
    """What to type to submit with a file instead."""
    path = line.profile if Path(line.profile).is_file() else "PATH"
    return f"name a profile: {command_line([program(), 'rerun', str(run.path), '--profile', path])}"
