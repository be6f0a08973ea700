"""Small tokenizers of the families that embedding models use, in folders as the Hub has them."""

import json
from pathlib import Path
from typing import Any

from tests.support.models import CORPUS, SPLIT

Json = dict[str, Any]
WORDS = [*CORPUS[:5], "HELLO Hello hello, Ångström Wörld! ÀÉ", "it's don't I'LL   a  b", "1234567 3.14"]


def write_json(folder: Path, **files: Json) -> Path:
    """Write files `NAME.json` into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def bert(folder: Path, normalizer: Json | None = None, **config: Any) -> Path:
    """A WordPiece tokenizer as BERT has it; `config` goes to tokenizer_config.json."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**({"lowercase": True} | (normalizer or {})))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    both = WORDS + [word.lower() for word in WORDS]
    trainer = WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    tokenizer.normalizer, normal = (
        normalizers.BertNormalizer(lowercase=False, strip_accents=False),
        tokenizer.normalizer,
    )
    tokenizer.train_from_iterator(both, trainer)
    tokenizer.normalizer = normal
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return _write(folder, tokenizer, "bert", {"tokenizer_class": "BertTokenizer", **names, **config})


def roberta(folder: Path, prefix_space: bool = False, **config: Any) -> Path:
    """A byte-level BPE as RoBERTa has it."""
    from tokenizers import pre_tokenizers, processors

    tokenizer = _bpe(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], alphabet=True)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, prefix_space)
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "unk_token": "<unk>"}
    names |= {"pad_token": "<pad>", "mask_token": "<mask>"}
    return _write(folder, tokenizer, "roberta", {"tokenizer_class": "RobertaTokenizer", **names, **config})


def qwen2(folder: Path, model_type: str = "qwen3", split: str = SPLIT, **config: Any) -> Path:
    """A byte-level BPE as Qwen3-Embedding has it: NFC, a split pattern, a token at the end."""
    from tokenizers import Regex, normalizers, pre_tokenizers, processors

    tokenizer = _bpe(["<|endoftext|>", "<|im_end|>"], alphabet=True)
    tokenizer.normalizer = normalizers.NFC()
    steps = [pre_tokenizers.Split(Regex(split), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}
    return _write(folder, tokenizer, model_type, {"tokenizer_class": "Qwen2Tokenizer", **names, **config})


def mistral(folder: Path, model_type: str = "mistral", end: bool = False, **config: Any) -> Path:
    """A BPE with byte fallback as e5-mistral has it: <s> before the text, and </s> after it if `end`."""
    from tokenizers import normalizers, processors

    tokenizer = _bpe(["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))], byte_fallback=True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    after = " </s>" if end else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A{after}", pair=f"<s> $A <s> $B{after}", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return _write(folder, tokenizer, model_type, {"tokenizer_class": "LlamaTokenizer", **names, **config})


def gemma(folder: Path, **config: Any) -> Path:
    """A BPE with byte fallback as embeddinggemma has it."""
    from tokenizers import normalizers, pre_tokenizers, processors

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = _bpe([*special, *(f"<0x{byte:02X}>" for byte in range(256))], byte_fallback=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> $B <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    names = {f"{token[1:-1]}_token": token for token in special}
    return _write(folder, tokenizer, "gemma3_text", {"tokenizer_class": "GemmaTokenizer", **names, **config})


def xlm_roberta(folder: Path, kind: str = "XLMRobertaTokenizer", **config: Any) -> Path:
    """A Unigram of words that begin with ▁, as multilingual-e5 and, with kind T5Tokenizer, gtr-t5 have it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from tokenizers.trainers import UnigramTrainer

    is_t5 = kind == "T5Tokenizer"
    special = ["<pad>", "</s>", "<unk>"] if is_t5 else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if kind == "AlbertTokenizer":
        special = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(WORDS * 10, trainer)
    ids = [(token, special.index(token)) for token in ("<s>", "</s>") if token in special]
    ends = ("$A </s>", "$A </s> $B </s>") if is_t5 else ("<s> $A </s>", "<s> $A </s> </s> $B </s>")
    tokenizer.post_processor = processors.TemplateProcessing(single=ends[0], pair=ends[1], special_tokens=ids)
    names = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    names |= {"extra_ids": 0} if is_t5 else {"bos_token": "<s>", "cls_token": "<s>", "sep_token": "</s>"}
    names |= {} if is_t5 else {"mask_token": "<mask>"}
    return _write(folder, tokenizer, "t5" if is_t5 else "xlm-roberta", {"tokenizer_class": kind, **names, **config})


def mpnet(folder: Path, **config: Any) -> Path:
    """A WordPiece tokenizer with RoBERTa's special tokens."""
    from tokenizers import processors

    names = {"bos_token": "[CLS]", "eos_token": "[SEP]", "tokenizer_class": "MPNetTokenizer"}
    after = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    return _changed(bert(folder, **names, **config), "mpnet", post_processor=after)


def albert(folder: Path, **config: Any) -> Path:
    """A Unigram without accents and capitals."""
    from tokenizers import normalizers

    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]
    normal = normalizers.Sequence([*steps, normalizers.StripAccents(), normalizers.Lowercase()])
    return _changed(xlm_roberta(folder, "AlbertTokenizer", **config), "albert", normalizer=normal)


def deberta_v2(folder: Path, **config: Any) -> Path:
    """A Unigram that joins white space."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    joined = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    normal = normalizers.Sequence([joined, normalizers.NFC(), normalizers.Strip(left=False)])
    before = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always")])
    model = xlm_roberta(folder, "DebertaV2Tokenizer", **config)
    return _changed(model, "deberta-v2", normalizer=normal, pre_tokenizer=before)


def _changed(model: Path, model_type: str, **parts: Any) -> Path:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    tokenizer.save(str(model / "tokenizer.json"))
    return write_json(model, config={"model_type": model_type})


def _bpe(special: list[str], alphabet: bool = False, byte_fallback: bool = False) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    given = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"} if byte_fallback else {}
    tokenizer = Tokenizer(models.BPE(**given))
    if alphabet:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    letters = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    trainer = BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(WORDS * 10, trainer)
    if not byte_fallback:
        return tokenizer
    parts = json.loads(tokenizer.to_str())
    parts["added_tokens"] = [token for token in parts["added_tokens"] if not token["content"].startswith("<0x")]
    parts["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(parts))


def _write(folder: Path, tokenizer: Any, model_type: str, config: Json) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {key: value for key, value in config.items() if value is not ...}
    return write_json(folder, config={"model_type": model_type}, tokenizer_config=config)
