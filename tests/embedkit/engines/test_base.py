"""Starting an engine: which errors are taken for a GPU that somebody holds, with stand-ins for engines."""

from pathlib import Path

import pytest

from embedkit.documents import Device, EngineSettings
from embedkit.engines import base
from embedkit.errors import GpuHeld, UsageError

HELD = GpuHeld("somebody holds it")


def settings(device: Device) -> EngineSettings:
    return EngineSettings(
        device=device, dtype="float32", max_length=8, chunk_tokens=9, token_budget=9, max_sequences=4, eager=True
    )


CASES: list[tuple[Device, Exception, Exception | None, type[Exception]]] = [
    ("cuda", RuntimeError("boom"), HELD, GpuHeld),
    ("cuda", RuntimeError("boom"), None, RuntimeError),
    ("cpu", RuntimeError("CUDA error"), HELD, GpuHeld),
    ("cpu", RuntimeError("boom"), HELD, RuntimeError),
    ("cuda", UsageError("not installed"), HELD, UsageError),
]


@pytest.mark.parametrize(("device", "error", "held", "raised"), CASES)
def test_an_error_on_a_gpu_is_that_of_its_holder(
    device: Device,
    error: Exception,
    held: GpuHeld | None,
    raised: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(base, "_start", fail)
    monkeypatch.setattr(base, "held_gpu", lambda one: held if one is error else None)
    with pytest.raises(raised) as found:
        base.start_engine("vllm", Path("model"), settings(device))
    assert found.value is (held if raised is GpuHeld else error)
    assert found.value.__cause__ is (error if raised is GpuHeld else None)
