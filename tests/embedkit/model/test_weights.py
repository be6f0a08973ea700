"""Which weights of a folder engines read, and that they are whole; found when the run is asked for."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedkit.engines.requirements import check_weights
from embedkit.errors import UsageError
from embedkit.model.weights import check_weight_files, weight_files, weight_shapes
from tests.conftest import EMBEDKIT, embedkit
from tests.support.checkout import python_path
from tests.support.families import Family, make_family, write_json

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = {ONE: {"a": np.ones((2, 3), np.float32)}, TWO: {"b": np.ones(4, np.float16), "c": np.ones((), np.float32)}}


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder with two shards and their index."""
    return write_sharded(tmp_path / "sharded")


def write_sharded(folder: Path) -> Path:
    write_json(folder / "config.json", {})
    for name, tensors in SHARDS.items():
        save_file(tensors, folder / name)
    weight_map = {tensor: name for name, tensors in SHARDS.items() for tensor in tensors}
    write_json(folder / INDEX, {"metadata": {"total_size": 36}, "weight_map": weight_map})
    return folder


def message(folder: Path) -> str:
    with pytest.raises(UsageError) as error:
        check_weight_files(folder)
    return str(error.value)


def test_shards_and_index_are_read(sharded: Path) -> None:
    """Of any data types. What the index does not name is not read: here a variant in half precision."""
    save_file({"a": np.zeros(9, np.float16)}, sharded / "model.fp16.safetensors")
    check_weights(sharded)
    assert weight_shapes(sharded) == {"a": [2, 3], "b": [4], "c": []}
    assert weight_files(sharded) == [sharded / ONE, sharded / TWO]


def test_shards_that_are_missing_are_named(sharded: Path) -> None:
    (sharded / TWO).unlink()
    ending = "; fetch the model again"
    assert message(sharded) == f"{sharded / INDEX}: {TWO} is not there (1 of 2 files are missing){ending}"
    (sharded / ONE).unlink()
    assert message(sharded) == f"{sharded / INDEX}: {ONE} is not there (2 of 2 files are missing){ending}"


def test_an_index_that_is_missing_is_named(sharded: Path) -> None:
    """vLLM would load what is there, and then say which of its parameters got no weights."""
    (sharded / INDEX).unlink()
    assert message(sharded) == (
        f"{sharded}: has shards ({ONE}) and no {INDEX}, which lists them all; fetch the model again"
    )


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ('{"weight_map": {}}', "it names no file"),
        ("{}", "not an index of weights: "),
        ('{"weight_map": {"a": 1}}', "not an index of weights: "),
        ("", "not an index of weights: "),
    ],
)
def test_an_index_of_a_different_form_is_named(text: str, begins: str, sharded: Path) -> None:
    (sharded / INDEX).write_text(text)
    assert message(sharded).startswith(f"{sharded / INDEX}: {begins}")


def test_a_single_file_beside_shards_is_refused(sharded: Path) -> None:
    """transformers would read the single file, vLLM the shards. An index of the single file itself is fine."""
    save_file(SHARDS[ONE] | SHARDS[TWO], sharded / "model.safetensors")
    assert message(sharded) == (
        f"{sharded}: transformers would read model.safetensors, and vLLM the shards of {INDEX}; move one of the two out"
    )
    write_json(sharded / INDEX, {"weight_map": dict.fromkeys("abc", "model.safetensors")})
    check_weight_files(sharded)
    assert weight_files(sharded) == [sharded / "model.safetensors"]


def test_tensors_that_a_shard_lacks_are_named(sharded: Path) -> None:
    save_file({"b": np.ones(4, np.float16)}, sharded / TWO)
    assert message(sharded) == (
        f"{sharded / TWO}: lacks c, which {INDEX} finds in it (1 of 3 tensors); fetch the model again"
    )


@pytest.mark.parametrize("bytes_more", [-1, 1])
def test_files_of_a_different_length_are_named(bytes_more: int, sharded: Path) -> None:
    data = (sharded / TWO).read_bytes()
    (sharded / TWO).write_bytes(data[:-1] if bytes_more < 0 else data + b"\0")
    size = f"{len(data) + bytes_more:,} bytes in place of {len(data):,}"
    assert message(sharded) == f"{sharded / TWO}: not a whole safetensors file: {size}; fetch the model again"


@pytest.mark.parametrize("kept", [0, 7, 8, 40])
def test_a_file_cut_in_its_header_is_named(kept: int, sharded: Path) -> None:
    (sharded / ONE).write_bytes((sharded / ONE).read_bytes()[:kept])
    assert message(sharded).startswith(f"{sharded / ONE}: not a whole safetensors file: ")


def test_files_that_one_engine_would_read_are_refused(tmp_path: Path) -> None:
    """Without an index vLLM reads every safetensors file. Mistral's `consolidated` it reads in place of all others."""
    write_json(tmp_path / "config.json", {})
    save_file({"a": np.ones(1)}, tmp_path / "model.safetensors")
    check_weight_files(tmp_path)
    for name, ending in (
        ("adapter_model.safetensors", "vLLM would read it too, and transformers only model.safetensors; move it out"),
        ("consolidated.safetensors", "vLLM would read it, and transformers model.safetensors; move it out"),
        ("consolidated-00001-of-00002.safetensors", "vLLM would read it, and transformers model.safetensors; "),
    ):
        save_file({"a": np.zeros(1)}, tmp_path / name)
        assert message(tmp_path).startswith(f"{tmp_path / name}: {ending}")
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    assert message(tmp_path) == (
        f"{tmp_path / 'weights.safetensors'}: transformers reads only model.safetensors; if it is the model's, "
        "rename it so"
    )


def test_a_setting_that_names_other_weights_is_refused(sharded: Path) -> None:
    write_json(sharded / "config.json", {"transformers_weights": ONE})
    assert message(sharded) == (
        f"{sharded / 'config.json'}: transformers_weights names other weights; remove the setting"
    )


def test_a_folder_without_weights_says_how_to_fetch(tmp_path: Path) -> None:
    """From the Hub embedkit fetches no pickles, so those of a repository may be missing here."""
    assert message(tmp_path) == (
        f"{tmp_path}: no weights there (model.safetensors). If the Hub has them as *.bin only, fetch all of the "
        "repository, `hf download OWNER/NAME --local-dir FOLDER`, and type --model FOLDER"
    )


DENSE = Family("BertConfig", modules=(("Pooling", {"mean": True}), ("Dense", {"out": 48}), ("Normalize", {})))


def make_pickles(folder: Path, shards: int) -> dict[str, np.ndarray]:
    """Replace the weights in a folder by pickles, as torch.save makes them. Returns the weights."""
    import torch

    weights = load_file(folder / "model.safetensors")
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        names = [f"pytorch_model-{i:05}-of-{shards:05}.bin" for i in range(1, shards + 1)]
        weight_map = {name: names[i % shards] for i, name in enumerate(tensors)}
        for file in names:
            torch.save({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
        write_json(folder / "pytorch_model.bin.index.json", {"weight_map": weight_map})
    (folder / "model.safetensors").unlink()
    return weights


@pytest.mark.parametrize("shards", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_pickles_are_refused_with_what_converts_them(shards: int, tmp_path: Path) -> None:
    """The command of the message is run: for the model, then for its Dense module. Vectors are the same to the bit."""
    folder = make_family(tmp_path / "a model", DENSE)
    weights = make_pickles(folder, shards)
    (folder / "training_args.bin").write_bytes(b"a pickle of something else")
    of_dense = make_pickles(folder / "2_Dense", 1)
    for place, wanted in ((folder, weights), (folder / "2_Dense", of_dense)):
        with pytest.raises(UsageError) as error:
            check_weights(folder)
        said, _, command = str(error.value).partition("This makes model.safetensors of them: ")
        assert said == f"{place}: its weights are pickles (pytorch_model*.bin), which can run code and are not loaded. "
        python = Path(EMBEDKIT[0]).parent
        subprocess.run(command, shell=True, check=True, env={"PATH": f"{python}:/usr/bin:/bin"} | python_path())
        found = load_file(place / "model.safetensors")
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    check_weights(folder)


def test_tied_and_transposed_tensors_are_converted(tmp_path: Path) -> None:
    """safetensors refuses tensors that share their bytes, and those whose rows are not one after the other."""
    import torch

    shared = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": shared, "tied": shared, "part": shared[1], "b": shared.T}, tmp_path / "pytorch_model.bin")
    command = message(tmp_path).partition("of them: ")[2]
    python = Path(EMBEDKIT[0]).parent
    subprocess.run(command, shell=True, check=True, env={"PATH": f"{python}:/usr/bin:/bin"} | python_path())
    found = {name: values.tolist() for name, values in load_file(tmp_path / "model.safetensors").items()}
    rows = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert found == {"a": rows, "tied": rows, "part": rows[1], "b": [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]}


def test_pickles_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = make_family(tmp_path / "model", DENSE)
    make_pickles(folder, 2)
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    assert message(folder) == (
        f"{folder / 'pytorch_model.bin.index.json'}: pytorch_model-00002-of-00002.bin is not there "
        "(1 of 2 files are missing); fetch the model again"
    )


def test_missing_shards_are_found_before_prepare(small_chats: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """At the command line: exit code 2, no run is made. The module's folder is named as well."""
    folder = shutil.copytree(tiny_qwen, tmp_path / "model")
    (folder / "model.safetensors").rename(folder / ONE)
    shapes = weight_names(folder / ONE)
    write_json(folder / INDEX, {"weight_map": {name: (ONE if i else TWO) for i, name in enumerate(shapes)}})
    request = ["--dataset", small_chats, "--model", folder, "--engine", "transformers", "--output-dir", tmp_path / "o"]
    refused = embedkit("prepare", *request, "--run-name", "run", code=2)
    assert f"embedkit: {folder / INDEX}: {TWO} is not there (1 of 2 files are missing); fetch" in refused.stderr
    assert not (tmp_path / "o" / "run").exists()


def weight_names(path: Path) -> list[str]:
    header = path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    return [name for name in json.loads(header[8 : 8 + length]) if name != "__metadata__"]
