"""Parse and check the values of a profile: times, memory, variables, options of sbatch."""

import datetime
import difflib
import re
import shlex
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from embedkit.errors import UsageError
from embedkit.prepare import GPU_MODELS
from jobs.gpu_request import gpu_options, requested_gpus
from jobs.profiles.schema import (
    KEY_OF_OPTION,
    KEY_OF_SHORT_OPTION,
    KEYS,
    PLACEHOLDER,
    PLACEHOLDERS,
    SET_BY_EMBEDKIT,
    TABLE_TYPES,
    VALUE_TYPES,
)

MAX_MINUTES = 366 * 24 * 60
MAX_MEGABYTES = 2**30

ONE_TASK = ("ntasks", "ntasks-per-node")
"""Options that some sites require; 1 is what every job has."""
TIME = re.compile(r"(?:([0-9]{1,9})-)?([0-9]{1,9})(?::([0-9]{1,9}))?(?::([0-9]{1,9}))?")
MEMORY = re.compile(r"([0-9]{1,18})(?:([KMGT])B?)?", re.IGNORECASE)


def minutes(time: str | int) -> int:
    """Whole minutes, rounded up, of a time limit in minutes or in one of Slurm's forms. Raises UsageError.

    "90" and "90:00" are minutes, "1:30:00" hours, "1-12", "1-12:00" and "1-12:00:00" days and hours.
    """
    match = TIME.fullmatch(_text_of(time))
    if match is None:
        raise UsageError(
            f"{shortened(time)} is no time: write minutes (90), or a string in one of Slurm's forms "
            '("90", "MM:SS", "HH:MM:SS", "D-HH", "D-HH:MM", "D-HH:MM:SS")'
        )
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is None and len(numbers) < 3:
        numbers = [0, *numbers]
    hours, whole, seconds = [*numbers, 0, 0][:3]
    total = (int(days or 0) * 24 + hours) * 60 + whole + -(-seconds // 60)
    if not 1 <= total <= MAX_MINUTES:
        raise UsageError(f"{shortened(time)} is {total:,} minutes; it must be at least one minute and at most a year")
    return total


def megabytes(mem: str | int) -> int:
    """MB (2^20 bytes), rounded up, of a number of MB or one of Slurm's forms: "500M", "64G". Raises UsageError.

    0 is all memory of the node, as in Slurm.
    """
    match = MEMORY.fullmatch(_text_of(mem))
    if match is None:
        raise UsageError(f'{shortened(mem)} is no memory: write MB (500), or a whole number and K, M, G or T ("64G")')
    kilobytes = int(match[1]) * {"K": 1, "M": 2**10, "G": 2**20, "T": 2**30}[(match[2] or "M").upper()]
    total = -(-kilobytes // 2**10)
    if total > MAX_MEGABYTES:
        raise UsageError(f"{shortened(mem)} is more memory than a node has (a number without a letter is MB)")
    return total


def checked_table(table: dict[str, Any]) -> dict[str, Any]:
    """The settings of one table in the types of Resources. Raises UsageError naming the key."""
    checked = {}
    for key, value in table.items():
        if key not in KEYS:
            raise UsageError(unknown("no key", key, KEYS) + "; other options of sbatch go into sbatch")
        checked[key] = at(key, _checked_inner_table if key in TABLE_TYPES else _checked_value, value, key)
    if table.keys() >= {"gpus", "gres"}:
        raise UsageError('gpus and gres exclude each other: gpus = 1 is short for gres = "gpu:1"')
    _refuse_gpus_twice(table)
    return checked


def _refuse_gpus_twice(table: dict[str, Any]) -> None:
    """Raise UsageError if one table requests GPUs in two ways: Slurm would add them up, or refuse the job."""
    keys = [key for key in ("gpus", "gres") if table.get(key) == 0 or requested_gpus({key: table.get(key)})]
    options = [f"sbatch: {name}" for name in gpu_options(table.get("sbatch", {}))]
    if keys and options:
        raise UsageError(f"{keys[0]} and {options[0]} both set the GPUs of a task: write one of them")
    if table.get("gpus_from_node") and requested_gpus({**table, "gpus_from_node": False, "gpus_per_job": 1}):
        raise UsageError(
            f"gpus_from_node says that GPUs come without being requested, but {(*keys, *options)[0]} requests them: "
            "write one of them"
        )


def at(place: str, check: Callable[..., Any], *arguments: Any) -> Any:
    """Run a check; put the place before its UsageError."""
    try:
        return check(*arguments)
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from None


def unknown(what: str, name: str, known: tuple[str, ...]) -> str:
    """The message for an unknown name: `no key 'x' (did you mean y?); known: ...`."""
    key = KEY_OF_OPTION.get(name.replace("_", "-"))
    guess = f" (did you mean {key}?)" if key in known else nearest(name, known)
    return f"{what} {shortened(name)}{guess}; known: {', '.join(sorted(known))}"


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean y?)` if a known name is similar, else nothing."""
    matches = difflib.get_close_matches(name[:80], known, 1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def shortened(value: str | int) -> str:
    """A value for a message: quoted, in ASCII, at most 60 characters."""
    text = ascii(value) if isinstance(value, str) else _text_of(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _checked_value(value: Any, key: str) -> Any:
    converted = _convert(value, VALUE_TYPES[key])
    return VALUE_CHECKS[key](converted) if key in VALUE_CHECKS else converted


def _checked_inner_table(table: Any, key: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError(f"is a table of names and values, not {_type_name(table)}")
    checked = {}
    for name, value in table.items():
        checked[name] = at(_as_in_file(name), _convert, value, TABLE_TYPES[key])
        at(_as_in_file(name), ENTRY_CHECKS[key], name, checked[name])
    return checked


def _convert(value: Any, kind: Any) -> Any:
    try:
        converted = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        hint = "; put it in quotes" if isinstance(value, datetime.date | datetime.time) else ""
        raise UsageError(f"{str(error).lower().replace('`$[', '`[')}{hint}") from None
    for text in converted if isinstance(converted, tuple) else [converted]:
        # The text goes into a script: a line break would start a new line there, and a hard space is no space.
        hidden = next((sign for sign in text if not sign.isprintable()), None) if isinstance(text, str) else None
        if hidden is not None:
            raise UsageError(f"{shortened(text)} has a line break or an invisible character ({hidden!a})")
    return converted


SCRATCH = re.compile(r"(?:[^\"'\\`$;*?\[\]{}()<>|&!#]|\$[A-Za-z_]\w*|\$\{[A-Za-z_]\w*\})*", re.ASCII)
"""A path with variables, and nothing else that a shell would act on: the job's script expands it."""


def _check_scratch(folder: str) -> str:
    if not folder.startswith(("/", "$")):
        raise UsageError(f'{shortened(folder)} is neither an absolute path nor a variable, such as "$SLURM_TMPDIR"')
    if not SCRATCH.fullmatch(folder):
        raise UsageError(
            f"{shortened(folder)} is more than a path with variables: the node expands $NAME and ${{NAME}}, and runs "
            "no commands, patterns or quotes here; a line in before can set a variable with them"
        )
    return folder


def _check_launcher(value: tuple[str, ...] | str) -> tuple[str, ...]:
    """The words of a launcher. A text is split as a shell does."""
    try:
        words = tuple(shlex.split(value)) if isinstance(value, str) else value
    except ValueError as error:
        raise UsageError(f"cannot be split into words: {error}") from None
    for name in (name for word in words for name in PLACEHOLDER.findall(word)):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise UsageError(f"no placeholder {{{name}}}; known: {known}")
    if words and PLACEHOLDER.search(words[0]):
        raise UsageError(f"the first word is a program, so {shortened(words[0])} can have no placeholder")
    return words


def _check_python(path: str) -> str:
    if not re.fullmatch(r"/[^\0]*|[\w.+-]+", path):
        raise UsageError(f"{shortened(path)} is neither an absolute path nor a name on PATH, such as python3")
    return path


def _check_clusters(name: str) -> str:
    if "," in name or name == "all":
        raise UsageError(
            f"{shortened(name)} is more than one cluster, and the jobs of a run wait for each other, which they can "
            "only on one: name one"
        )
    return name


def _check_mail(address: str) -> str:
    if re.search(r"[\s,]", address):
        raise UsageError(f"{shortened(address)} is more than one address: write one, without spaces")
    return address


def _check_gpu_model(name: str) -> str:
    if name not in GPU_MODELS:
        raise UsageError(
            f"the speed of {shortened(name)} is not known; known: {', '.join(GPU_MODELS)}; leave it out for a "
            "different GPU, and name its file of `embedkit curve` with curve"
        )
    return name


def _check_variable(name: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise UsageError("is no name of a variable")
    if name == "CUDA_VISIBLE_DEVICES":
        raise UsageError("Slurm sets it to the GPUs of each task; with this value all tasks would use the same GPU")
    if re.search(r"\$[A-Za-z_{(]|^~", value):
        raise UsageError(
            f"{shortened(value)} would stay as it is, since variables are not expanded here; write a line in before: "
            f'before = ["export {name}=..."]'
        )


def _check_option(option: str, value: str | int | bool) -> None:
    """Check a further option of sbatch. sbatch accepts shortened names, so short forms of refused options count."""
    if option.lstrip("-") in KEY_OF_SHORT_OPTION:
        raise UsageError(f"has a key of its own: {KEY_OF_SHORT_OPTION[option.lstrip('-')]}")
    if not re.fullmatch(r"[a-z][a-z0-9-]*", option):
        dashed = option.lower().replace("_", "-").lstrip("-")
        raise UsageError(f"is no long option of sbatch; write it without leading dashes, as in {_as_in_file(dashed)}")
    meant = option if option in KEY_OF_OPTION or option in SET_BY_EMBEDKIT else _full_name(option)
    if meant in KEY_OF_OPTION:
        raise UsageError(f"has a key of its own: {KEY_OF_OPTION[meant]}")
    if option in ONE_TASK and value == 1 and value is not True:
        return
    if meant in SET_BY_EMBEDKIT:
        raise UsageError(f"embedkit sets --{meant} itself: {SET_BY_EMBEDKIT[meant]}")
    if value == "":
        raise UsageError("is empty; write true for an option without a value, false to leave it out")


def _full_name(option: str) -> str | None:
    return next((name for name in (*KEY_OF_OPTION, *SET_BY_EMBEDKIT) if name.startswith(option)), None)


VALUE_CHECKS: dict[str, Callable[[Any], Any]] = {
    "time": minutes,
    "mem": megabytes,
    "scratch": _check_scratch,
    "launcher": _check_launcher,
    "python": _check_python,
    "gpu_model": _check_gpu_model,
    "clusters": _check_clusters,
    "mail": _check_mail,
}
ENTRY_CHECKS: dict[str, Callable[[str, Any], None]] = {"environment": _check_variable, "sbatch": _check_option}


def _text_of(value: str | int) -> str:
    # Python refuses to write numbers of thousands of digits.
    return value if isinstance(value, str) else str(value) if abs(value) < 10**12 else "too much"


def _as_in_file(name: str) -> str:
    """A name as TOML writes it: quoted only where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name) else shortened(name)


def _type_name(value: Any) -> str:
    return {list: "a list", str: "a string", bool: "true or false", int: "a number"}.get(type(value), "this")
