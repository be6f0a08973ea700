"""Which environment a command for the cluster runs in.

The folder that somebody typed as VENV=; else the active environment; else `.venv-cluster`, which set-up makes if it is
not there. Commands that start no engine use the demo's `.venv` if there is no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from requirements.setup.builds import build_for
from requirements.setup.environment import ROOT, STAMP, Environment
from requirements.setup.messages import SetUpError, say

DEMO = Environment(ROOT / ".venv")
CLUSTER = ".venv-cluster"
ACTIVE = "the active one"
GPU_COMMANDS = (
    "{pip} --require-hashes --only-binary=:all: -r requirements/gpu.txt && {pip} --no-deps --no-build-isolation -e ."
)
CPU_COMMANDS = "{pip} -e '.[transformers,analysis]'"


@dataclass(frozen=True)
class Choice:
    """An environment, and why it was chosen."""

    environment: Environment
    why: str
    may_be_made: bool = False
    """Whether set-up makes it if it is not there, or continues one of its own that was interrupted."""


def choose(variables: Mapping[str, str], *, venv: str, profile: str, demo_is_enough: bool) -> Choice:
    """Choose by what was typed (`venv` and `profile`, "" if not) and by the variables of the shell.

    Raises SetUpError if what was chosen is no environment and cannot become one.
    """
    if venv:
        return _typed(Environment((ROOT / venv).absolute()))
    active = active_environment(variables)
    if active is not None:
        return Choice(active, ACTIVE, may_be_made=active.is_half_made)
    own = Environment(ROOT / CLUSTER)
    finished = own.exists and not own.is_half_made
    if not finished and demo_is_enough and not profile and (DEMO.path / STAMP).is_file():
        return Choice(DEMO, "the demo's; there is none for the cluster")
    return Choice(_usable(own), "for the cluster", may_be_made=True)


def active_environment(variables: Mapping[str, str]) -> Environment | None:
    """The environment that is active in the shell; None if there is none, or only conda's own `base`."""
    prefix = variables.get("VIRTUAL_ENV") or variables.get("CONDA_PREFIX")
    if not prefix:
        return None
    if not variables.get("VIRTUAL_ENV") and variables.get("CONDA_DEFAULT_ENV") == "base":
        say("conda's base is active; it is left alone, since conda activates it by itself")
        return None
    if not Environment(Path(prefix)).exists:
        raise SetUpError(f"the active environment {prefix} is not there; type: unset VIRTUAL_ENV CONDA_PREFIX")
    return Environment(Path(prefix))


def require_embedkit(choice: Choice, profile: str) -> None:
    """Refuse an environment without embedkit. It is never installed into one that somebody else made."""
    environment = choice.environment
    folder = environment.embedkit_folder()
    if folder is None and environment.is_ours:
        raise SetUpError(
            f"{environment.path} does not work any more: its Python or embedkit does not start (was it moved?)\n"
            f"if no job uses it: rm -rf {quote(str(environment.path))}, and type the same command again"
        )
    if folder is None:
        pip = f"{quote(str(environment.python))} -m pip install"
        commands = CPU_COMMANDS if profile and build_for(profile) == "cpu" else GPU_COMMANDS
        raise SetUpError(
            f"{environment.path} ({choice.why}) has no embedkit, and make changes no environment that it did not make\n"
            f"either install embedkit into it: cd {quote(str(ROOT))} && {commands.format(pip=pip)}\n"
            f"or {_way_out(choice)}, and type the same command again"
        )
    if folder != ROOT and "site-packages" not in folder.parts:
        say(f"note: {environment.path} runs the embedkit of {folder}, not of this clone")


def _way_out(choice: Choice) -> str:
    if choice.why == ACTIVE:
        conda = (choice.environment.path / "conda-meta").exists()
        return "leave it: conda deactivate" if conda else "leave it: deactivate"
    path = choice.environment.path
    move = f"mv {quote(str(path))} {quote(f'{path}-old')}"
    return f"move it away: {move}" if path.name == CLUSTER else "name another folder with VENV="


def _typed(environment: Environment) -> Choice:
    if environment.path == DEMO.path and not environment.exists:
        raise SetUpError(".venv is for the demo and the tests; type another folder: VENV=.venv-cluster")
    return Choice(_usable(environment), "VENV", may_be_made=True)


def _usable(environment: Environment) -> Environment:
    """Refuse a folder with something else in it: set-up would mix its files with it."""
    path = environment.path
    if environment.exists or environment.is_ours or not path.exists():
        return environment
    if not path.is_dir() or environment.entries():
        raise SetUpError(f"{path} is no environment, and not empty; type another folder with VENV=, or move it away")
    return environment
