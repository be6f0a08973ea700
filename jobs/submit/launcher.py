"""The words that start Python in a job: a profile's launcher, the variables that Python needs, its path.

A launcher is usually a container runtime. Some pass no variables on, so the variables are words too: `env NAME=value`.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import embedkit
from embedkit.documents import RunConfig, read
from embedkit.errors import UsageError
from embedkit.run import RunFolder
from jobs.node.node_folders import NODE_HOST
from jobs.node.scratch import SCRATCH
from jobs.profiles import PLACEHOLDER, Resources
from jobs.slurm import PIPE_FOLDER
from jobs.slurm_environment import OTHER_PYTHON, SCRIPT_STARTED

LAUNCH = Path(__file__).with_name("launch.sh")
PASSED = (
    *("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_CPUS_PER_TASK"),
    *("SLURM_JOB_START_TIME", "SLURM_JOB_END_TIME"),
    *("SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES", "USER", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PYTHONPATH"),
    *(SCRATCH, NODE_HOST, PIPE_FOLDER, OTHER_PYTHON, SCRIPT_STARTED),
)
"""Variables that a launcher may withhold, and tasks need. Those of the profile's `environment` come on top."""
OF_EVERY_SYSTEM = tuple(map(Path, ("/", "/usr", "/bin", "/lib", "/lib64", "/etc", "/tmp", "/var", "/dev")))  # noqa: S108
"""Folders that a container has itself. They are not mounted over its own, but folders below them may be."""


def setup_of_launcher(run: RunFolder, resources: Resources) -> list[str]:
    """Lines of shell before the one with `start_words`: none without `launcher` and `python` in the profile."""
    lines = []
    if resources.python is not None:
        lines = [f"export {OTHER_PYTHON}={shlex.quote(resources.python)}", "export PYTHONNOUSERSITE=1"]
        # A PYTHONPATH that the login shell or a module has set is for a different Python.
        path = [*map(str, code_folders()), *filter(None, [resources.environment.get("PYTHONPATH")])]
        lines.append(f"export PYTHONPATH={shlex.quote(':'.join(path))}" if path else "unset PYTHONPATH")
    if resources.launcher:
        lines.append(f'export {PIPE_FOLDER}={shlex.quote(str(run.logs / "slurm"))}/pipe-"$SLURM_JOB_ID"')
        lines.append(f'export {NODE_HOST}="$(uname -n)"')
        lines.append(f'export {SCRIPT_STARTED}="$(($(date +%s) - SECONDS))"')  # SECONDS: since this shell began
        lines += LAUNCH.read_text(encoding="utf-8").splitlines()
    return lines


def start_words(run: RunFolder, resources: Resources) -> str:
    """The words of shell before the arguments of Python. Raises UsageError if a container cannot mount a folder."""
    python = shlex.quote(resources.python or sys.executable)
    if not resources.launcher:
        return f"exec {python}"
    folders = mounted_folders(run, resources)
    odd = next((folder for folder in folders if {":", ","} & set(str(folder))), None)
    if odd is not None and any("{folder" in word for word in resources.launcher):
        raise UsageError(f"{odd}: no container runtime mounts a path with a colon or a comma; give it a link without")
    words = launcher_words(resources.launcher, run, folders, resources.scratch)
    names = dict.fromkeys((*PASSED, *resources.environment))
    variables = (f'${{{name}+"{name}=${name}"}}' for name in names)
    return " ".join(["launch", *words, "env", *variables, python])


def launcher_words(
    launcher: Iterable[str], run: RunFolder, folders: Iterable[Path], scratch: str | None = None
) -> Iterator[str]:
    """The words of a launcher, quoted for the shell. Variables of the shell in them are left for the node.

    Args:
        launcher: the profile's words. `{run}` is the run's folder. A word with `{folder}` is repeated, once for each
            folder. `{folders}` are all of them, as `A:A,B:B`.
        run: the run.
        folders: what is mounted.
        scratch: the profile's folder for temporary files, which is mounted too; it may have variables.
    """
    mounted = [_literal(str(folder)) for folder in folders] + ([_quoted(scratch)] if scratch else [])
    fixed = {"run": _literal(str(run.path)), "folders": ",".join(f"{folder}:{folder}" for folder in mounted)}
    for word in launcher:
        repeats = mounted if "{folder}" in word else [""]
        for folder in repeats:
            parts = PLACEHOLDER.split(word)  # text, name, text, name, ..., text
            values = {**fixed, "folder": folder}
            text = "".join(values[part] if i % 2 else _quoted(part) for i, part in enumerate(parts))
            yield text if re.fullmatch(r"[\w@%+=:,./-]+", text) else f'"{text}"'


def mounted_folders(run: RunFolder, resources: Resources) -> list[Path]:
    """The folders that a task of a run reads or writes: those that a container must show at the same paths.

    They are the run, its model and its data, the code, and, unless the profile names a Python, this environment. A
    folder below another one, or one that every system has, is left out.
    """
    wanted = [run.path, *code_folders()]
    if run.config.exists():
        locations = read(run.config, RunConfig).locations
        wanted += _folders_of(Path(locations.model).rglob("*"), Path(locations.model))
        wanted += [*_folders_of(map(Path, locations.data)), *filter(Path.exists, map(Path, locations.reuse))]
    if resources.python is None:
        wanted += [Path(sys.prefix), Path(sys.base_prefix)]
        wanted += [path for entry in sys.path if entry and (path := Path(entry)).is_dir()]
    absolute = {path.absolute() for path in wanted}
    every = {path for path in absolute | {path.resolve() for path in absolute} if path not in OF_EVERY_SYSTEM}
    return sorted(path for path in every if not every & set(path.parents))


def code_folders() -> list[Path]:
    """The clone that embedkit runs from; empty if it is installed, since a container then has its own."""
    code = Path(embedkit.__file__).resolve().parent.parent
    return [] if "site-packages" in code.parts or "dist-packages" in code.parts else [code]


def _folders_of(files: Iterable[Path], *more: Path) -> set[Path]:
    """The folders of files and of what links lead to: in the cache of the Hub every file is a link.

    A file in a folder that every system has stands for itself.
    """
    folders = set(more)
    for file in files:
        for path in {file, file.resolve()} if file.is_symlink() else {file}:
            folders.add(path if path.parent in OF_EVERY_SYSTEM else path.parent)
    return {folder for folder in folders if folder.exists()}


def _quoted(text: str) -> str:
    """Text for double quotes, in which the shell replaces variables only."""
    return re.sub(r'(["\\`])', r"\\\1", text)


def _literal(text: str) -> str:
    """Text for double quotes, in which the shell replaces nothing."""
    return _quoted(text).replace("$", "\\$")
