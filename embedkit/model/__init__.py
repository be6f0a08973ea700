"""The model folder: its settings and its tokenizer."""

from embedkit.model.audit import audit
from embedkit.model.folder import (
    is_identity,
    model_files,
    model_limit,
    read_json,
    read_modules,
    read_pooling,
    require_same_model,
    vocabulary_size,
    weight_files,
    weight_folders,
    weight_shapes,
)
from embedkit.model.prompts import choose_prefix, read_prompts
from embedkit.model.tokenizer import (
    HfTokenizer,
    TokenIds,
    Tokenizer,
    load_reference,
    load_tokenizer,
)
from embedkit.model.tokenizer_file import tokenizer_file
from embedkit.model.tokenizer_settings import check_tokenizer

__all__ = [
    "HfTokenizer",
    "TokenIds",
    "Tokenizer",
    "audit",
    "check_tokenizer",
    "choose_prefix",
    "is_identity",
    "load_reference",
    "load_tokenizer",
    "model_files",
    "model_limit",
    "read_json",
    "read_modules",
    "read_pooling",
    "read_prompts",
    "require_same_model",
    "tokenizer_file",
    "vocabulary_size",
    "weight_files",
    "weight_folders",
    "weight_shapes",
]
