"""Small models of the families of embedding models: their classes, tokenizer kinds and modules, random weights.

Settings that change vectors are those that the families' models are published with; sizes are not.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.support.models import CORPUS, SPLIT

TokenizerKind = Literal["wordpiece", "byte_bpe", "unigram"]
Modules = tuple[tuple[str, Mapping[str, Any]], ...]
WIDTH = 64
VOCABULARY = 400


@dataclass(frozen=True)
class Family:
    """How to make a small model.

    Attributes:
        config: name of the configuration class in transformers, and what differs from SIZES.
        around: special tokens before and after a text.
        first: kind of the first module.
        modules: (kind, settings) after the first, in order.
        files: further JSON files, by name.
        more: added to config.json after the model is saved.
    """

    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    architecture: str | None = None
    tokenizer: TokenizerKind = "wordpiece"
    lower: bool = False
    around: tuple[str, str] = ("[CLS]", "[SEP]")
    first: str = "Transformer"
    modules: Modules = (("Pooling", {"mean": True}), ("Normalize", {}))
    files: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
"""Sizes of a small model. A family with other names for them has its own in `settings`; None leaves one out."""

POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}


def make_family(folder: Path, family: Family) -> Path:
    """Make a small model of the family."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    special = make_tokenizer(folder, family)
    torch.manual_seed(0)
    values = {name: value for name, value in (SIZES | dict(family.settings)).items() if value is not None}
    config = getattr(transformers, family.config)(**special, **values)
    kind = getattr(transformers, family.architecture) if family.architecture else None
    model = kind(config) if kind else transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # norms of ones and biases of zeros would hide an error
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.eval().save_pretrained(folder)
    edit_json(folder / "config.json", family.more)
    for name, value in family.files.items():
        write_json(folder / name, value)
    write_modules(folder, family)
    return folder


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def edit_json(path: Path, changes: Mapping[str, object]) -> None:
    """Set values of a JSON object."""
    write_json(path, json.loads(path.read_bytes()) | changes)


def write_modules(folder: Path, family: Family) -> None:
    """modules.json, and a folder for each module."""
    rows = [("", family.first)]
    width = WIDTH
    for number, (kind, settings) in enumerate(family.modules, start=1):
        path = f"{number}_{kind}"
        rows.append((path, kind))
        if kind == "Pooling":
            flags = {flag: bool(settings.get(mode)) for mode, flag in POOLING_FLAGS.items()}
            extra = {name: value for name, value in settings.items() if name not in POOLING_FLAGS}
            write_json(folder / path / "config.json", {"word_embedding_dimension": width} | flags | extra)
        if kind == "Dense":
            width = write_dense(folder / path, width, settings)
    names = ("idx", "name", "path", "type")
    listed = [
        dict(zip(names, (i, str(i), path, f"sentence_transformers.models.{kind}"), strict=True))
        for i, (path, kind) in enumerate(rows)
    ]
    write_json(folder / "modules.json", listed)


def write_dense(folder: Path, width: int, settings: Mapping[str, Any]) -> int:
    """A Dense module of random weights. Returns its width."""
    import torch
    from safetensors.torch import save_file

    out = int(settings["out"])
    activation = settings.get("activation", "torch.nn.modules.activation.Tanh")
    bias = settings.get("bias", True)
    values = {"in_features": width, "out_features": out, "bias": bias, "activation_function": activation}
    write_json(folder / "config.json", values)
    weights = {"linear.weight": torch.randn(out, width) * 0.2} | ({"linear.bias": torch.randn(out)} if bias else {})
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return out


def make_tokenizer(folder: Path, family: Family) -> dict[str, int]:
    """Train the family's kind of tokenizer on a few texts. Returns the ids of special tokens for config.json."""
    from tokenizers import AddedToken, processors

    before, after = family.around
    padding = "<pad>" if "<" in before + after else "[PAD]"
    # As in RoBERTa's files, the padding token has the id 1, where a beginning comes before it.
    special = list(dict.fromkeys([token for token in (before, padding, after, "[UNK]") if token]))
    tokenizer = TRAINERS[family.tokenizer](special, family.lower)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    ids = {token: tokenizer.token_to_id(token) for token in special}
    template = " ".join(part for part in (before, "$A", after) if part)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, ids[token]) for token in (before, after) if token]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": padding, "unk_token": "[UNK]"}
    write_json(folder / "tokenizer_config.json", settings | ({"eos_token": after} if after else {}))
    found = {"pad_token_id": ids[padding], "eos_token_id": ids.get(after), "bos_token_id": ids.get(before)}
    return {name: number for name, number in found.items() if number is not None}


def train_wordpiece(special: list[str], lower: bool) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=VOCABULARY - 20, special_tokens=special))
    return tokenizer


def train_byte_bpe(special: list[str], lower: bool) -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY - 20, initial_alphabet=alphabet, special_tokens=special)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def train_unigram(special: list[str], lower: bool) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=VOCABULARY - 20, special_tokens=special, unk_token="[UNK]")
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


TRAINERS: dict[TokenizerKind, Callable[[list[str], bool], Any]] = {
    "wordpiece": train_wordpiece,
    "byte_bpe": train_byte_bpe,
    "unigram": train_unigram,
}
