"""Load and validate a site profile. slurm_templates/README.md describes how to write one.

A profile is one TOML file: `[all]`, and one table per stage that overrides it key by key.
"""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jobs
from embedkit.errors import UsageError
from jobs.gpu_request import merge_settings
from jobs.profiles.schema import KEYS, STAGES, Profile, Resources, Stage
from jobs.profiles.validation import at, checked_table, megabytes, minutes, nearest, shortened, unknown

TEMPLATES = Path(jobs.__file__).parent.parent / "slurm_templates"
PREFLIGHT_MINUTES = 30


def load_profile(name_or_path: str) -> Profile:
    """Read a profile: a shipped one by its name, or any TOML file by its path ("/" or ".toml" in it).

    Raises UsageError, which names file, table and key, if anything in it is wrong.
    """
    path = _find(name_or_path)
    try:
        return parse_profile(_read(path), path.absolute())
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def parse_profile(content: bytes, path: Path) -> Profile:
    """Validate the bytes of a profile.

    Args:
        content: the bytes.
        path: the absolute path of the file to edit.

    Raises:
        UsageError: something is wrong; it names the table and the key, and no file.
    """
    return Profile(path.stem, path, _resolve(_tables(content)), content)


def with_overrides(
    profile: Profile, *, time: str | None = None, mem: str | None = None, shards_per_task: int | None = None
) -> Profile:
    """The profile with --time, --mem and --shards-per-task, which apply to embed only. Raises UsageError."""
    embed = profile.stages["embed"]
    if time is not None:
        embed = replace(embed, time=at("--time", minutes, time))
        at("--time", check_signal, embed)
    if mem is not None:
        embed = replace(embed, mem=at("--mem", megabytes, mem))
    if shards_per_task is not None:
        embed = replace(embed, shards_per_task=shards_per_task)
    return replace(profile, stages={**profile.stages, "embed": embed})


def shipped() -> list[str]:
    """The names of the profiles that come with embedkit."""
    return sorted(path.stem for path in TEMPLATES.glob("*.toml"))


def _find(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(name_or_path)
    known = shipped()
    if name_or_path not in known:
        raise UsageError(
            f"no profile {shortened(name_or_path)}{nearest(name_or_path, known)}; there are {', '.join(known)}; "
            "a path works too, such as ./mysite.toml"
        )
    return TEMPLATES / f"{name_or_path}.toml"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}; shipped profiles: {', '.join(shipped())}") from None
    except ValueError as error:  # \0 in a path
        raise UsageError(f"cannot be read: {error}") from None


def _tables(data: bytes) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError with the line that is no TOML."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"is no TOML: not UTF-8 (at line {line})") from None
    except RecursionError:
        raise UsageError("is no profile: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError; also Python's, for a number that is too long
        raise UsageError(f"is no TOML: {error}") from None


def _resolve(tables: dict[str, Any]) -> dict[Stage, Resources]:
    """Check every table, and let each stage inherit: from [all], and preflight from embed except for its time."""
    for name, table in tables.items():
        if name not in ("all", *STAGES):
            if name in KEYS:
                raise UsageError(f"{name} stands outside of a table; put it under [all] or under a stage")
            raise UsageError(unknown("no table", name, ("all", *STAGES)))
        if not isinstance(table, dict):
            raise UsageError(f"{name} is a table: write [{name}] on a line of its own")
    own = {name: at(f"[{name}]", checked_table, table) for name, table in tables.items()}
    merged = {stage: merge_settings(own.get("all", {}), own.get(stage, {})) for stage in STAGES}
    merged["preflight"] = merge_settings(merged["embed"] | {"time": PREFLIGHT_MINUTES}, own.get("preflight", {}))
    stages = {stage: _with_gpus_for_workers(stage, Resources(**merged[stage])) for stage in STAGES}
    for stage, resources in stages.items():
        at(f"[{stage}]: time", check_signal, resources)
    if len({resources.clusters for resources in stages.values()}) > 1:
        raise UsageError(
            "clusters differs between stages, but the jobs of a run wait for each other, which they can only on one "
            "cluster: set it under [all]"
        )
    return stages


def _with_gpus_for_workers(stage: Stage, resources: Resources) -> Resources:
    """Give each worker of an embed task a GPU. preflight runs on the same kind of node, so it requests as many."""
    workers = resources.gpus_per_job
    if stage not in ("preflight", "embed"):
        return replace(resources, gpus_per_job=1, shards_per_task=1)
    requested = replace(resources, gpus_per_job=1).gpu_count  # without those that follow from gpus_per_job
    if workers > 1 and not requested and resources.gpus is None and resources.gres is None:
        resources = replace(resources, gpus=workers)
    if stage == "preflight":
        return replace(resources, gpus_per_job=1, shards_per_task=1)
    if workers > 1 and resources.gpu_count < workers:
        raise UsageError(
            f"[embed]: gpus_per_job = {workers} needs as many GPUs, but the task requests {resources.gpu_count}: write "
            f"gpus = {workers}"
        )
    if resources.gpu_count > workers:
        raise UsageError(
            f"[embed]: the task requests {resources.gpu_count} GPUs, but would use {workers}: add gpus_per_job = "
            f"{resources.gpu_count}"
        )
    return resources


def check_signal(resources: Resources) -> None:
    """Raise UsageError if the time limit of a task ends before its signal."""
    if resources.time is not None and resources.time * 60 <= resources.signal_seconds:
        raise UsageError(
            f"{resources.time} minutes end before Slurm signals the task (signal_seconds = "
            f"{resources.signal_seconds}): allow more time"
        )
