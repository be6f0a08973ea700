"""The model folder: its settings and its tokenizer."""

from embedkit.model.file_check import check_files
from embedkit.model.folder import (
    is_identity,
    model_files,
    require_same_model,
    vocabulary_size,
)
from embedkit.model.json_file import read_json
from embedkit.model.limit import Limit, model_limit
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
from embedkit.model.weights import check_weight_files, weight_folders, weight_shapes

__all__ = [
    "Dense",
    "Head",
    "HfTokenizer",
    "LayerNorm",
    "Limit",
    "Module",
    "Normalize",
    "PoolingMode",
    "TokenIds",
    "Tokenizer",
    "audit",
    "check_files",
    "check_settings",
    "check_weight_files",
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
    "weight_folders",
    "weight_shapes",
]
