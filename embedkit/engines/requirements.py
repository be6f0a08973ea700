"""What an engine needs, checked when a run is made: its package, and files of the model folder that it can read."""

from pathlib import Path

from embedkit.documents import EngineName
from embedkit.engines.installed import installed_engine
from embedkit.engines.model_types import check_model_type
from embedkit.engines.transformers import ENCODERS
from embedkit.engines.vllm_models import check_vllm
from embedkit.errors import UsageError
from embedkit.model import (
    Head,
    Normalize,
    check_settings,
    check_weight_files,
    read_head,
    read_json,
    weight_folders,
    weight_shapes,
)


def check_installed(engine: EngineName) -> None:
    """Raise UsageError if the engine's package is not installed."""
    if installed_engine(engine).is_installed:
        return
    if engine == "vllm":
        raise UsageError(
            "--engine vllm: vLLM is not installed here. On a GPU machine install "
            "`pip install --require-hashes -r requirements/gpu.txt`; on a CPU `make setup` installs it on Linux with "
            "Python 3.11. --engine transformers gives the same vectors without it, but slower"
        )
    raise UsageError(f"--engine {engine}: it is not installed here; install embedkit[{engine}]")


def check_weights(model: Path) -> None:
    """Raise UsageError now for models that would fail only after prepare."""
    if not (model / "config.json").is_file():
        raise UsageError(f"--model {model}: no config.json there; is it a model folder?")
    for folder in weight_folders(model):
        check_weight_files(folder)


def check_pooling(model: Path, engine: EngineName | None) -> None:
    """Raise UsageError now if a setting of the folder changes vectors and is not honoured. Names file and setting.

    Args:
        model: the model's folder.
        engine: the run's engine; None if it is not decided yet. Then only what no engine honours is refused.
    """
    check_settings(model)
    head = read_head(model)
    _check_steps(head)
    if engine is not None:
        check_model_type(engine, model)
    if engine == "vllm":
        check_vllm(model)
    config = read_json(model, "config.json")
    if config.get("is_encoder_decoder") and config.get("model_type") not in ENCODERS:
        raise UsageError(
            f"{model / 'config.json'}: is_encoder_decoder: only {', '.join(ENCODERS)} run, without their decoders"
        )


def _check_steps(head: Head) -> None:
    """Raise UsageError if a weight of a Dense or LayerNorm module is missing or has another shape."""
    for step in head.steps:
        if isinstance(step, Normalize):
            continue
        path = step.folder / "model.safetensors"
        shapes = weight_shapes(step.folder) if path.is_file() else {}
        for name, shape in step.shapes.items():
            if shapes.get(name) != shape:
                there = shapes.get(name, "not there")
                raise UsageError(f"{path}: {name} must have the shape {shape}; it is {there}. Fetch the model again")
