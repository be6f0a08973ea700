"""What an engine needs, checked when a run is made: its package, and files of the model folder that it can read."""

from pathlib import Path

from embedkit.documents import EngineName
from embedkit.engines.installed import installed_engine
from embedkit.errors import UsageError
from embedkit.model import check_weight_files, read_json, read_pooling, weight_folders


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


def check_pooling(model: Path) -> None:
    """Raise UsageError now for models that the transformers engine cannot run."""
    read_pooling(model)
    if "auto_map" in read_json(model, "config.json"):
        raise UsageError(f"--model {model}: it comes with its own code, which is not run; use --engine vllm")
