"""The model folder: its settings and its tokenizer."""

from embedkit.model.folder import (
    is_identity,
    model_files,
    model_limit,
    require_same_model,
    vocabulary_size,
    weight_files,
    weight_folders,
    weight_shapes,
)
from embedkit.model.json_file import read_json
from embedkit.model.modules import (
    Dense,
    Head,
    LayerNorm,
    Module,
    Normalize,
    PoolingMode,
    pools_prompt,
    read_head,
    read_modules,
    vector_width,
)
from embedkit.model.settings import check_settings
from embedkit.model.tokenizer import (
    HfTokenizer,
    TokenIds,
    Tokenizer,
    audit,
    load_reference,
    load_tokenizer,
    tokenizer_file,
)

__all__ = [
    "Dense",
    "Head",
    "HfTokenizer",
    "LayerNorm",
    "Module",
    "Normalize",
    "PoolingMode",
    "TokenIds",
    "Tokenizer",
    "audit",
    "check_settings",
    "is_identity",
    "load_reference",
    "load_tokenizer",
    "model_files",
    "model_limit",
    "pools_prompt",
    "read_head",
    "read_json",
    "read_modules",
    "require_same_model",
    "tokenizer_file",
    "vector_width",
    "vocabulary_size",
    "weight_files",
    "weight_folders",
    "weight_shapes",
]
