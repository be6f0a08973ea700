"""Reads how a model's vectors are computed from its hidden states: the modules of a sentence-transformers folder.

Source: sentence-transformers 6.2. `modules.json` lists modules in order, each with its type and its folder. A module's
folder has a config.json, and `model.safetensors` if the module has weights.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from embedkit.errors import UsageError
from embedkit.model.json_file import read_json

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Flags of older pooling configurations. The vectors of several modes are joined in this order."""
MODES: dict[str, PoolingMode] = {mode: mode for mode in FLAGS.values()}
POOLING_KEYS = {"embedding_dimension", "word_embedding_dimension", "pooling_mode", "include_prompt", *FLAGS}
ACTIVATIONS = {
    *("ELU", "GELU", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU"),
    *("SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Tanhshrink"),
}
"""Classes of torch.nn that work number by number and need no arguments."""
WITHOUT_WEIGHTS = {"Dropout", "Normalize", "Pooling"}
VECTOR = "sentence_embedding"
"""sentence-transformers' name of the vector that a module takes and gives."""


@dataclass(frozen=True)
class Module:
    """An entry of modules.json. `kind` is the last part of `type`; `path` is the folder below the model's."""

    type: str
    path: str

    @property
    def kind(self) -> str:
        """The name of the module's class."""
        return self.type.rpartition(".")[2]


@dataclass(frozen=True)
class Dense:
    """activation(x W^T + b); with `residual` the input is added, through a second matrix if the widths differ."""

    folder: Path
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool
    type: str = ""

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shape of each of its weights by name."""
        shapes = {"linear.weight": [self.outputs, self.inputs]}
        if self.bias:
            shapes["linear.bias"] = [self.outputs]
        if self.residual and self.inputs != self.outputs:
            shapes["residual.weight"] = [self.outputs, self.inputs]
        return shapes


@dataclass(frozen=True)
class LayerNorm:
    """torch's LayerNorm with weight and bias, eps 1e-5."""

    folder: Path
    width: int

    @property
    def shapes(self) -> dict[str, list[int]]:
        """Shape of each of its weights by name."""
        return {"norm.weight": [self.width], "norm.bias": [self.width]}


@dataclass(frozen=True)
class Normalize:
    """Scales a vector to unit norm."""


Step = Dense | LayerNorm | Normalize


@dataclass(frozen=True)
class Head:
    """What follows a model's hidden states.

    Attributes:
        pooling: modes whose vectors are joined, in this order.
        include_prompt: False if the tokens of a prompt are left out of the pooling.
        steps: what is done to the pooled vector, in this order.
        dim: if set, a vector's first numbers that are kept, after all steps. The rest is not normalized again.
        pooling_file: the file that says how to pool, for messages.
    """

    pooling: tuple[PoolingMode, ...]
    include_prompt: bool
    steps: tuple[Step, ...]
    dim: int | None
    pooling_file: Path


def read_modules(model: Path) -> tuple[Module, ...]:
    """The modules in order; empty if there is no modules.json. Raises UsageError if it is not a list of modules."""
    path = model / "modules.json"
    if not path.is_file():
        return ()
    try:
        return tuple(Module(str(module["type"]), str(module["path"])) for module in json.loads(path.read_bytes()))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path}: not a list of modules with type and path: {error!r}") from None


def read_head(model: Path) -> Head:
    """How the model's vectors are computed from its hidden states.

    Raises:
        UsageError: the folder does not say, or has a module or setting that no engine honours. Names file and setting.
    """
    modules = read_modules(model)
    if not (model / "modules.json").is_file():
        raise UsageError(
            f"--model {model}: no modules.json there, which says how vectors are pooled and normalized; engines guess "
            "differently without it. Write modules.json and 1_Pooling/config.json: docs/models.md shows both"
        )
    kinds = [module.kind for module in modules]
    for module, kind in zip(modules, kinds, strict=True):
        if not module.type.startswith("sentence_transformers.") or kind not in {"Transformer", "Pooling", *READERS}:
            raise _refused(model / "modules.json", f"the module {module.type}")
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) & {"Transformer", "Pooling"} or modules[0].path:
        raise UsageError(
            f'{model / "modules.json"}: the modules must be Transformer (with path ""), Pooling, then others; '
            f"they are {', '.join(kinds) or 'none'}"
        )
    pooling_file = model / modules[1].path / "config.json"
    config = read_json(model, f"{modules[1].path}/config.json")
    if not config:
        raise UsageError(f"{pooling_file}: not there or empty, so the folder does not say how vectors are pooled")
    unknown = sorted(name for name in config.keys() - POOLING_KEYS if config[name])
    if unknown:
        raise _refused(pooling_file, unknown[0])
    return Head(
        pooling=_pooling_modes(config, pooling_file),
        include_prompt=bool(config.get("include_prompt", True)),
        steps=tuple(step for module in modules[2:] for step in READERS[module.kind](model, module)),
        dim=_truncate_dim(model),
        pooling_file=pooling_file,
    )


def pools_prompt(model: Path) -> bool:
    """Whether the tokens of a prompt are pooled; False if the Pooling module has `"include_prompt": false`."""
    return read_head(model).include_prompt


def vector_width(model: Path) -> int | None:
    """Numbers per vector, from the modules' configurations; None if they do not say."""
    width: int | None = None
    for module in read_modules(model):
        config = read_json(model, f"{module.path}/config.json") if module.path else {}
        if module.kind == "Pooling":
            found = config.get("embedding_dimension", config.get("word_embedding_dimension"))
            path = model / module.path / "config.json"
            width = None if found is None else int(found) * len(_pooling_modes(config, path))
        elif module.kind == "Dense":
            width = int(config.get("out_features", 0)) or width
    dim = _truncate_dim(model)
    return width if width is None or dim is None else min(width, dim)


def _pooling_modes(config: Mapping[str, Any], path: Path) -> tuple[PoolingMode, ...]:
    """The modes of a Pooling module. Without any it takes the mean, as sentence-transformers does."""
    named = config.get("pooling_mode")
    if named is None:
        return tuple(mode for flag, mode in FLAGS.items() if config.get(flag)) or ("mean",)
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not names or any(name not in MODES for name in names):
        raise UsageError(f"{path}: pooling_mode is {named!r}; known are {', '.join(MODES)}, and lists of them")
    return tuple(MODES[name] for name in names)


def _truncate_dim(model: Path) -> int | None:
    name = "config_sentence_transformers.json"
    dim: object = read_json(model, name).get("truncate_dim")
    if dim is None or (isinstance(dim, int) and dim > 0):
        return dim
    raise UsageError(f"{model / name}: truncate_dim is {dim!r}; a number of dimensions was expected")


def _read_dense(model: Path, module: Module) -> tuple[Step, ...]:
    path = model / module.path / "config.json"
    config = read_json(model, f"{module.path}/config.json")
    _check_names(path, config)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not str(activation).startswith("torch.nn.") or str(activation).rpartition(".")[2] not in ACTIVATIONS:
        raise _refused(path, f"activation_function {activation}")
    inputs, outputs = config.get("in_features"), config.get("out_features")
    if type(inputs) is not int or type(outputs) is not int:
        raise UsageError(f"{path}: in_features and out_features, the widths of the Dense module, are not both there")
    dense = Dense(path.parent, inputs, outputs, bool(config.get("bias", True)), str(activation), residual=False)
    return (replace(dense, residual=bool(config.get("use_residual", False)), type=module.type),)


def _read_layer_norm(model: Path, module: Module) -> tuple[Step, ...]:
    path = model / module.path / "config.json"
    width = read_json(model, f"{module.path}/config.json").get("dimension")
    if type(width) is not int:
        raise UsageError(f"{path}: dimension, the width of the LayerNorm module, is not there")
    return (LayerNorm(path.parent, width),)


def _read_normalize(model: Path, module: Module) -> tuple[Step, ...]:
    if module.path:
        _check_names(model / module.path / "config.json", read_json(model, f"{module.path}/config.json"))
    return (Normalize(),)


def _read_dropout(model: Path, module: Module) -> tuple[Step, ...]:
    return ()  # it does nothing outside training


READERS: dict[str, Callable[[Path, Module], tuple[Step, ...]]] = {
    "Dense": _read_dense,
    "LayerNorm": _read_layer_norm,
    "Normalize": _read_normalize,
    "Dropout": _read_dropout,
}
"""Readers of the modules that can follow Pooling."""


def _check_names(path: Path, config: Mapping[str, Any]) -> None:
    """Raise UsageError if a module does not work on the vector in place."""
    for name in ("module_input_name", "module_output_name"):
        if config.get(name) not in (None, VECTOR):
            raise _refused(path, f"{name} {config[name]}")


def _refused(path: Path, setting: str) -> UsageError:
    wrong = "is not honoured by any engine, so vectors would be wrong; choose another model"
    return UsageError(f"{path}: {setting} {wrong}")
