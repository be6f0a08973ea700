"""The model of fused kernels inside the real vLLM on the CPU. Its kernels, which need a GPU, are in plain torch here.

`python -m benchmarks.gpu kernels` compares the kernels of the GPU with these.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import ROOT, needs_vllm
from tests.support.models import make_tiny_qwen
from tests.support.naive import forward_ids

pytestmark = [needs_vllm, pytest.mark.slow]

LENGTHS = (1, 2, 5, 77, 512, 300, 40, 9, 9, 128, 64, 1, 500, 480, 450, 333, 250, 211)
"""Tokens of the texts: four packed batches of 1,024, which are more than are launched ahead."""
POOLINGS = {"last": "lasttoken", "mean": "mean_tokens"}
PROGRAM = """
import sys
from pathlib import Path
import msgspec
import numpy as np
import embedkit.engines.fused.qwen3 as fused
from embedkit.documents.schema import EngineSettings
from embedkit.engines import start_engine, vllm
from embedkit.engines.fused.reference import ReferenceKernels

fused.load_kernels = ReferenceKernels
vllm.fitting_settings = lambda model, settings: settings  # they do not fit a CPU
folder = Path(sys.argv[1])
ids = np.load(folder / "ids.npy")
texts = np.split(ids, np.cumsum([int(n) for n in sys.argv[2].split(",")])[:-1])
settings = EngineSettings(device="cpu", dtype="float32", max_length=512, chunk_tokens=1, token_budget=512,
                          max_sequences=64, eager=True, kernels="fused")
for name in sys.argv[3:]:
    engine = start_engine("vllm", folder / name, settings)
    assert engine.record.compile == "fused", engine.record
    np.save(folder / f"{name}.npy", engine.embed(texts))
    engine.close()
short = msgspec.structs.replace(settings, max_length=20)
engine = start_engine("vllm", folder / "last", short)
np.save(folder / "short.npy", engine.embed([text for text in texts if len(text) <= 20]))
engine.close()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `last` and `mean` with norms that are not all 1, token ids, and the vectors of each model."""
    import torch

    folder = tmp_path_factory.mktemp("fused")
    make_tiny_qwen(folder / "last")
    weights, generator = load_file(folder / "last" / "model.safetensors"), torch.Generator().manual_seed(1)
    for name, values in weights.items():
        if "norm" in name:
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    save_file(weights, folder / "last" / "model.safetensors", metadata={"format": "pt"})
    shutil.copytree(folder / "last", folder / "mean")
    for name in POOLINGS:
        pooling = {f"pooling_mode_{mode}": mode == POOLINGS[name] for mode in POOLINGS.values()}
        config = {"word_embedding_dimension": 64} | pooling
        (folder / name / "1_Pooling" / "config.json").write_text(json.dumps(config))
    np.save(folder / "ids.npy", np.random.default_rng(0).integers(0, 1000, sum(LENGTHS)).astype(np.uint32))
    arguments = [str(folder), ",".join(map(str, LENGTHS)), *POOLINGS]
    subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, cwd=ROOT, timeout=250)
    return folder


@pytest.mark.parametrize("name", list(POOLINGS))
def test_with_kernels_of_torch_it_equals_a_plain_forward(folder: Path, name: str) -> None:
    """Norms in the products' matrices, SwiGLU of interleaved columns, and a last layer of last tokens: all exact."""
    texts = np.split(np.load(folder / "ids.npy"), np.cumsum(LENGTHS)[:-1])
    expected = forward_ids(folder / name, texts, name)
    assert np.abs(np.load(folder / f"{name}.npy") - expected).max() <= 1e-5


def test_a_limit_below_the_first_batchs_texts_works(folder: Path) -> None:
    texts = np.split(np.load(folder / "ids.npy"), np.cumsum(LENGTHS)[:-1])
    expected = forward_ids(folder / "last", [text for text in texts if len(text) <= 20], "last")
    assert np.abs(np.load(folder / "short.npy") - expected).max() <= 1e-5
