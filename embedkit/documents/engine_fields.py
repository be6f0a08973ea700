"""Engine records, compared field by field and named for people."""

from collections.abc import Sequence

from embedkit.documents.schema import EngineRecord

BATCH_FIELDS = ("token_budget",)
"""Fields that decide which texts are embedded together, and nothing else."""
LABELS = {"engine_version": "version", "torch": "torch", "cuda": "CUDA", "gpu": "GPU", "token_budget": "token budget"}
"""Names for people; other fields have their own."""


def vector_fields(one: EngineRecord, other: EngineRecord) -> tuple[str, ...]:
    """The fields in which two records differ, among those that may change a vector."""
    compared = (field for field in EngineRecord.__struct_fields__ if field not in BATCH_FIELDS)
    return tuple(field for field in compared if getattr(one, field) != getattr(other, field))


def named_fields(record: EngineRecord, fields: Sequence[str]) -> str:
    """Some fields of a record for people: `GPU NVIDIA H100, torch 2.9.0`."""
    labels = LABELS | {"engine_version": record.engine}
    return ", ".join(f"{labels.get(field, field)} {getattr(record, field) or '(none)'}" for field in fields)
