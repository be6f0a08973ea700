"""A model folder with the shapes of Qwen3-Embedding-0.6B, random bf16 weights and the genuine tokenizer.

Speed does not depend on the weights, and no hub is needed. Weights are drawn with a fixed seed on the GPU.
"""

import json
import lzma
from pathlib import Path

from benchmarks.corpus import FOLDER, TOKENIZER, write_modules
from embedkit.documents.schema import EngineSettings
from embedkit.prepare.plan import CHUNK_TOKENS, MAX_SEQUENCES, TOKEN_BUDGET

LIMIT = 32_768
SETTINGS = EngineSettings(
    device="cuda",
    dtype="bfloat16",
    max_length=LIMIT,
    chunk_tokens=CHUNK_TOKENS["cuda"],
    token_budget=TOKEN_BUDGET["cuda"],
    max_sequences=MAX_SEQUENCES["cuda"],
    eager=False,
    kernels="fused",
)
"""As a plan of long shards has them."""


def random_model() -> Path:
    """The folder. Made on first use."""
    folder = FOLDER / "qwen3-embedding-0.6b-random"
    if (folder / "modules.json").exists():
        return folder
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=151_669,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=LIMIT,
        rope_theta=1e6,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        bos_token_id=151_643,
        eos_token_id=151_643,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Qwen3ForCausalLM(config).to(torch.bfloat16)
        for name, weights in model.named_parameters():
            if "norm" in name:
                weights.data.uniform_(0.5, 1.5)  # not all 1, or a norm left out would change nothing
    model.config.architectures = ["Qwen3ForCausalLM"]
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(lzma.decompress(TOKENIZER.read_bytes()))
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "pad_token": "<|endoftext|>"}))
    write_modules(folder)  # last: the folder is whole
    return folder


if __name__ == "__main__":
    print(random_model())
