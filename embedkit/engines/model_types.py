"""Models that an engine does not run, or runs with other vectors than the model's own, known from config.json.

Each was tried with a small model (docs/models.md, "Model families"). Without this check they fail after prepare, or
not at all.
"""

from pathlib import Path

from embedkit.documents import EngineName
from embedkit.errors import UsageError
from embedkit.model import read_json

NOT_IN_VLLM = frozenset(
    {
        "albert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "ibert",
        "longformer",
        "longt5",
        "luke",
        "mpnet",
        "mt5",
        "t5",
        "umt5",
    }
)
"""Model types (`model_type`) that vLLM 0.32 refuses when it starts."""

WRONG_IN_VLLM = frozenset({"camembert", "data2vec-text", "electra", "xmod"})
"""Model types whose vectors vLLM 0.32 computes wrongly, with code that it takes from transformers: it counts positions
from 0 where they begin after that of the padding (no `roberta` in the name of the type), and makes NaN of ELECTRA."""

SOFTCAP = "attn_logit_softcapping"


def check_model_type(engine: EngineName, model: Path) -> None:
    """Raise UsageError if the engine does not run this kind of model as its authors do."""
    config = read_json(model, "config.json")
    kind = config.get("model_type")
    if engine == "vllm" and kind in NOT_IN_VLLM:
        raise UsageError(f"--engine vllm: vLLM does not run models of the type {kind}; use --engine transformers")
    if engine == "vllm" and kind in WRONG_IN_VLLM:
        raise UsageError(f"--engine vllm: vLLM gives wrong vectors for the type {kind}; use --engine transformers")
    # Its fast attention (sdpa), which sentence-transformers takes too, has no such setting.
    if engine == "transformers" and config.get(SOFTCAP) is not None:
        raise UsageError(
            f"--engine transformers: it leaves out {SOFTCAP} of {model / 'config.json'}; use --engine vllm"
        )
