"""How tokenizer classes of transformers 5.19 build a tokenizer, where they do not take tokenizer.json as it is.

A class with an `__init__` of its own takes vocabulary, merges and post-processor from tokenizer.json, and makes the
rest from its settings. The base classes, and classes that transformers does not know, take the whole file. transformers
4 took the file for all classes, and then changed it where a setting said otherwise.

Source: `AutoTokenizer.from_pretrained`, `TokenizersBackend.convert_to_native_format` and the classes' `__init__`.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedkit.model.json_file import read_json

OF_TYPE = {
    **dict.fromkeys(("bert", "distilbert", "electra", "nomic_bert", "convbert"), "BertTokenizer"),
    **dict.fromkeys(("roberta", "roberta-prelayernorm", "longformer", "bart", "data2vec-text"), "RobertaTokenizer"),
    **dict.fromkeys(("xlm-roberta", "gte", "xmod", "jina_embeddings_v3"), "XLMRobertaTokenizer"),
    **dict.fromkeys(("t5", "mt5", "switch_transformers"), "T5Tokenizer"),
    **dict.fromkeys(
        ("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "t5gemma"), "GemmaTokenizer"
    ),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen2_vl", "qwen3_vl"), "Qwen2Tokenizer"),
    **dict.fromkeys(("gpt2", "gptj", "gpt_neo", "opt", "phi"), "GPT2Tokenizer"),
    "mpnet": "MPNetTokenizer",
    "camembert": "CamembertTokenizer",
    "albert": "AlbertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
}
"""The class for each `model_type` of config.json, of the families that CLASSES has."""
FORCED = {"qwen2": "Qwen2Tokenizer", "modernbert": "", "modernbert-decoder": "", "phi3": "", "internlm2": ""}
"""Types whose class counts whatever tokenizer_config.json says. The empty name is the base class."""
BASE_TYPES = {
    *(
        "mistral",
        "mistral3",
        "ministral",
        "ministral3",
        "mixtral",
        "umt5",
        "xlm-roberta-xl",
        "nystromformer",
        "granite",
    ),
    *("granitemoe", "olmo2", "olmo3", "stablelm", "glm", "glm4", "gpt_bigcode"),
}
"""Types of the base class. Any other class that tokenizer_config.json names counts as the base class there."""
HONOURS_ENDS = {"LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "CohereTokenizer"}
"""Classes that obey add_bos_token and add_eos_token in transformers 4."""
PYTHON_CLASSES = {
    *("BartphoTokenizer", "BertJapaneseTokenizer", "BertweetTokenizer", "BioGptTokenizer", "BlenderbotSmallTokenizer"),
    *("ByT5Tokenizer", "CTRLTokenizer", "CanineTokenizer", "ClvpTokenizer", "CpmAntTokenizer", "CpmTokenizer"),
    *("DiaTokenizer", "EsmTokenizer", "FSMTTokenizer", "FlaubertTokenizer", "GPTNeoXJapaneseTokenizer"),
    *("MgpstrTokenizer", "MyT5Tokenizer", "PLBartTokenizer", "PerceiverTokenizer", "PhobertTokenizer"),
    *("ProphetNetTokenizer", "RagTokenizer", "RoCBertTokenizer", "TapasTokenizer", "VitsTokenizer"),
    *("Wav2Vec2CTCTokenizer", "Wav2Vec2PhonemeCTCTokenizer", "XLMTokenizer"),
}
"""Classes in Python, which do not read tokenizer.json."""

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Settings = dict[str, Any]


def tokenizer_class(model: Path) -> str:
    """The class that AutoTokenizer takes, without `Fast` at its end; empty for the base class.

    A folder without tokenizer_config.json has no settings that could contradict tokenizer.json: the base class.
    """
    if not (model / "tokenizer_config.json").is_file():
        return ""
    config = read_json(model, "config.json")
    named = read_json(model, "tokenizer_config.json").get("tokenizer_class") or config.get("tokenizer_class") or ""
    named = str(named).removesuffix("Fast")
    named = "" if named in ("PreTrainedTokenizer", "TokenizersBackend", "PythonBackend") else named
    kind = config.get("model_type", "")
    if kind in FORCED:
        return FORCED[kind]
    if kind in BASE_TYPES:
        return ""
    is_named = bool(config.get("tokenizer_class")) or "tokenizer_class" in read_json(model, "tokenizer_config.json")
    return ALIASES.get(named, named) if is_named else OF_TYPE.get(kind, "")


def _bert_normalizer(settings: Settings) -> Any:
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=settings.get("do_lower_case", True),
    )


def _build_bert(tokenizer: Any, settings: Settings) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.normalizer = _bert_normalizer(settings)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    _surround(tokenizer, settings.get("cls_token", "[CLS]"), settings.get("sep_token", "[SEP]"))


def _build_mpnet(tokenizer: Any, settings: Settings) -> None:
    _build_bert(tokenizer, {"cls_token": "<s>", "sep_token": "</s>"} | settings)


def _build_gpt2(tokenizer: Any, settings: Settings) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space", False))


def _build_roberta(tokenizer: Any, settings: Settings) -> None:
    _build_gpt2(tokenizer, settings)
    _surround(tokenizer, settings.get("cls_token", "<s>"), settings.get("sep_token", "</s>"))


def _build_xlm_roberta(tokenizer: Any, settings: Settings) -> None:
    tokenizer.normalizer = _precompiled(tokenizer)
    tokenizer.pre_tokenizer = _words(settings)
    _surround(tokenizer, settings.get("bos_token", "<s>"), settings.get("eos_token", "</s>"))


def _build_t5(tokenizer: Any, settings: Settings) -> None:
    tokenizer.normalizer = _precompiled(tokenizer)
    tokenizer.pre_tokenizer = _words({})
    _surround(tokenizer, None, "</s>")


def _build_albert(tokenizer: Any, settings: Settings) -> None:
    from tokenizers import normalizers

    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.get("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.get("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    charsmap = _precompiled(tokenizer)
    tokenizer.normalizer = normalizers.Sequence(steps + ([charsmap] if charsmap is not None else []))
    tokenizer.pre_tokenizer = _words(settings)


def _build_deberta_v2(tokenizer: Any, settings: Settings) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    steps: list[Any] = [normalizers.Lowercase()] if settings.get("do_lower_case", False) else []
    steps += [normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "), normalizers.NFC(), normalizers.Strip(left=False)]
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if settings.get("add_prefix_space", True) else "first"
    words = [pre_tokenizers.Punctuation(behavior="isolated")] if settings.get("split_by_punct", False) else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, pre_tokenizers.Metaspace(prepend_scheme=scheme)])
    _surround(tokenizer, settings.get("cls_token", "[CLS]"), settings.get("sep_token", "[SEP]"))


def _build_llama(tokenizer: Any, settings: Settings) -> None:
    from tokenizers import pre_tokenizers

    scheme = "always" if settings.get("legacy", False) else "first"
    tokenizer.model.fuse_unk = tokenizer.model.byte_fallback = True
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        prepend_scheme=scheme if settings.get("add_prefix_space", True) else "never", split=False
    )


def _build_gemma(tokenizer: Any, settings: Settings) -> None:
    from tokenizers import normalizers, pre_tokenizers

    tokenizer.model.fuse_unk = tokenizer.model.byte_fallback = True
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")


def _build_qwen2(tokenizer: Any, settings: Settings) -> None:
    from tokenizers import Regex, normalizers, pre_tokenizers

    tokenizer.model.byte_fallback = tokenizer.model.ignore_merges = False
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=settings.get("add_prefix_space", False), use_regex=False),
        ]
    )


Build = Callable[[Any, Settings], None]
BERT_SETTINGS = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
CLASSES: dict[str, tuple[Build, tuple[str, ...]]] = {
    "BertTokenizer": (_build_bert, BERT_SETTINGS),
    "MPNetTokenizer": (_build_mpnet, BERT_SETTINGS),
    "GPT2Tokenizer": (_build_gpt2, ("add_prefix_space",)),
    "RobertaTokenizer": (_build_roberta, ("add_prefix_space",)),
    "XLMRobertaTokenizer": (_build_xlm_roberta, ("add_prefix_space",)),
    "CamembertTokenizer": (_build_xlm_roberta, ("add_prefix_space",)),
    "T5Tokenizer": (_build_t5, ()),
    "AlbertTokenizer": (_build_albert, ("do_lower_case", "keep_accents", "add_prefix_space")),
    "DebertaV2Tokenizer": (_build_deberta_v2, ("do_lower_case", "split_by_punct", "add_prefix_space")),
    "LlamaTokenizer": (_build_llama, ("add_prefix_space", "legacy")),
    "GemmaTokenizer": (_build_gemma, ()),
    "Qwen2Tokenizer": (_build_qwen2, ("add_prefix_space",)),
}
"""For each class: what changes a tokenizer loaded from tokenizer.json to the one that it builds, and its settings."""
ALIASES = {
    **dict.fromkeys(("DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer"), "BertTokenizer"),
    **dict.fromkeys(("BartTokenizer", "LEDTokenizer", "MvpTokenizer", "LongformerTokenizer"), "RobertaTokenizer"),
}


_ROBERTA = {
    **{"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"},
    **{"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"},
}
_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_END = "<|endoftext|>"
DEFAULT_TOKENS: dict[str, dict[str, str]] = {
    "BertTokenizer": _BERT,
    "MPNetTokenizer": _ROBERTA | {"unk_token": "[UNK]"},
    **dict.fromkeys(("RobertaTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer"), _ROBERTA),
    "GPT2Tokenizer": {"unk_token": _END, "bos_token": _END, "eos_token": _END},
    "T5Tokenizer": {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"},
    "AlbertTokenizer": _BERT | {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "<unk>", "pad_token": "<pad>"},
    "DebertaV2Tokenizer": _BERT | {"bos_token": "[CLS]", "eos_token": "[SEP]"},
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "GemmaTokenizer": {f"{name}_token": f"<{name}>" for name in ("unk", "bos", "eos", "pad", "mask")},
    "Qwen2Tokenizer": {"unk_token": _END, "eos_token": _END, "pad_token": _END},
}
"""Special tokens of each class where tokenizer_config.json does not name one. `null` there means none."""


def _surround(tokenizer: Any, first: str | None, last: str | None) -> None:
    """Make the post-processor put these tokens around a text. Tokens that the vocabulary lacks are left out."""
    from tokenizers import processors

    ids = {token: tokenizer.token_to_id(token) for token in (first, last) if token is not None}
    ids = {token: number for token, number in ids.items() if number is not None}
    pieces = [first if first in ids else None, "$A", last if last in ids else None]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[piece for piece in pieces if piece], special_tokens=list(ids.items())
    )


def _words(settings: Settings) -> Any:
    """SentencePiece's words: split at white space, each with ▁ before it."""
    from tokenizers import pre_tokenizers

    scheme = "always" if settings.get("add_prefix_space", True) else "never"
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)])


def _precompiled(tokenizer: Any) -> Any:
    """The normalizer that SentencePiece compiled, alone or among others in tokenizer.json; None if there is none."""
    from tokenizers import normalizers

    if tokenizer.normalizer is None:
        return None
    state = json.loads(tokenizer.normalizer.__getstate__())
    for step in state.get("normalizers", [state]):
        if step["type"] == "Precompiled":
            return normalizers.Precompiled(base64.b64decode(step["precompiled_charsmap"]))
    return None
