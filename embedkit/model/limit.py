"""How many tokens of a text a model takes, from up to three files of its folder.

- `config.json` says for how many positions the network is made. Where each position has an embedding of its own, a
  longer text crashes.
- `sentence_bert_config.json`, or else `tokenizer_config.json`, says where sentence-transformers cuts a text, and how
  long a text vLLM takes. It may be less, because the model was trained on shorter texts.

The smaller one is the limit. The `truncation` in `tokenizer.json` is a setting of whoever saved it, and no limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedkit.errors import UsageError
from embedkit.model.json_file import read_json, read_sentence_config

NO_LIMIT = 10**9
"""Limits from here on mean "no limit", for which tokenizers write about 1e30."""

POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "model_max_length",
    "max_trained_positions",
)
"""Names in config.json for the number of positions: of most models, GPT-2 (two), MPT, ChatGLM, rare ones, Cohere, and
NomicBERT, where longer texts need scaled positions, which change the vectors of short ones too."""

RELATIVE = {"t5", "mt5", "umt5", "longt5"}
"""Model types (`model_type`) whose positions are relative: `n_positions` is a fact about their training."""

FIRST_POSITION_AFTER_PADDING = {
    "camembert",
    "data2vec-text",
    "ibert",
    "longformer",
    "luke",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
"""Model types whose first token has the position pad_token_id + 1, so that 514 positions take 512 tokens.

Source: transformers (`create_position_ids_from_input_ids` of each), and `RobertaEmbedding` of vLLM.
"""
PADDING_ID = 1
"""The default of pad_token_id in all of them. MPNet's positions start after 1 whatever config.json says."""


@dataclass(frozen=True)
class Limit:
    """Most tokens of a text, special tokens included, and the file and setting that say so."""

    tokens: int
    source: str


def model_limit(model: Path) -> Limit | None:
    """Most tokens of a text that the model takes; None if the folder does not say.

    Raises UsageError if a limit is not a number.
    """
    limits = [limit for limit in (_positions(model), _cut(model)) if limit is not None]
    return min(limits, key=lambda limit: limit.tokens) if limits else None


def _positions(model: Path) -> Limit | None:
    """The number of positions of the network, less those that texts cannot have."""
    config = read_json(model, "config.json")
    text = config.get("text_config")
    config = text if isinstance(text, dict) else config
    if config.get("model_type") in RELATIVE:
        return None
    found = [(name, _number(model / "config.json", config, name)) for name in POSITIONS]
    known = [(tokens, name) for name, tokens in found if tokens is not None] + _before_long_rope(model, config)
    if not known:
        return None
    tokens, name = min(known)
    if config.get("model_type") not in FIRST_POSITION_AFTER_PADDING:
        return Limit(tokens, f"{name} in config.json")
    offset = 1 + PADDING_ID
    if config["model_type"] != "mpnet" and config.get("pad_token_id") is not None:
        offset = 1 + int(config["pad_token_id"])
    return Limit(tokens - offset, f"{name} {tokens} in config.json, less {offset} that no token has")


def _before_long_rope(model: Path, config: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The limit of a model with LongRoPE: beyond it, positions are scaled by other factors in all texts of a batch."""
    rope = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or "longrope" not in (rope.get("rope_type"), rope.get("type")):
        return []
    name = "original_max_position_embeddings"
    tokens = _number(model / "config.json", rope if name in rope else config, name)
    return [] if tokens is None else [(tokens, name)]


def _cut(model: Path) -> Limit | None:
    """Where sentence-transformers cuts: its own setting if there is one, else the tokenizer's."""
    own = read_sentence_config(model)[0]
    for file, name in ((own, "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        tokens = _number(model / file, read_json(model, file), name)
        if tokens is not None:
            return Limit(tokens, f"{name} in {file}")
    return None


def _number(path: Path, config: Mapping[str, Any], name: str) -> int | None:
    """A limit; None if it is not there or means that there is none (null, -1, 1e30)."""
    value = config.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{path}: {name} is {value!r}, not a number of tokens")
    return int(value) if 0 < value < NO_LIMIT else None
