"""The model folder: its settings and its tokenizer."""

from embedkit.model.file_check import check_files
from embedkit.model.folder import (
    is_identity,
    model_files,
    read_json,
    read_modules,
    read_pooling,
    require_same_model,
    vocabulary_size,
)
from embedkit.model.limit import Limit, model_limit
from embedkit.model.tokenizer import (
    HfTokenizer,
    TokenIds,
    Tokenizer,
    audit,
    load_reference,
    load_tokenizer,
    tokenizer_file,
)
from embedkit.model.weights import check_weight_files, weight_folders, weight_shapes

__all__ = [
    "HfTokenizer",
    "Limit",
    "TokenIds",
    "Tokenizer",
    "audit",
    "check_files",
    "check_weight_files",
    "is_identity",
    "load_reference",
    "load_tokenizer",
    "model_files",
    "model_limit",
    "read_json",
    "read_modules",
    "read_pooling",
    "require_same_model",
    "tokenizer_file",
    "vocabulary_size",
    "weight_folders",
    "weight_shapes",
]
