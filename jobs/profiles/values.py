"""Site profiles: what a site changes, and nothing else. slurm_templates/README.md says how to write one.

A profile is one TOML file: `[all]`, and a table a stage that overrides it key by key.
"""

import datetime
import difflib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

import jobs
from embedkit.errors import UsageError
from embedkit.prepare.cost import GPU_MODELS, GpuModel, gpu_model

Stage = Literal["prepare", "preflight", "embed", "merge", "analyze"]
STAGES: tuple[Stage, ...] = get_args(Stage)
TEMPLATES = Path(jobs.__file__).parent.parent / "slurm_templates"
PREFLIGHT_MINUTES = 30
MOST_MINUTES = 366 * 24 * 60
MOST_MEGABYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task of one stage asks of Slurm, and how its shell is set up. None: the site's default."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    wckey: str | None = None
    time: int | None = None
    """Minutes."""
    mem: int | None = None
    """MB (2^20 bytes); 0 is all of the node's, as in Slurm."""
    cpus: int | None = None
    gpus: int | None = None
    gres: str | None = None
    """Excludes gpus."""
    exclusive: bool = False
    modules: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Lines of shell."""
    environment: Mapping[str, str] = field(default_factory=dict)
    scratch: str | None = None
    """A folder on the node; may hold shell variables, to be expanded there."""
    gpu_model: GpuModel | None = None
    """Which GPU it will be, for predictions; Slurm is not asked for it."""
    gpus_per_job: int = 1
    """Workers of one embed task, each with one of its GPUs and one shard at a time."""
    signal_seconds: int = 120
    """Seconds before the time limit at which a task is told."""
    sbatch: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Further long options of sbatch; true for those without a value, false for one that is left out."""

    @property
    def gpu_count(self) -> int:
        """GPUs of a task, by either key."""
        if self.gpus is not None:
            return self.gpus
        kinds = [entry.split(":") for entry in (self.gres or "").split(",")]
        counts = [entry[-1] if entry[-1].isdecimal() else "1" for entry in kinds if entry[0] == "gpu"]
        return sum(map(int, counts))

    @property
    def predicted_gpu(self) -> GpuModel | None:
        """The model by which seconds are predicted: gpu_model, else what gres says; None if neither has a known one."""
        return self.gpu_model or gpu_model(self.gres or "")


@dataclass(frozen=True)
class Profile:
    """One site's file, checked and resolved: the settings of every stage."""

    name: str
    path: Path
    stages: Mapping[Stage, Resources]


Text = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Number = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)]

KINDS: dict[str, Any] = {
    **dict.fromkeys(("partition", "account", "qos", "reservation", "constraint"), Text),
    **dict.fromkeys(("nodelist", "exclude", "wckey", "gres", "scratch"), Text),
    **dict.fromkeys(("time", "mem"), Number | str),
    "cpus": Count,
    "gpus": Annotated[int, msgspec.Meta(ge=0, le=1024)],
    "exclusive": bool,
    **dict.fromkeys(("modules", "before"), tuple[Text, ...]),
    "gpu_model": Text,
    "gpus_per_job": Annotated[int, msgspec.Meta(ge=1, le=1024)],
    "signal_seconds": Annotated[int, msgspec.Meta(ge=60, le=65_535)],
}
TABLE_KINDS: dict[str, Any] = {"environment": str, "sbatch": Number | str | bool}
KEYS = (*KINDS, *TABLE_KINDS)

KEY_OF = {
    **{key: key for key in ("partition", "account", "qos", "reservation", "constraint", "nodelist", "exclude")},
    **{key: key for key in ("wckey", "time", "gres", "exclusive")},
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "mem"),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cpus"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "tres-per-task"), "gpus"),
}
"""Options of sbatch that have a key here."""

OURS = {
    "array": "the tasks of the array are the shards",
    **dict.fromkeys(("dependency", "kill-on-invalid-dep"), "a stage waits for the one before it"),
    **dict.fromkeys(("output", "error", "open-mode"), "logs are in the run's folder, and a restart appends to them"),
    **dict.fromkeys(("job-name", "comment", "clusters"), "jobs are found again by what embedkit submitted"),
    "signal": "signal_seconds says when a task is told that its time ends",
    **dict.fromkeys(("requeue", "no-requeue"), "embedkit's tasks can always be started again"),
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node", "ntasks-per-gpu"), "a task is one process on one node"),
    **dict.fromkeys(("wrap", "chdir"), "embedkit writes the script and says where it starts"),
    **dict.fromkeys(("parsable", "wait", "test-only", "quiet", "verbose"), "embedkit reads what sbatch says"),
}
"""Options of sbatch that embedkit sets itself, and why a profile may not."""


def load_profile(name_or_path: str) -> Profile:
    """Read a profile: a shipped one by its name, or any TOML file by its path ("/" or ".toml" in it).

    Raises UsageError, which names file, table and key, for whatever is wrong with it.
    """
    path = _find(name_or_path)
    try:
        return Profile(path.stem, path, _resolved(_read(path)))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def sbatch_parameters(resources: Resources) -> dict[str, str | int | bool]:
    """Long options of sbatch by name, as submitit's additional parameters take them; True for one without a value.

    The signal is not among them: signal_seconds is for who submits.
    """
    named: dict[str, str | int | bool | None] = {
        key: getattr(resources, key)
        for key in ("partition", "account", "qos", "reservation", "constraint", "nodelist", "exclude", "wckey", "time")
    }
    named["mem"] = f"{resources.mem}M" if resources.mem is not None else None
    named["cpus-per-task"] = resources.cpus
    named["gres"] = f"gpu:{resources.gpus}" if resources.gpus else resources.gres
    named["exclusive"] = resources.exclusive
    named.update(resources.sbatch)
    return {option: value for option, value in named.items() if value is not None and value is not False}


def setup_lines(resources: Resources) -> list[str]:
    """Lines of shell for the job's script: modules, then the environment, then the site's own."""
    # Without a module the task would fail later and less clearly, or run on other libraries.
    lines = [f"module load {shlex.quote(module)} || exit 1" for module in resources.modules]
    if "export" in resources.sbatch:
        lines.append("unset SLURM_EXPORT_ENV")  # srun would hold back the variables below, too
    lines += [f"export {name}={shlex.quote(value)}" for name, value in resources.environment.items()]
    return lines + list(resources.before)


def with_overrides(profile: Profile, *, time: str | None, mem: str | None) -> Profile:
    """The profile with --time and --mem of a rerun, which are for embed alone. Raises UsageError."""
    embed = profile.stages["embed"]
    if time is not None:
        embed = replace(embed, time=_at("--time", minutes, time))
        _at("--time", _check_signal, embed)
    if mem is not None:
        embed = replace(embed, mem=_at("--mem", megabytes, mem))
    return replace(profile, stages={**profile.stages, "embed": embed})


TIME = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?")
MEMORY = re.compile(r"([0-9]{1,18})(?:([KMGT])B?)?", re.IGNORECASE)


def minutes(time: str | int) -> int:
    """Whole minutes, rounded up, of a time limit in minutes or in one of Slurm's forms. Raises UsageError.

    "90" and "90:00" are minutes, "1:30:00" hours, "1-12", "1-12:00" and "1-12:00:00" days and hours.
    """
    found = TIME.fullmatch(_text_of(time))
    if found is None:
        raise UsageError(
            f"{_short(time)} is no time: minutes (90), or a string as Slurm takes it "
            '("90", "MM:SS", "HH:MM:SS", "D-HH", "D-HH:MM", "D-HH:MM:SS")'
        )
    days, *rest = found.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is None and len(numbers) < 3:
        numbers = [0, *numbers]
    hours, whole, seconds = [*numbers, 0, 0][:3]
    total = (int(days or 0) * 24 + hours) * 60 + whole + -(-seconds // 60)
    if not 1 <= total <= MOST_MINUTES:
        raise UsageError(f"{_short(time)} is {total:,} minutes; it must be at least one minute and at most a year")
    return total


def megabytes(mem: str | int) -> int:
    """MB (2^20 bytes), rounded up, of a number of MB or one of Slurm's forms: "500M", "64G". Raises UsageError.

    0 is all the memory of the node, as in Slurm.
    """
    found = MEMORY.fullmatch(_text_of(mem))
    if found is None:
        raise UsageError(f'{_short(mem)} is no memory: MB (500), or a whole number and K, M, G or T ("64G")')
    kilobytes = int(found[1]) * {"K": 1, "M": 2**10, "G": 2**20, "T": 2**30}[(found[2] or "M").upper()]
    total = -(-kilobytes // 2**10)
    if total > MOST_MEGABYTES:
        raise UsageError(f"{_short(mem)} is more memory than a node has (a number without a letter is MB)")
    return total


def shipped() -> list[str]:
    """The names of the profiles that come with embedkit."""
    return sorted(path.stem for path in TEMPLATES.glob("*.toml"))


def _find(name_or_path: str) -> Path:
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        return Path(name_or_path)
    known = shipped()
    if name_or_path not in known:
        raise UsageError(
            f"no profile {_short(name_or_path)}{_nearest(name_or_path, known)}; there are {', '.join(known)}; "
            "a path works too, such as ./mysite.toml"
        )
    return TEMPLATES / f"{name_or_path}.toml"


def _read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UsageError with the line of what is no TOML."""
    try:
        data = path.read_bytes()
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}; shipped profiles: {', '.join(shipped())}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UsageError(f"is no TOML: not UTF-8 (at line {line})") from None
    except RecursionError:
        raise UsageError("is no profile: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what Python says of a number too long or of a path with \0
        raise UsageError(f"is no TOML: {error}") from None


def _resolved(tables: dict[str, Any]) -> dict[Stage, Resources]:
    for name, table in tables.items():
        if name not in ("all", *STAGES):
            if name in KEYS:
                raise UsageError(f"{name} stands outside of a table; put it under [all] or under a stage")
            raise UsageError(_unknown("no table", name, ("all", *STAGES)))
        if not isinstance(table, dict):
            raise UsageError(f"{name} is a table: write [{name}] on a line of its own")
    own = {name: _at(f"[{name}]", _checked, table) for name, table in tables.items()}
    merged = {stage: _merged(own.get("all", {}), own.get(stage, {})) for stage in STAGES}
    merged["preflight"] = _merged(merged["embed"] | {"time": PREFLIGHT_MINUTES}, own.get("preflight", {}))
    stages = {stage: _with_workers(stage, Resources(**merged[stage])) for stage in STAGES}
    for stage, resources in stages.items():
        _at(f"[{stage}]: time", _check_signal, resources)
    return stages


def _with_workers(stage: Stage, resources: Resources) -> Resources:
    """A GPU for each worker of a task of embed; preflight, on the same kind of node, asks for as many."""
    workers = resources.gpus_per_job
    if stage not in ("preflight", "embed"):
        return replace(resources, gpus_per_job=1)
    if workers > 1 and resources.gpus is None and resources.gres is None:
        resources = replace(resources, gpus=workers)
    if stage == "preflight":
        return replace(resources, gpus_per_job=1)
    if workers > 1 and resources.gpu_count < workers:
        raise UsageError(
            f"[embed]: gpus_per_job = {workers} needs as many GPUs, and the task asks for {resources.gpu_count}: write "
            f"gpus = {workers}"
        )
    if resources.gpu_count > workers:
        raise UsageError(
            f"[embed]: the task asks for {resources.gpu_count} GPUs, and {workers} would be used: add gpus_per_job = "
            f"{resources.gpu_count}"
        )
    return resources


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Settings of a stage over those that it inherits: key by key, in tables too."""
    if own.keys() & {"gpus", "gres"}:
        base = {key: value for key, value in base.items() if key not in ("gpus", "gres")}
    tables = {key: {**base.get(key, {}), **own.get(key, {})} for key in TABLE_KINDS}
    return base | own | tables


def _checked(table: dict[str, Any]) -> dict[str, Any]:
    """The settings of one table, in the types of Resources. Raises UsageError naming the key."""
    checked = {}
    for key, value in table.items():
        if key not in KEYS:
            raise UsageError(_unknown("no key", key, KEYS) + "; other options of sbatch go into sbatch")
        checked[key] = _at(key, _table if key in TABLE_KINDS else _setting, value, key)
    if table.keys() >= {"gpus", "gres"}:
        raise UsageError('gpus and gres exclude each other: gpus = 1 is short for gres = "gpu:1"')
    return checked


def _setting(value: Any, key: str) -> Any:
    converted = _convert(value, KINDS[key])
    return CHECKS[key](converted) if key in CHECKS else converted


def _table(table: Any, key: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"is a table of names and values, not {_kind(table)}")
    entry_check = ENTRY_CHECKS[key]
    checked = {}
    for name, value in table.items():
        checked[name] = _at(_plain(name), _convert, value, TABLE_KINDS[key])
        _at(_plain(name), entry_check, name, checked[name])
    return checked


def _convert(value: Any, kind: Any) -> Any:
    try:
        converted = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        hint = "; put it in quotes" if isinstance(value, datetime.date | datetime.time) else ""
        raise UsageError(f"{str(error).lower().replace('`$[', '`[')}{hint}") from None
    for text in converted if isinstance(converted, tuple) else [converted]:
        # It ends in a script: a line break would be a line of its own there, a hard space no space.
        hidden = next((sign for sign in text if not sign.isprintable()), None) if isinstance(text, str) else None
        if hidden is not None:
            raise UsageError(f"{_short(text)} holds a line break or a character that does not show ({hidden!a})")
    return converted


def _check_scratch(folder: str) -> str:
    if not folder.startswith(("/", "$")):
        raise UsageError(f'{_short(folder)} is neither an absolute path nor a variable, such as "$SLURM_TMPDIR"')
    return folder


def _check_gpu_model(name: str) -> str:
    if name not in GPU_MODELS:
        raise UsageError(
            f"the speed of {_short(name)} is not known; known: {', '.join(GPU_MODELS)}; leave it out for another GPU"
        )
    return name


def _check_variable(name: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UsageError("is no name of a variable")
    if name == "CUDA_VISIBLE_DEVICES":
        raise UsageError("Slurm gives each task its GPU by it; with this, all would take the same")
    if re.search(r"\$[A-Za-z_{(]|^~", value):
        raise UsageError(
            f"{_short(value)} would stay as it is written, nothing in it expanded; for that, write a line in before: "
            f'before = ["export {name}=..."]'
        )


def _check_option(option: str, value: str | int | bool) -> None:
    """A further option of sbatch. sbatch takes shortened names too, so those of refused options are refused."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*", option):
        dashed = option.lower().replace("_", "-").lstrip("-")
        raise UsageError(f"is no long option of sbatch; write it without leading dashes, as in {_plain(dashed)}")
    meant = option if option in KEY_OF or option in OURS else _shortened(option)
    if meant in KEY_OF:
        raise UsageError(f"has a key of its own: {KEY_OF[meant]}")
    if meant in OURS:
        raise UsageError(f"embedkit sets --{meant} itself: {OURS[meant]}")
    if value == "":
        raise UsageError("is empty; true is for an option without a value, false leaves it out")


def _shortened(option: str) -> str | None:
    return next((name for name in (*KEY_OF, *OURS) if name.startswith(option)), None)


def _check_signal(resources: Resources) -> None:
    if resources.time is not None and resources.time * 60 <= resources.signal_seconds:
        raise UsageError(
            f"{resources.time} minutes are over before a task is told that its time ends "
            f"(signal_seconds = {resources.signal_seconds}): allow more time"
        )


CHECKS: dict[str, Callable[[Any], Any]] = {
    "time": minutes,
    "mem": megabytes,
    "scratch": _check_scratch,
    "gpu_model": _check_gpu_model,
}
ENTRY_CHECKS: dict[str, Callable[[str, Any], None]] = {"environment": _check_variable, "sbatch": _check_option}


def _at(place: str, check: Callable[..., Any], *arguments: Any) -> Any:
    """What the check returns; its UsageError with the place before it."""
    try:
        return check(*arguments)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def _unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    named = KEY_OF.get(name.replace("_", "-"))
    guess = f" (did you mean {named}?)" if named in known else _nearest(name, known)
    return f"{what} {_short(name)}{guess}; known: {', '.join(sorted(known))}"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name[:80], known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _text_of(value: str | int) -> str:
    # Python refuses to write numbers of thousands of digits.
    return value if isinstance(value, str) else str(value) if abs(value) < 10**12 else "too much"


def _short(value: str | int) -> str:
    text = ascii(value) if isinstance(value, str) else _text_of(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(name: str) -> str:
    """A name as it stands in the file: quoted only where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name) else _short(name)


def _kind(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "true or false", int: "a number"}.get(type(value), "this")
