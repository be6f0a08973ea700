"""The weights of a model folder: which files the engines read, and whether those are whole. Nothing here loads weights.

transformers reads `model.safetensors`, or else the shards that `model.safetensors.index.json` names. vLLM reads all
`*.safetensors` that the index names; all there are without an index; and if there are `consolidated*.safetensors`, in
Mistral's own layout, only those. Where the two would read different files, the model is refused.
"""

import shlex
from pathlib import Path
from typing import Annotated

import msgspec

from embedkit.documents import UNREADABLE
from embedkit.errors import UsageError
from embedkit.model.json_file import read_json
from embedkit.model.modules import WITHOUT_WEIGHTS, read_modules

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = "pytorch_model*.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
FETCH_AGAIN = "fetch the model again"

CONVERT = (
    "import glob, torch, safetensors.torch as s; w = {}; "
    '[w.update(torch.load(f, "cpu", weights_only=True)) for f in sorted(glob.glob("pytorch_model*.bin"))]; '
    's.save_file({k: v.contiguous().clone() for k, v in w.items()}, "model.safetensors", {"format": "pt"})'
)
"""Python that makes model.safetensors of the pickles in the current folder. safetensors refuses tensors that share
their bytes, such as tied embeddings, so each is copied. `weights_only` runs no code of the pickle."""


def weight_folders(model: Path) -> list[Path]:
    """Folders that must hold weights: the model's own, and those of modules such as Dense."""
    further = [module.path for module in read_modules(model) if module.kind not in WITHOUT_WEIGHTS and module.path]
    return [model, *(model / path for path in further)]


def check_weight_files(folder: Path) -> None:
    """Raise UsageError if an engine would not find all weights in a folder, or would read others than another engine.

    Reads the headers of the files, and not the weights.
    """
    names = _names(folder)
    if "transformers_weights" in read_json(folder, "config.json"):
        raise UsageError(f"{folder / 'config.json'}: transformers_weights names other weights; remove the setting")
    if mistral := [name for name in names if name.startswith("consolidated")]:
        raise UsageError(f"{folder / mistral[0]}: vLLM would read it, and transformers {WEIGHTS}; move it out")
    if (folder / INDEX).is_file():
        _check_shards(folder, names)
    elif names:
        _check_single(folder, names)
    else:
        raise UsageError(_no_weights(folder))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files in a folder that engines read, sorted. Empty if there are none."""
    if (folder / INDEX).is_file():
        return sorted({folder / name for name in _indexed(folder, INDEX).values()})
    return [folder / name for name in _names(folder)]


class _Tensor(msgspec.Struct):
    shape: list[Annotated[int, msgspec.Meta(ge=0)]]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def weight_shapes(model: Path) -> dict[str, list[int]]:
    """Shape of each tensor by name, read from the headers of the safetensors files.

    Raises UsageError naming the file if one is not a whole safetensors file.
    """
    return {name: tensor.shape for path in weight_files(model) for name, tensor in _header(path).items()}


def _header(path: Path) -> dict[str, _Tensor]:
    """The tensors of a safetensors file by name.

    Source: the safetensors format. 8 bytes little-endian length, a JSON header, then the bytes of the tensors without
    a gap; `data_offsets` counts from there. Raises UsageError if the file is shorter or longer, or has no such header.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length < size else b""
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        tensors = {name: msgspec.json.decode(value, type=_Tensor) for name, value in raw.items()}
    except UNREADABLE as error:
        raise UsageError(f"{path}: not a whole safetensors file: {error}; {FETCH_AGAIN}") from None
    whole = 8 + length + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if size != whole:
        lengths = f"{size:,} bytes in place of {whole:,}"
        raise UsageError(f"{path}: not a whole safetensors file: {lengths}; {FETCH_AGAIN}")
    return tensors


def _names(folder: Path) -> list[str]:
    """Names of the safetensors files, sorted. Engines read no hidden ones, such as macOS's `._model.safetensors`."""
    return sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith("."))


def _check_single(folder: Path, names: list[str]) -> None:
    """Raise UsageError unless `model.safetensors` is the only file of a folder without an index, and whole."""
    others = [name for name in names if name != WEIGHTS]
    if not others:
        _header(folder / WEIGHTS)
    elif WEIGHTS in names:
        raise UsageError(f"{folder / others[0]}: vLLM would read it too, and transformers only {WEIGHTS}; move it out")
    elif "-of-" in others[0]:
        raise UsageError(f"{folder}: has shards ({others[0]}) and no {INDEX}, which lists them all; {FETCH_AGAIN}")
    else:
        raise UsageError(f"{folder / others[0]}: transformers reads only {WEIGHTS}; if it is the model's, rename it so")


def _check_shards(folder: Path, names: list[str]) -> None:
    """Raise UsageError unless the shards of the index are whole, have its tensors, and are all that engines read."""
    tensors = _indexed(folder, INDEX)
    if WEIGHTS in names and WEIGHTS not in tensors.values():
        raise UsageError(
            f"{folder}: transformers would read {WEIGHTS}, and vLLM the shards of {INDEX}; move one of the two out"
        )
    headers = {name: _header(folder / name) for name in sorted(set(tensors.values()))}
    lacking = [tensor for tensor, name in tensors.items() if tensor not in headers[name]]
    if lacking:
        raise UsageError(
            f"{folder / tensors[lacking[0]]}: lacks {lacking[0]}, which {INDEX} finds in it "
            f"({len(lacking)} of {len(tensors)} tensors); {FETCH_AGAIN}"
        )


def _indexed(folder: Path, name: str) -> dict[str, str]:
    """The file of each tensor, by the index of this name. Raises UsageError naming the first file that is missing."""
    path = folder / name
    try:
        tensors = msgspec.json.decode(path.read_bytes(), type=_Index).weight_map
    except UNREADABLE as error:
        raise UsageError(f"{path}: not an index of weights: {error}; {FETCH_AGAIN}") from None
    files = sorted(set(tensors.values()))
    missing = [file for file in files if not (folder / file).is_file()]
    if not files:
        raise UsageError(f"{path}: it names no file; {FETCH_AGAIN}")
    if missing:
        count = f"{len(missing)} of {len(files)} files are missing"
        raise UsageError(f"{path}: {missing[0]} is not there ({count}); {FETCH_AGAIN}")
    return tensors


def _no_weights(folder: Path) -> str:
    """What to do about a folder without safetensors files."""
    if not any(folder.glob(PICKLES)):
        return (
            f"{folder}: no weights there ({WEIGHTS}). If the Hub has them as *.bin only, fetch all of the repository, "
            "`hf download OWNER/NAME --local-dir FOLDER`, and type --model FOLDER"
        )
    if (folder / PICKLE_INDEX).is_file():
        _indexed(folder, PICKLE_INDEX)
    return (
        f"{folder}: its weights are pickles ({PICKLES}), which can run code and are not loaded. This makes {WEIGHTS} "
        f"of them: cd {shlex.quote(str(folder))} && python -c {shlex.quote(CONVERT)}"
    )
