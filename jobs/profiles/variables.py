"""Environment variables that set options of sbatch: which keys of a profile they fill, and which are ignored.

Plain sbatch obeys them. embedkit hides them from sbatch, so that jobs submitted inside of a job do not inherit its
account or its cluster. So it reads them itself: outside of a job they fill keys that the profile leaves out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedkit.errors import UsageError
from jobs.profiles.load import check_signal
from jobs.profiles.schema import STAGES, Profile, Stage
from jobs.profiles.validation import checked_table, shortened

KEY_OF_VARIABLE = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_WCKEY": "wckey",
    "SBATCH_TIMELIMIT": "time",
    "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_CLUSTERS": "clusters",
    "SLURM_CLUSTERS": "clusters",
}
"""Variables that fill a key. SLURM_CLUSTERS comes after SBATCH_CLUSTERS and replaces it, as in sbatch."""
DIFFERS_BY_STAGE = {
    **dict.fromkeys(("SBATCH_GPUS", "SBATCH_GPUS_PER_NODE", "SBATCH_GPUS_PER_TASK"), "gpus"),
    "SBATCH_GRES": "gres",
    "SBATCH_EXCLUSIVE": "exclusive",
    **dict.fromkeys(("SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"), "mem"),
    "SBATCH_CPUS_PER_GPU": "cpus",
    **dict.fromkeys(("SBATCH_REQUEUE", "SBATCH_NO_REQUEUE"), "requeue"),
    "SBATCH_SIGNAL": "signal_seconds",
}
"""Variables that fill no key, since stages differ in it, with the key to set instead."""
SET_BY_EMBEDKIT = frozenset(
    f"SBATCH_{name}"
    for name in ("ARRAY_INX", "DEBUG", "ERROR", "INPUT", "JOB_NAME", "OPEN_MODE", "OUTPUT", "WAIT", "WAIT_ALL_NODES")
)
SET_BY_SRUN = ("SBATCH_MEM_BIND", "SBATCH_CPU_BIND")
"""How the variables begin that Slurm sets inside of a job."""
OTHERS = ("SLURM_HINT",)
"""Variables with a different beginning that sbatch reads."""

ON_OWN_CLUSTER = "the jobs of this run are on this machine's own cluster"


@dataclass(frozen=True)
class VariablesRead:
    """A profile after the environment was read.

    Attributes:
        profile: with the keys that variables filled.
        used: a line for each of these keys.
        ignored: one line that names the variables that were ignored; "" if there is none.
    """

    profile: Profile
    used: tuple[str, ...] = ()
    ignored: str = ""


def read_variables(
    profile: Profile,
    environment: Mapping[str, str],
    recorded: Mapping[str, str] | None = None,
    cluster: str | None = None,
) -> VariablesRead:
    """Fill keys that a profile leaves out from the environment.

    Args:
        profile: the profile as its file has it.
        environment: this process's. Inside of a job nothing of it is used.
        recorded: the variables that the run was last submitted with. They are used again where the environment has no
            value.
        cluster: the cluster that the run was last submitted to, "" for this machine's own; None for a new run. The
            environment cannot name a different one, since the run's jobs are there.

    Raises:
        UsageError: a variable names several clusters.
    """
    job = environment.get("SLURM_JOB_ID", "")
    present = {name: value for name, value in environment.items() if _is_read_by_sbatch(name, job)}
    before = dict(recorded or {})
    usable = {} if job else {name: present[name] for name in KEY_OF_VARIABLE if present.get(name)}
    elsewhere = [name for name in usable if KEY_OF_VARIABLE[name] == "clusters" and cluster not in (None, usable[name])]
    values = before | {name: value for name, value in usable.items() if name not in elsewhere}
    by_key = {key: name for name, key in KEY_OF_VARIABLE.items() if name in values}
    refused = {} if cluster or profile.clusters else dict.fromkeys(elsewhere, ON_OWN_CLUSTER)
    used: list[str] = []
    kept: dict[str, str] = {}
    for key, name in by_key.items():
        try:
            filled, stages = _fill(profile, key, values[name])
        except UsageError as error:
            if key == "clusters":
                raise UsageError(f"{name}: {error}, or set clusters in the profile") from None
            refused[name] = str(error)
            continue
        if stages:
            profile, kept[name] = filled, values[name]
            again = ", as in the last submission" if present.get(name) != values[name] or job else ""
            used.append(f"{key} {values[name]} from {name}{again}{_of(stages)}")
    ignored = [
        _ignored(profile, name, value, refused.get(name, ""))
        for name, value in present.items()
        if kept.get(name) != value and not _is_obeyed(profile, name, value)
    ]
    line = f"ignored: {'; '.join(sorted(ignored))}" if ignored else ""
    if line and job:
        line = f"inside of job {job}, embedkit reads no options of sbatch from the environment; {line}"
    return VariablesRead(replace(profile, variables=kept), tuple(used), line)


def _is_read_by_sbatch(name: str, job: str) -> bool:
    if job and name.startswith((*SET_BY_SRUN, *OTHERS)):
        return False
    return name.startswith("SBATCH_") or name in KEY_OF_VARIABLE or name in OTHERS


def _fill(profile: Profile, key: str, value: str) -> tuple[Profile, list[Stage]]:
    """Set a key in the stages that leave it out; returns these. Raises UsageError if the value cannot be used."""
    stages = [stage for stage in STAGES if getattr(profile.stages[stage], key) is None]
    checked = checked_table({key: value})[key]
    changed = {stage: replace(profile.stages[stage], **{key: checked}) for stage in stages}
    for resources in changed.values():
        check_signal(resources)
    return replace(profile, stages={**profile.stages, **changed}), stages


def _is_obeyed(profile: Profile, name: str, value: str) -> bool:
    """Whether every stage requests what a variable says, because the profile says the same."""
    key = KEY_OF_VARIABLE.get(name)
    if key is None or not value:
        return key is not None
    try:
        checked = checked_table({key: value})[key]
    except UsageError:
        return False
    return all(getattr(profile.stages[stage], key) == checked for stage in STAGES)


def _ignored(profile: Profile, name: str, value: str, why: str) -> str:
    """One variable that is ignored, and why or what to set instead."""
    key = KEY_OF_VARIABLE.get(name)
    if why:
        reason = why.removeprefix(f"{key}: ").partition(": ")[0]
    elif key is not None:
        set_to = dict.fromkeys(str(actual) for one in profile.stages.values() if (actual := getattr(one, key)))
        reason = f"jobs get {key} {', '.join(set_to)}" if set_to else f"set {key} in the profile"
    elif name in DIFFERS_BY_STAGE:
        reason = f"set {DIFFERS_BY_STAGE[name]} in the profile"
    elif name in SET_BY_EMBEDKIT:
        reason = "embedkit sets it itself"
    else:
        option = name.partition("_")[2].lower().replace("_", "-")
        reason = f"set {option} under sbatch in the profile"
    return f"{name}={shortened(value)[1:-1]} ({reason})"


def _of(stages: list[Stage]) -> str:
    return "" if len(stages) == len(STAGES) else f" (in {', '.join(stages)})"
