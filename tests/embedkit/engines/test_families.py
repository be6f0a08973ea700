"""Families of embedding models with both engines: vectors are those of sentence-transformers, or the model is refused.

Each small model has the classes, the kind of tokenizer and the modules of its family, and random weights.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.documents import EngineName, EngineSettings
from embedkit.engines import start_engine
from embedkit.errors import UsageError
from embedkit.model import load_reference
from embedkit.request import Options, make_config
from tests.conftest import ROOT, chat, needs_vllm, write_chats
from tests.support.families import Family, make_family, write_json
from tests.support.known_models import KNOWN, NOMIC, YES

TEXTS = [
    "The river runs past the old mill and the stone bridge.",
    "what is the sum of seven and twelve?",
    "Wie spät ist es?",
    "x",
    "",
    "the stone " * 7,
]
SETTINGS: dict[str, Any] = {
    **{"device": "cpu", "dtype": "float32", "max_length": 64, "chunk_tokens": 512, "token_budget": 128},
    **{"max_sequences": 4, "eager": True},
}


def ask(model: Path, engine: EngineName, folder: Path) -> None:
    """Ask for a run with the model. Raises UsageError if it is refused."""
    data = write_chats(folder / "chats.jsonl", [chat("a", "b")])
    make_config(Options(dataset=(str(data),), model=str(model), engine=engine, max_length=64), [])


def expected(model: Path) -> npt.NDArray[np.float32]:
    """Vectors of sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    vectors: npt.NDArray[np.float32] = SentenceTransformer(str(model), device="cpu").encode(TEXTS)
    assert vectors.std(axis=0).mean() > 0.01, "texts have nearly the same vector, so an error would not show"
    return vectors


def token_ids(model: Path) -> list[npt.NDArray[np.uint32]]:
    return list(load_reference(model).encode(TEXTS))


RUN = [name for name, known in KNOWN.items() if known.transformers == YES]


@pytest.mark.parametrize("name", RUN)
def test_transformers_gives_the_vectors(name: str, tmp_path: Path) -> None:
    model = make_family(tmp_path / "model", KNOWN[name].family)
    ask(model, "transformers", tmp_path)
    engine = start_engine("transformers", model, EngineSettings(**SETTINGS))
    found = engine.embed(token_ids(model))
    engine.close()
    wanted = expected(model)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-5


REFUSED = [
    (name, engine, outcome)
    for name, known in KNOWN.items()
    for engine, outcome in (("vllm", known.vllm), ("transformers", known.transformers))
    if outcome != YES
]


@needs_vllm
@pytest.mark.parametrize(("name", "engine", "reason"), REFUSED)
def test_other_families_are_refused_with_a_reason(name: str, engine: EngineName, reason: str, tmp_path: Path) -> None:
    model = make_family(tmp_path / "model", KNOWN[name].family)
    with pytest.raises(UsageError) as error:
        ask(model, engine, tmp_path)
    assert reason in str(error.value)


def without_code(name: str) -> Family:
    """The family as if its models came without their own code."""
    family = KNOWN[name].family
    more = {key: value for key, value in family.more.items() if key != "auto_map"}
    return replace(family, more=more | {"num_attention_heads": 2, "pad_token_id": 1})


IN_VLLM = {name: known.family for name, known in KNOWN.items() if known.vllm == YES}
BUILT_IN = ("Qwen2, both ways", "NomicBERT")
"""Families whose own code vLLM has, too."""


@pytest.mark.slow
@needs_vllm
@pytest.mark.parametrize("first", [0, 1])
def test_vllm_gives_the_vectors(tmp_path: Path, first: int) -> None:
    """Half of the families in one process, one engine after the other. All would take too long for one test."""
    families = IN_VLLM | {name: without_code(name) for name in BUILT_IN}
    folders = {}
    for number, (name, family) in enumerate(list(families.items())[first::2]):
        folders[name] = make_family(tmp_path / f"model-{number}", family)
        np.save(tmp_path / f"wanted-{number}.npy", wanted_in_vllm(name, folders[name], tmp_path))
        if name not in BUILT_IN:
            ask(folders[name], "vllm", tmp_path)
    program = """
import json, sys
from pathlib import Path
import numpy as np
from embedkit.documents import EngineSettings
from embedkit.engines import start_engine
folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
for number, ids in enumerate(json.loads(sys.argv[3])):
    engine = start_engine("vllm", folder / f"model-{number}", EngineSettings(**settings))
    np.save(folder / f"found-{number}.npy", engine.embed([np.array(row, np.uint32) for row in ids]))
    engine.close()
"""
    ids = [[row.tolist() for row in token_ids(model)] for model in folders.values()]
    arguments = [str(tmp_path), json.dumps(SETTINGS), json.dumps(ids)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, cwd=ROOT, timeout=280)
    errors = {
        name: float(np.abs(np.load(tmp_path / f"found-{i}.npy") - np.load(tmp_path / f"wanted-{i}.npy")).max())
        for i, name in enumerate(folders)
    }
    assert {name for name, error in errors.items() if not error <= 1e-5} == set(), errors


def wanted_in_vllm(name: str, model: Path, folder: Path) -> npt.NDArray[np.float32]:
    """Vectors of sentence-transformers, from the same weights.

    transformers has other names for NomicBERT's sizes. Its fast attention ignores a setting of Gemma 2.
    """
    from sentence_transformers import SentenceTransformer

    if name == "NomicBERT":
        native = shutil.copytree(model, folder / "native")
        config = json.loads((native / "config.json").read_bytes())
        write_json(native / "config.json", {key: value for key, value in config.items() if key not in NOMIC})
        return expected(native)
    if name == "Gemma 2":
        exact = SentenceTransformer(str(model), device="cpu", model_kwargs={"attn_implementation": "eager"})
        vectors: npt.NDArray[np.float32] = exact.encode(TEXTS)
        assert 1e-4 < np.abs(vectors - expected(model)).max() < 1e-1
        return vectors
    return expected(model)


@pytest.mark.parametrize("column", ["vllm", "transformers"])
def test_the_table_in_the_docs_says_the_same(column: str) -> None:
    """docs/models.md has a row for each family, with its models and what becomes of them."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = page.partition("## Model families")[2].partition("| --- |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]
    outcomes = {family: {"vllm": vllm, "transformers": transformers} for family, _, vllm, transformers in rows}
    assert {family: models for family, models, *_ in rows} == {name: known.models for name, known in KNOWN.items()}
    for name, known in KNOWN.items():
        outcome = getattr(known, column)
        said = outcomes[name][column]
        assert said == YES if outcome == YES else said.startswith("refused: "), (name, said)
