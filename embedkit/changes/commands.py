"""The command that makes a run again: the options that were typed for it, with paths that work in any folder."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedkit.documents import RunConfig
from embedkit.run import RunFolder, program
from embedkit.terminal import command_line, words_of

COMMANDS = ("run", "prepare", "fetch", "submit")
"""Commands that make a run."""
VALUELESS = frozenset(
    {"--full", "--resume", "--overwrite", "--allow-mixed", "--no-allow-mixed", "--no-profile-check", "--preflight"}
    | {"--exact", "--no-preflight", "--analyze", "--no-analyze", "--dry-run", "--scripts", "--reuse-across-engines"}
)
"""Options of these commands that take no value."""
NOT_OF_THE_REQUEST = frozenset(
    {"--profile", "--no-profile-check", "--preflight", "--no-preflight", "--analyze", "--no-analyze", "--allow-mixed"}
    | {"--no-allow-mixed", "--workers", "--shards-per-task", "--dry-run", "--scripts"}
)
"""Options that not all of these commands have."""
_DROPPED = frozenset({"--resume", "--overwrite", "--run-name", "--output-dir", "--dry-run", "--scripts"})
_REPLACES = {
    "--full": ("--sample-size",),
    "--sample-size": ("--full",),
    "--prompt": ("--prefix",),
    "--prefix": ("--prompt",),
    "--dataset": ("--config", "--split", "--revision"),
    "--model": ("--model-revision",),
    "--preflight": ("--no-preflight",),
    "--no-preflight": ("--preflight",),
    "--analyze": ("--no-analyze",),
    "--no-analyze": ("--analyze",),
    "--allow-mixed": ("--no-allow-mixed",),
    "--no-allow-mixed": ("--allow-mixed",),
}
"""What is no longer meant when an option is typed later."""
_MOST_FILES = 20
"""Data files that a command names one by one."""

Option = tuple[str, str | None]


@dataclass(frozen=True)
class _Typed:
    """A command that makes a run: its name, and its options with their values in the order typed."""

    command: str
    options: tuple[Option, ...]


def command_again(place: RunFolder, config: RunConfig, now: RunConfig | None = None) -> str | None:
    """The command that makes a run again, without --overwrite; None if it is not known.

    It has all options that were typed when the run was made, when its open settings were decided, and now. Data and
    models of the Hub stay at their commits.

    Args:
        place: the folder of the run that the command makes.
        config: the configuration of the run that is made again.
        now: what the present command made of its own options; None for a command without them.
    """
    typed: _Typed | None = None
    for settings, prefix in ((config, ""), (config, "decided_"), (now, "")):
        later = None if settings is None else _read(settings, prefix)
        typed = later if typed is None else typed if later is None else _together(typed, later)
    if typed is None:
        return None
    options = _with_files(_at_commits(typed.options, now or config), now or config)
    names = {name for name, _ in options}
    if not {"--dataset", "--model"} <= names or (typed.command == "submit" and "--profile" not in names):
        return None
    return f"{command_line([program(), typed.command, *_words(options)])} {place.where}"


def _read(config: RunConfig, prefix: str) -> _Typed | None:
    """A recorded command, with absolute paths; None if it makes no run. `prefix`: of its keys in `asked`."""
    words = words_of(config.asked.get(f"{prefix}command", ""))[1:]
    if not words or words[0] not in COMMANDS:
        return None
    recorded = words_of(config.asked.get(f"{prefix}folder", ""))  # by this version and later ones
    folder = Path(recorded[0]) if recorded else Path.cwd()
    options = [(name, value) for name, value in _split(words[1:]) if name not in _DROPPED]
    found = ((name, value if value is None else _absolute(name, value, folder, config)) for name, value in options)
    return _Typed(words[0], tuple(found))


def _split(words: Sequence[str]) -> list[Option]:
    """The options among words, each with its value. A value may look like an option, as `--prefix --` has one."""
    options: list[Option] = []
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            continue
        if equals or name in VALUELESS:
            options.append((name, value if equals else None))
        else:
            options.append((name, next(rest, "")))
    return options


def _absolute(name: str, value: str, folder: Path, config: RunConfig) -> str:
    """The value of an option with a path made absolute. `folder`: where it was typed."""
    where = config.locations
    if name == "--profile":
        return str(folder / value) if "/" in value or value.endswith(".toml") else value
    if (name, where.data_repo) == ("--dataset", None) or (name, where.model_repo) == ("--model", None):
        is_pattern = name == "--dataset" and glob.has_magic(value) and not (folder / value).exists()
        inside = glob.escape(str(folder)) if is_pattern else str(folder)
        return value if value.startswith(("/", "~")) else str(Path(inside, value))
    return value


def _together(earlier: _Typed, later: _Typed) -> _Typed:
    """The options of two commands: what was typed later counts. Options that only one of them has may be dropped."""
    has_profile = any(name == "--profile" for name, _ in later.options) or earlier.command == "submit"
    if later.command == "submit":
        command = "submit" if has_profile else earlier.command
    else:
        command = "submit" if earlier.command == "submit" else later.command
    first, second = (
        tuple(option for option in one.options if one.command == command or option[0] not in NOT_OF_THE_REQUEST)
        for one in (earlier, later)
    )
    replaced = {other for name, _ in second for other in (name, *_REPLACES.get(name, ()))}
    return _Typed(command, (*(option for option in first if option[0] not in replaced), *second))


def _at_commits(options: Sequence[Option], config: RunConfig) -> list[Option]:
    """The options with the commits of data and model, if they are from the Hub: a branch may have moved on."""
    request, where = config.request, config.locations
    commits = [("--revision", where.data_repo, request.data_revision)]
    commits.append(("--model-revision", where.model_repo, request.model_revision))
    pinned = {name: commit for name, repo, commit in commits if repo is not None and commit is not None}
    return [*(option for option in options if option[0] not in pinned), *pinned.items()]


def _with_files(options: Sequence[Option], config: RunConfig) -> list[Option]:
    """The options without data that are not there any more; the files or the model as recorded if none are left."""
    where = config.locations
    kept = [option for option in options if not _is_gone(option, config)]
    names = {name for name, _ in kept}
    if "--dataset" not in names:
        files = [path for path in where.data if Path(path).is_file()]
        kept[:0] = [("--dataset", path) for path in files] if len(files) <= _MOST_FILES else []
    if "--model" not in names and Path(where.model).is_dir():
        kept.append(("--model", where.model))
    return kept


def _is_gone(option: Option, config: RunConfig) -> bool:
    name, value = option
    repos = {"--dataset": config.locations.data_repo, "--model": config.locations.model_repo}
    if value is None or name not in repos or repos[name] is not None or Path(value).exists():
        return False
    return name == "--model" or next(glob.iglob(value, recursive=True), None) is None  # noqa: PTH207


def _words(options: Sequence[Option]) -> list[str]:
    return [word for option in options for word in option if word is not None]
