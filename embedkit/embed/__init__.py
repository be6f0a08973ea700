"""Embed shards chunk by chunk, resumable, with a manifest written last. Also: which manifests count (shard_state)."""

from embedkit.embed.batch import ViewVectors, embed_chunk
from embedkit.embed.canary import (
    canary_bytes,
    canary_distance,
    canary_inputs,
    canary_problems,
    canary_tolerance,
    embed_canary,
)
from embedkit.embed.checks import REEMBED_TOLERANCE, differing_rows
from embedkit.embed.index_keys import index_keys
from embedkit.embed.inputs import ChunkInput, InputReader, inputs_digest
from embedkit.embed.journal import (
    JOURNAL,
    MATRIX,
    PARTIAL,
    Journal,
    durable_chunks,
    has_matrices,
    journals,
    read_journal,
)
from embedkit.embed.matrix_check import MatrixCheck, matrix_problem
from embedkit.embed.reused_engine import check_engine, check_known_engine
from embedkit.embed.same_engine import EngineCheck, Reference, finished_engine, refuse_mixed, refused_fields
from embedkit.embed.shard_state import (
    DIFFERENT_ENGINE,
    NOT_FINISHED,
    OTHER_PLAN,
    ShardStates,
    files_problem,
    rejected_shards,
)
from embedkit.embed.stage import embed_shards
from embedkit.embed.stop_at_chunk import ChunkStatus, StopAtChunk, StoppedAtChunk, is_stop_requested, request_stop
from embedkit.embed.watchdog import QUIET_SECONDS, START_SECONDS, Watchdog

__all__ = [
    "DIFFERENT_ENGINE",
    "JOURNAL",
    "MATRIX",
    "NOT_FINISHED",
    "OTHER_PLAN",
    "PARTIAL",
    "QUIET_SECONDS",
    "REEMBED_TOLERANCE",
    "START_SECONDS",
    "ChunkInput",
    "ChunkStatus",
    "EngineCheck",
    "InputReader",
    "Journal",
    "MatrixCheck",
    "Reference",
    "ShardStates",
    "StopAtChunk",
    "StoppedAtChunk",
    "ViewVectors",
    "Watchdog",
    "canary_bytes",
    "canary_distance",
    "canary_inputs",
    "canary_problems",
    "canary_tolerance",
    "check_engine",
    "check_known_engine",
    "differing_rows",
    "durable_chunks",
    "embed_canary",
    "embed_chunk",
    "embed_shards",
    "files_problem",
    "finished_engine",
    "has_matrices",
    "index_keys",
    "inputs_digest",
    "is_stop_requested",
    "journals",
    "matrix_problem",
    "read_journal",
    "refuse_mixed",
    "refused_fields",
    "rejected_shards",
    "request_stop",
]
