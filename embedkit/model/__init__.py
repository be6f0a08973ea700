"""The model folder: its settings and its tokenizer."""

from embedkit.model.audit import audit
from embedkit.model.file_check import check_files
from embedkit.model.folder import (
    is_identity,
    model_files,
    vocabulary_size,
)
from embedkit.model.json_file import read_json
from embedkit.model.limit import Limit, model_limit
from embedkit.model.matryoshka import Matryoshka, read_matryoshka
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
from embedkit.model.prompts import choose_prefix, read_prompts
from embedkit.model.same_model import require_same_model
from embedkit.model.settings import check_settings
from embedkit.model.tokenizer import (
    HfTokenizer,
    TokenIds,
    Tokenizer,
    load_reference,
    load_tokenizer,
    tokenizer_to_preload,
)
from embedkit.model.tokenizer_file import is_as_in_file, tokenizer_file
from embedkit.model.tokenizer_settings import check_tokenizer
from embedkit.model.unknown_token import TOKENIZER_FILES, UnknownToken, unknown_token
from embedkit.model.weights import check_weight_files, weight_folders, weight_shapes

__all__ = [
    "TOKENIZER_FILES",
    "Dense",
    "Head",
    "HfTokenizer",
    "LayerNorm",
    "Limit",
    "Matryoshka",
    "Module",
    "Normalize",
    "PoolingMode",
    "TokenIds",
    "Tokenizer",
    "UnknownToken",
    "audit",
    "check_files",
    "check_settings",
    "check_tokenizer",
    "check_weight_files",
    "choose_prefix",
    "is_as_in_file",
    "is_identity",
    "load_reference",
    "load_tokenizer",
    "model_files",
    "model_limit",
    "pools_prompt",
    "read_head",
    "read_json",
    "read_matryoshka",
    "read_modules",
    "read_prompts",
    "require_same_model",
    "tokenizer_file",
    "tokenizer_to_preload",
    "unknown_token",
    "vector_width",
    "vocabulary_size",
    "weight_folders",
    "weight_shapes",
]
