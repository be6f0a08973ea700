"""Small models for tests: real shapes, random weights."""

import json
from pathlib import Path

CORPUS = [
    "The river runs past the old mill and the stone bridge.",
    "What is the sum of seven and twelve? It is nineteen.",
    "def add(a, b):\n    return a + b\n",
    "Wie spät ist es? Es ist halb acht. 漢字 кириллица العربية 🙂",
    "<think>Let me see: 12 * 12 = 144.</think> The answer is 144.",
] * 50

# The split pattern of Qwen's tokenizers (and GPT-4's): words, single digits, punctuation, whitespace.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END = "<|endoftext|>"


def make_tokenizer(folder: Path, vocabulary: int = 600) -> None:
    """Train a byte-level BPE like Qwen's: NFC, the same split, END appended to every text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[])
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(END, special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def make_tiny_qwen(folder: Path, limit: int = 512) -> None:
    """Two layers of Qwen3 with the pooling files of Qwen3-Embedding: last token, normalized."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    make_tokenizer(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=limit,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = Qwen3ForCausalLM(config)
    model.config.architectures = ["Qwen3ForCausalLM"]
    model.save_pretrained(folder)
    modules = ["Transformer", "Pooling", "Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
                for i, (name, path) in enumerate(zip(modules, paths, strict=True))
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 64, "pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
