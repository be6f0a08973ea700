"""The line that names a run's engine, and which of its parts are not decided yet."""

import msgspec
import pytest

from embedkit.documents import RunConfig, Setting, read
from embedkit.engines.facts import EngineFacts, engine_facts
from embedkit.run import RunFolder

LINES: list[tuple[tuple[str, ...], str]] = [
    ((), "vllm 0.24.0 on cuda, bfloat16"),
    (("shards",), "vllm 0.24.0 on cuda, bfloat16"),
    (("engine",), "not decided yet on cuda, bfloat16"),
    (("device",), "vllm 0.24.0, device not decided yet"),
    (("engine", "device"), "not decided yet"),
]


@pytest.mark.parametrize(("undecided", "line"), LINES)
def test_the_line_names_what_is_decided(undecided: tuple[str, ...], line: str) -> None:
    facts = EngineFacts(engine="vllm", engine_version="0.24.0", device="cuda", dtype="bfloat16", undecided=undecided)
    assert facts.engine_line == line


def test_without_a_version_there_is_only_the_name() -> None:
    assert EngineFacts(engine="hash", engine_version="", device="cpu", dtype="float32").engine_line == (
        "hash on cpu, float32"
    )


@pytest.mark.parametrize(("undecided", "version"), [((), "1.5"), (("device",), "1.5"), (("engine",), "")])
def test_versions_are_the_recorded_ones_by_default(
    undecided: tuple[Setting, ...], version: str, small_run: RunFolder
) -> None:
    config = msgspec.structs.replace(
        read(small_run.config, RunConfig), versions={"hash": "1.5", "vllm": "2"}, undecided=undecided
    )
    facts = engine_facts(config)
    assert facts == EngineFacts(
        engine="hash", engine_version=version, device="cpu", dtype="float32", undecided=undecided
    )
    assert engine_facts(config, {"vllm": "3"}).engine_version == ""
    assert engine_facts(config, {"hash": "3"}).engine_version == ("3" if version else "")
