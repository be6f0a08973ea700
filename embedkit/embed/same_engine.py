"""Is this node's engine the one of the run's other shards? merge refuses shards of different engines.

An embed task compares twice: before its engine starts, with what is known without it (versions, the GPU's model), and
once it has started, with the whole record. merge uses the same comparison (`refused_fields`). An engine that a passed
certificate of the run names counts as that of the shards (`embedkit certify`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from embedkit.certificates import Certified
from embedkit.documents import EngineName, EngineRecord, Plan, Preflight, Request, named_fields, read
from embedkit.embed.shard_state import ShardStates
from embedkit.engines import gpu_name
from embedkit.errors import EmbedkitError, EngineDiffers, GpuDiffers, UsageError
from embedkit.job import current_job
from embedkit.run import RunFolder
from embedkit.versions import importable_version

log = logging.getLogger(__name__)

PACKAGES: Mapping[EngineName, Mapping[str, str]] = {
    "vllm": {"engine_version": "vllm", "torch": "torch"},
    "transformers": {"engine_version": "transformers", "torch": "torch"},
    "hash": {},
}
"""By engine: the package whose version is in a field of its record."""
OF_THE_NODE = ("gpu", "token_budget")
"""Fields in which nodes of one cluster differ, with one environment: the GPU's model, and how much fits its memory."""
OF_THE_PLAN = ("compile",)
"""Fields that the plan decides: a preflight, which may run before there is a plan, always compiles."""


@dataclass(frozen=True)
class Reference:
    """An engine record that shards of this run must have, and where it is from: `shard 3, embedded on n1,`.

    `is_preflight`: no shard is finished, and it is the preflight's. A new preflight may replace it.
    """

    record: EngineRecord
    source: str
    is_preflight: bool = False


def refused_fields(one: EngineRecord, other: EngineRecord, allow_mixed: bool = False) -> tuple[str, ...]:
    """The fields in which two engine records differ, if merge refuses their shards together; () if it does not.

    With `allow_mixed` only the dimension counts: vectors of different lengths fit no matrix.
    """
    compared = ("dim",) if allow_mixed else EngineRecord.__struct_fields__
    return tuple(field for field in compared if getattr(one, field) != getattr(other, field))


def finished_engine(run: RunFolder, plan: Plan) -> Reference | None:
    """The engine of the first finished shard; None if none is finished."""
    folder = run.shard(0).parent
    states = None
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.name.isdigit() or int(path.name) >= len(plan.shards) or not (path / "manifest.json").exists():
            continue
        states = states or ShardStates(run, plan)
        manifest = states.state(int(path.name), "manifest").manifest
        if manifest is not None:
            return Reference(manifest.engine, f"shard {manifest.shard}, embedded on {manifest.host},")
    return None


def preflight_engine(run: RunFolder, plan: Plan) -> Reference | None:
    """The engine of the run's preflight; None if there was none, or its file cannot be read or is of another run."""
    if not run.preflight.exists():
        return None
    try:
        report = read(run.preflight, Preflight)
    except EmbedkitError as error:
        log.warning("not compared with the preflight: %s", error)
        return None
    if report.request_sha256 != plan.request_sha256:
        return None
    return Reference(report.engine, f"the preflight on {report.host}", is_preflight=True)


def refuse_mixed(request: Request, allow_mixed: bool) -> None:
    """Raise UsageError if shards of different engines are to be accepted in a run whose vectors must be exact."""
    if request.exact and allow_mixed:
        raise UsageError(
            "--allow-mixed: this run was made with --exact, so all its shards need one engine; leave it out"
        )


class EngineCheck:
    """Compares this node with the engine of the run's other shards.

    Args:
        run: the run.
        reference: the engine to compare with; None compares nothing.
        shard: the shard of this task; None for a preflight.
        allow_mixed: accept and log any difference except the vectors' dimension.
        is_exact: accept no certificate, since vectors must be equal to the bit.
    """

    def __init__(
        self, run: RunFolder, reference: Reference | None, shard: int | None, allow_mixed: bool, is_exact: bool = False
    ) -> None:
        self._run = run
        self._reference = reference
        self._task = "the preflight" if shard is None else f"shard {shard}"
        self._has_plan = shard is not None and (reference is None or not reference.is_preflight)
        self._allow_mixed = allow_mixed
        self._is_exact = is_exact

    def before_start(self, request: Request) -> None:
        """Compare what is known of the engine before it starts, which takes a second and not minutes.

        Raises EngineDiffers, or GpuDiffers if it is the GPU. What cannot be found out is left to the engine's start.
        """
        if self._reference is None or self._allow_mixed:
            return
        known = known_before_start(request)
        self._compare(lambda recorded: with_known(recorded, known))

    def started(self, record: EngineRecord) -> None:
        """Compare the engine that has started. Raises EngineDiffers, or GpuDiffers if it is the GPU."""
        if self._reference is not None:
            self._compare(lambda recorded: record)

    def _compare(self, here: Callable[[EngineRecord], EngineRecord]) -> None:
        """Compare with the reference, then with engines that a certificate names beside it.

        here: what is known of this node's engine, given the record that it is compared with.
        """
        assert self._reference is not None, "nothing to compare with"
        recorded, source = self._reference.record, self._reference.source
        record = self._comparable(here, recorded)
        refused = refused_fields(record, recorded, self._allow_mixed)
        differing = refused or refused_fields(record, recorded)
        if not differing:
            return
        if refused and self._is_certified(here):
            log.info("this engine is not that of %s, but a certificate says that both give the same vectors", source)
            return
        has, had = named_fields(record, differing), named_fields(recorded, differing)
        what = f"{current_job().node} has {has}; {source} had {had}"
        if not refused:
            log.warning("%s; embedded all the same, because of --allow-mixed", what)
            return
        lines = [
            what,
            f"{self._task} stops here: merge refuses shards that different engines made",
            *self._fixes(refused, has_less_memory=record.token_budget < recorded.token_budget),
        ]
        if self._is_exact:
            lines.append("the run was made with --exact: none of its vectors may differ by a bit")
        elif not self._reference.is_preflight and "dim" not in refused:
            lines.append(f"to find out whether this engine gives the same vectors: {self._run.certify_command}")
        if "dim" not in refused and not self._is_exact:
            small = " (vectors of two GPU models differ by about 0.0001 in cosine)" if "gpu" in refused else ""
            lines.append(f"to accept both{small}: {self._run.resume_command} --allow-mixed")
        kind = GpuDiffers if set(refused) & set(OF_THE_NODE) else EngineDiffers
        raise kind("\n".join(lines))

    def _is_certified(self, here: Callable[[EngineRecord], EngineRecord]) -> bool:
        """Whether this node's engine may be one that a certificate names beside the reference."""
        assert self._reference is not None, "nothing to compare with"
        if self._reference.is_preflight or self._is_exact:
            return False
        others = Certified.of_run(self._run).same_as(self._reference.record)
        return any(not refused_fields(self._comparable(here, other), other) for other in others)

    def _comparable(self, here: Callable[[EngineRecord], EngineRecord], other: EngineRecord) -> EngineRecord:
        """This node's record, to be compared with another one: without fields that are not decided yet."""
        record = here(other)
        if self._has_plan:
            return record
        return msgspec.structs.replace(record, **{field: getattr(other, field) for field in OF_THE_PLAN})

    def _fixes(self, refused: tuple[str, ...], has_less_memory: bool) -> list[str]:
        """What to type so that all shards have one engine, given the fields that differ."""
        assert self._reference is not None, "nothing to compare with"
        again, lines = self._run.resume_command, []
        if not set(refused) & set(OF_THE_NODE):
            changed = "the environment has changed, so no node is excluded"
            return [f"{changed}: install the earlier versions again, then type {again}"]
        if "gpu" not in refused:
            whose = "its GPU has" if has_less_memory else "the other GPU had"
            lines.append(f"{whose} less free memory, so batches are smaller: `nvidia-smi` there shows what uses it")
        if not self._run.submissions.exists():
            return [*lines, f"on GPUs of one model: set CUDA_VISIBLE_DEVICES to them, then type {again}"]
        lines.append(f"on other nodes: {again} (it excludes {current_job().node})")
        if "gpu" in refused:
            lines.append("to get one GPU model only: name it in the profile's [embed], with gres or constraint")
        if self._reference.is_preflight:
            lines.append(f"if the preflight had the wrong GPU: {again} --preflight")
        return lines


def known_before_start(request: Request) -> dict[str, str]:
    """Fields of this node's engine record that can be found without importing a package or starting CUDA here."""
    packages = PACKAGES[request.engine]
    known = {field: version for field, package in packages.items() if (version := importable_version(package))}
    if packages and request.device == "cuda" and (name := gpu_name()):
        known["gpu"] = name
    return known


def with_known(record: EngineRecord, known: Mapping[str, str]) -> EngineRecord:
    """A record with the fields that are known of this node's engine, except versions that differ in spelling alone."""
    here = {
        field: value
        for field, value in known.items()
        if field == "gpu" or not same_version(value, getattr(record, field))
    }
    return msgspec.structs.replace(record, **here)


def same_version(installed: str, recorded: str) -> bool:
    """Whether a distribution's version is the one that a package reports, without its build (`+cu128`).

    The build may be spelled differently in the two. It is compared once the engine has started.
    """
    return installed.partition("+")[0] == recorded.partition("+")[0]
