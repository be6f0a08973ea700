"""Curves of made-up devices, as `embedkit curve` would write them."""

from collections.abc import Mapping, Sequence

from embedkit.documents.schema import FORMAT, Curve, Device, EngineRecord, EngineSpeeds

LENGTHS = (16, 256, 4096)
SPEEDS = {"compiled": (1000.0, 2000.0, 1000.0), "eager": (500.0, 1000.0, 1000.0)}


def engine_record(compile_: str, gpu: str) -> EngineRecord:
    """A vLLM of this GPU."""
    return EngineRecord(
        engine="vllm",
        engine_version="0.24.0",
        torch="2.11.0",
        cuda="13.0" if gpu else "",
        gpu=gpu,
        attention="FLASH_ATTN",
        compile=compile_,
        dtype="bfloat16",
        token_budget=65_536,
        dim=384,
    )


def made_up_curve(
    gpu: str = "NVIDIA L4",
    speeds: Mapping[str, Sequence[float]] = SPEEDS,
    lengths: Sequence[int] = LENGTHS,
    linear_flops: float = 1e6,
    attention_flops: float = 0.0,
) -> Curve:
    """A curve with these tokens per second by engine; of CPUs if `gpu` is ""."""
    device: Device = "cuda" if gpu else "cpu"
    engines = [
        EngineSpeeds(engine=engine_record(compile_, gpu), tokens_per_second=tuple(figures))
        for compile_, figures in speeds.items()
    ]
    return Curve(
        format=FORMAT,
        device=device,
        model="model",
        linear_flops=linear_flops,
        attention_flops=attention_flops,
        lengths=tuple(lengths),
        engines=tuple(engines),
    )
