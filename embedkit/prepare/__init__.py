"""The prepare stage: choose rows, extract texts, count tokens, drop rows that do not fit, and plan the shards."""

from embedkit.prepare.cost import GPU_MODELS, REFERENCE, REFERENCE_NAME, GpuModel, gpu_model, model_cost
from embedkit.prepare.dropped_rows import DROPPED_SCHEMA, count_reasons, with_all_reasons
from embedkit.prepare.extract import PYTHON_WHITESPACE, TEXT_COLUMNS, count_column, empty_column, view_text
from embedkit.prepare.first_rows import describe, look_at_first_rows
from embedkit.prepare.kept_rows import KeptRows
from embedkit.prepare.part_borders import mean_part_bytes, mean_part_rows
from embedkit.prepare.parts import COMPRESSION, extracted_schema
from embedkit.prepare.plan import (
    CHUNK_TOKENS,
    COPIED_TEXTS,
    COPY_SECONDS,
    SHARD_SECONDS,
    engine_settings,
    read_plan,
    settings_of_device,
    shard_of,
)
from embedkit.prepare.row_changes import RowChanges, row_changes
from embedkit.prepare.same_data import require_same_data
from embedkit.prepare.stage import prepare
from embedkit.prepare.views import check_views, stored_texts, view_texts
from embedkit.prepare.warnings import MANY_DROPPED

__all__ = [
    "CHUNK_TOKENS",
    "COMPRESSION",
    "COPIED_TEXTS",
    "COPY_SECONDS",
    "DROPPED_SCHEMA",
    "GPU_MODELS",
    "MANY_DROPPED",
    "PYTHON_WHITESPACE",
    "REFERENCE",
    "REFERENCE_NAME",
    "SHARD_SECONDS",
    "TEXT_COLUMNS",
    "GpuModel",
    "KeptRows",
    "RowChanges",
    "check_views",
    "count_column",
    "count_reasons",
    "describe",
    "empty_column",
    "engine_settings",
    "extracted_schema",
    "gpu_model",
    "look_at_first_rows",
    "mean_part_bytes",
    "mean_part_rows",
    "model_cost",
    "prepare",
    "read_plan",
    "require_same_data",
    "row_changes",
    "settings_of_device",
    "shard_of",
    "stored_texts",
    "view_text",
    "view_texts",
    "with_all_reasons",
]
