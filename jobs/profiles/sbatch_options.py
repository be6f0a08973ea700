"""What a profile gives to sbatch: options, and lines of shell at the top of the script."""

import shlex

from jobs.gpu_request import gpu_parameters
from jobs.profiles.schema import Resources

KEYS = ("clusters", "partition", "account", "qos", "reservation", "constraint", "nodelist", "exclude", "wckey", "time")
"""Keys that are options of sbatch by the same name."""


def sbatch_parameters(resources: Resources) -> dict[str, str | int | bool]:
    """Long options of sbatch by name, as submitit's additional parameters; True for an option without a value.

    signal, requeue, comment and mail are not among them: the submitting code sets them.
    """
    options: dict[str, str | int | bool | None] = {key: getattr(resources, key) for key in KEYS}
    options["mem"] = f"{resources.mem}M" if resources.mem is not None else None
    options["cpus-per-task"] = resources.cpus
    options |= gpu_parameters(resources.gpus, resources.gres, resources.gpu_option)
    options["exclusive"] = resources.exclusive
    options.update(resources.sbatch)
    return {option: value for option, value in options.items() if value is not None and value is not False}


def setup_lines(resources: Resources) -> list[str]:
    """Lines of shell for the job's script: modules, then the environment, then the profile's `before`."""
    # Without a module the task would fail later and less clearly, or use the wrong libraries.
    lines = [f"module load {shlex.quote(module)} || exit 1" for module in resources.modules]
    if "export" in resources.sbatch:
        lines.append("unset SLURM_EXPORT_ENV")  # or srun would withhold the variables below
    lines += [f"export {name}={shlex.quote(value)}" for name, value in resources.environment.items()]
    return lines + list(resources.before)
