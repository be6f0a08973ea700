"""The JSON documents of an export: `export.json`, and what a killed export has finished."""

from typing import Literal

from embedkit.documents import Document, EngineRecord, FileRecord, View
from embedkit.documents.schema import Count, Dim
from embedkit.export.forms import Stored

Target = Literal["parquet", "npy", "lance", "faiss"]


class ExportRequest(Document, frozen=True):
    """What decides the files of an export. columns: of the metadata, `id` first.

    success_sha256: digest of the run's `_SUCCESS.json`. dimensions: numbers that are kept of each vector. index: with
    an index of cells (IVF). version: that of embedkit. map_sha256: digest of the files of the analysis whose
    columns are added, "" for none.
    """

    success_sha256: str
    to: Target
    view: View
    dimensions: Dim
    dtype: Stored
    columns: tuple[str, ...]
    by_source: bool
    index: bool
    version: str
    map_sha256: str = ""


class Progress(Document, frozen=True):
    """`progress.json`: the finished parts of an export that is not complete, each with its files, and its request.

    checked: vectors of each part that were read back and compared.
    """

    format: int
    request: ExportRequest
    done: dict[str, tuple[FileRecord, ...]]
    checked: dict[str, Count]


class Recall(Document, frozen=True):
    """The share of each row's nearest rows by exact float32 cosines that are found, over a sample of rows.

    k: nearest rows per row, without itself. queries: sampled rows with a text. rows: with a text, all compared.
    of: what was searched: the form, by comparing with all rows, or an index.
    """

    k: Count
    queries: Count
    rows: Count
    of: str
    recall: float


class Export(Document, frozen=True):
    """`export.json`, written last: a complete export.

    run: its name. empty: rows without a text, whose vectors are zeros, and are left out of faiss. dim: of the run.
    vector_bytes: bytes of an exported one. files: names relative to the export's
    folder. checked: vectors that were read back and compared, and by which library. index: facts about the index.
    """

    format: int
    run: str
    request: ExportRequest
    request_sha256: str
    rows: Count
    empty: Count
    dim: Dim
    vector_bytes: Count
    engines: tuple[EngineRecord, ...]
    files: tuple[FileRecord, ...]
    checked: dict[str, Count]
    recall: tuple[Recall, ...]
    versions: dict[str, str]
    index: dict[str, str]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)
