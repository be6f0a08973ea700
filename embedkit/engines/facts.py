"""The engine of a run in one short line, for everything that prints it."""

from collections.abc import Mapping

import msgspec

from embedkit.documents import Device, Dtype, EngineName, RunConfig


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The engine of a run, its version ("" if it is not known), and the device and data type that it computes in.

    `undecided` has the settings that the next submit, run or prepare decides; their values here mean nothing.
    """

    engine: EngineName
    engine_version: str
    device: Device
    dtype: Dtype
    undecided: tuple[str, ...] = ()

    @property
    def engine_line(self) -> str:
        """`vllm 0.24.0 on cuda, bfloat16`, or what of it is open."""
        name = f"{self.engine} {self.engine_version}".strip()
        if "device" in self.undecided:
            return "not decided yet" if "engine" in self.undecided else f"{name}, device not decided yet"
        return f"{'not decided yet' if 'engine' in self.undecided else name} on {self.device}, {self.dtype}"


def engine_facts(config: RunConfig, versions: Mapping[str, str] | None = None) -> EngineFacts:
    """The engine of a run. `versions` are those of its packages, by default those recorded when the run was made."""
    known = config.versions if versions is None else versions
    request = config.request
    version = "" if "engine" in config.undecided else known.get(request.engine, "")
    return EngineFacts(
        engine=request.engine,
        engine_version=version,
        device=request.device,
        dtype=request.dtype,
        undecided=config.undecided,
    )
