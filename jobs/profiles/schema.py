"""What a site profile is: the resources of each stage, the keys of its file, and the options it may not set."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from embedkit.prepare import GpuModel, gpu_model
from jobs.gpu_request import GpuOption, requested_gpus
from jobs.gres import gres_names

Stage = Literal["prepare", "preflight", "embed", "merge", "analyze"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a task of one stage requests from Slurm, and how its shell is set up. None: the site's default."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    wckey: str | None = None
    clusters: str | None = None
    """One cluster of several that share an accounting database; the same in all stages."""
    time: int | None = None
    """Minutes."""
    mem: int | None = None
    """MB (2^20 bytes); 0 is all memory of the node, as in Slurm."""
    cpus: int | None = None
    gpus: int | None = None
    gres: str | None = None
    """Excludes gpus."""
    gpu_option: GpuOption = "gres"
    """The option of sbatch that requests the GPUs of gpus, gres and gpus_per_job."""
    exclusive: bool = False
    modules: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Lines of shell."""
    launcher: tuple[str, ...] = ()
    """Words before Python, such as those of a container runtime. They may have placeholders."""
    python: str | None = None
    """The Python of the tasks, such as that of a container. None: the one that submits."""
    environment: Mapping[str, str] = field(default_factory=dict)
    scratch: str | None = None
    """A folder on the node; shell variables in it are expanded there."""
    gpu_model: GpuModel | None = None
    """The GPU that predictions assume. It is not requested from Slurm."""
    curve: str | None = None
    """The file of `embedkit curve` for the GPU, a path seen from the profile's folder."""
    gpus_from_node: bool = False
    """The node's GPUs come without being requested, as where whole nodes are given out."""
    gpus_per_job: int = 1
    """Workers of one embed task. Each has one GPU and embeds one shard at a time."""
    shards_per_task: int = 1
    """Shards for each worker of an embed task, one after another with one engine."""
    array: bool = True
    """The shards are one job array. False: one job per task of embed, where a site refuses arrays."""
    signal_seconds: int = 120
    """Seconds before the time limit at which Slurm signals a task."""
    requeue: bool = True
    """False: a stopped task ends, and only a rerun continues it."""
    comment: bool | str = True
    """Whether jobs carry embedkit's tag in their comment. Text: that comment and no tag."""
    mail: str | None = None
    """Where Slurm writes to when the last job of a chain has ended."""
    sbatch: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Further long options of sbatch: true for an option without a value, false to leave out an inherited one."""

    @property
    def per_job(self) -> int:
        """All shards of an embed task: `gpus_per_job` workers share them."""
        return self.gpus_per_job * self.shards_per_task

    @property
    def gpus_by_type(self) -> dict[str, int]:
        """GPUs of a task by type, "" for any type."""
        keys = ("gpus", "gres", "sbatch", "gpus_from_node", "gpus_per_job")
        return requested_gpus({key: getattr(self, key) for key in keys})

    @property
    def requested_gpus(self) -> dict[str, int]:
        """The GPUs that Slurm is asked for, by type: none if they come with the node."""
        return {} if self.gpus_from_node else self.gpus_by_type

    @property
    def gpu_count(self) -> int:
        """GPUs of a task, of all types."""
        return sum(self.gpus_by_type.values())

    @property
    def gres_without_gpus(self) -> frozenset[str]:
        """Names of the generic resources of a task other than GPUs."""
        return gres_names(self.gres or "") - {"", "gpu", "none"}

    @property
    def predicted_gpu(self) -> GpuModel | None:
        """The GPU that predictions assume: gpu_model, else the type in gres; None if neither is a known model."""
        return self.gpu_model or gpu_model(self.gres or "")


@dataclass(frozen=True)
class Profile:
    """One site's file, validated: the resources of every stage.

    `path` is absolute: the file to edit. `content` are the bytes that were validated, from there or from a copy.
    `variables` are the environment variables that set keys which the file leaves out.
    """

    name: str
    path: Path
    stages: Mapping[Stage, Resources]
    content: bytes = b""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def clusters(self) -> str:
        """The cluster that all jobs are submitted to; "" for the one that this machine belongs to."""
        return self.stages["embed"].clusters or ""

    @property
    def curve(self) -> Path | None:
        """The file with the curve of embed's GPU; None if the profile names none."""
        named = self.stages["embed"].curve
        return None if named is None else self.path.parent / named

    @property
    def sha256(self) -> str:
        """sha256 of the content, hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


Text = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
Number = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)]

VALUE_TYPES: dict[str, Any] = {
    **dict.fromkeys(("partition", "account", "qos", "reservation", "constraint"), Text),
    **dict.fromkeys(("nodelist", "exclude", "wckey", "clusters", "gres", "scratch", "mail"), Text),
    **dict.fromkeys(("time", "mem"), Number | str),
    "cpus": Count,
    "gpus": Annotated[int, msgspec.Meta(ge=0, le=1024)],
    "gpu_option": GpuOption,
    **dict.fromkeys(("exclusive", "gpus_from_node", "array", "requeue"), bool),
    "comment": bool | Text,
    **dict.fromkeys(("modules", "before"), tuple[Text, ...]),
    "launcher": tuple[Text, ...] | Text,
    "python": Text,
    **dict.fromkeys(("gpu_model", "curve"), Text),
    **dict.fromkeys(("gpus_per_job", "shards_per_task"), Annotated[int, msgspec.Meta(ge=1, le=1024)]),
    "signal_seconds": Annotated[int, msgspec.Meta(ge=60, le=65_535)],
}
"""The type of each key's value in the file."""
TABLE_TYPES: dict[str, Any] = {"environment": str, "sbatch": Number | str | bool}
"""The type of the values in each key that is a table."""
KEYS = (*VALUE_TYPES, *TABLE_TYPES)

PLACEHOLDER = re.compile(r"(?<!\$)\{(\w*)\}")
"""A placeholder in a word of `launcher`. `${NAME}` is a variable of the shell."""
PLACEHOLDERS = ("run", "folder", "folders")

KEY_OF_OPTION = {
    **{key: key for key in ("partition", "account", "qos", "reservation", "constraint", "nodelist", "exclude")},
    **{key: key for key in ("wckey", "clusters", "time", "gres", "exclusive", "comment", "requeue")},
    "no-requeue": "requeue",
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "mem"),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cpus"),
}
"""Options of sbatch that a key of the profile sets."""

KEY_OF_SHORT_OPTION = {
    **{"A": "account", "C": "constraint", "G": "gpus", "M": "clusters", "c": "cpus", "p": "partition", "q": "qos"},
    **{"t": "time", "w": "nodelist", "x": "exclude"},
}
"""Options of one letter that a key of the profile sets."""

SET_BY_EMBEDKIT = {
    "array": "the tasks of the array are the shards (array = false: one job per shard)",
    **dict.fromkeys(("dependency", "kill-on-invalid-dep"), "a stage waits for the one before it"),
    **dict.fromkeys(("output", "error", "open-mode"), "logs are in the run's folder, and a restart appends to them"),
    "job-name": "embedkit uses it to find its jobs again",
    "signal": "signal_seconds sets when Slurm signals a task before its time limit",
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node", "ntasks-per-gpu"), "a task is one process on one node"),
    **dict.fromkeys(("wrap", "chdir"), "embedkit writes the script and sets its folder"),
    **dict.fromkeys(("parsable", "wait", "test-only", "quiet", "verbose"), "embedkit reads the output of sbatch"),
}
"""Options of sbatch that embedkit sets itself, each with the reason why a profile may not."""
