"""Exports as an index of FAISS, `vectors.faiss`, whose ids are the run's, and `metadata.parquet` with a line per row.

A flat index is written here as a stream, in the layout that faiss gives to one: its header, the number of codes, the
codes, the number of ids, the ids. An IVF index (--index) is trained and filled in memory, and takes as much of it as
the file has bytes. Rows without a text are in no index. Read back by faiss.

float16, bfloat16 and int8 are scalar quantizers of faiss. Its QT_8bit has the intervals of our int8, if it gets its
ranges, and decodes to their middle. Scores are inner products, and differing bits for binary.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.analysis.optional_import import optional_import
from embedkit.documents import FileRecord, Floats, HashedFile
from embedkit.errors import EmbedkitError
from embedkit.export.forms import Array, Form
from embedkit.export.parquet import metadata_part
from embedkit.export.part import Job, Part, new_file
from embedkit.export.recall import Ids, Search
from embedkit.export.record import ExportRequest
from embedkit.export.sample import ids_at, ids_of, require_count, sampled
from embedkit.export.table import BLOCK_BYTES, Table, cells_for, is_text
from embedkit.log_progress import Advance

INDEX = "vectors.faiss"
TRAINED = 64
"""Rows per cell on which cells are trained, at most."""
SCALARS = {"float16": "QT_fp16", "bfloat16": "QT_bf16", "int8": "QT_8bit"}


class FaissWriter:
    """`vectors.faiss` and `metadata.parquet`; for sources, each in a folder of its own."""

    checked_by = "faiss"

    def refuse(self, request: ExportRequest) -> None:
        """Refuse if faiss is missing."""
        optional_import("faiss", "export")

    def parts(self, job: Job) -> list[Part]:
        """The index and the metadata of each table."""
        write = _write_cells if job.request.index else _write_flat
        found = []
        for table, count in zip(job.tables, job.with_text, strict=True):
            check = partial(_check, job, table, count)
            found.append(Part(table.name(INDEX), table.rows, partial(write, job, table, count), check))
            found.append(metadata_part(job, table))
        return found

    def facts(self, folder: Path, job: Job) -> dict[str, str]:
        """Its kind and metric; of IVF the cells, and how many of them a search looks into."""
        found = {"metric": "differing bits" if job.form.dtype == "binary" else "inner product"}
        if not job.request.index:
            return found | {"kind": "flat"}
        for table in job.tables:
            index = _read(folder / table.name(INDEX), job.form)
            cells = {"cells": str(index.nlist), "searched_cells": str(index.nprobe)}
            found |= {table.name(name): value for name, value in cells.items()}
        return found | {"kind": "IVF"}

    def search(self, folder: Path, job: Job) -> Search:
        """Search the index of all rows."""
        index = _read(folder / job.tables[0].name(INDEX), job.form)

        def search(queries: Floats, k: int) -> Ids:
            kept = job.form.stored(queries) if job.form.dtype == "binary" else job.form.cut(queries)
            found: Ids = index.search(np.ascontiguousarray(kept), k)[1]
            return found

        return search

    def how_to_read(self, folder: Path, job: Job) -> tuple[str, ...]:
        """With faiss."""
        is_binary = job.form.dtype == "binary"
        read = "read_index_binary" if is_binary else "read_index"
        queries = "np.packbits(queries > 0, axis=1)" if is_binary else "queries"
        return (
            "import faiss, polars as pl",
            f"index = faiss.{read}({str(folder / job.tables[0].name(INDEX))!r})",
            f"scores, ids = index.search({queries}, 10)  # ids are those of metadata.parquet",
        )


def _check(job: Job, table: Table, count: int, folder: Path) -> int:
    """Read the count, ids and sampled vectors of an index with faiss."""
    path = folder / table.name(INDEX)
    index = _read(path, job.form)
    require_count(str(path), index.ntotal, count)
    vector_of = _reconstruct(index, job)
    checked = 0
    for row, id_ in ids_at(table, sampled(0, table.rows)).items():
        vector = table.vectors(row, row + 1)
        if is_text(vector)[0]:
            _require_like(path, row, vector_of(id_), vector, job.form)
            checked += 1
    return checked


def _write_flat(job: Job, table: Table, count: int, folder: Path, advance: Advance) -> Sequence[FileRecord]:
    records: list[FileRecord] = []
    with new_file(folder, table.name(INDEX), records) as file:
        head, unit = _head(job.form, count)
        file.write(head)
        file.write((count * unit).to_bytes(8, "little"))
        has_text = []
        for block in table.blocks():
            kept = is_text(block)
            file.write(np.ascontiguousarray(_codes(job.form, block[kept])).data)
            has_text.append(np.packbits(kept))
            advance(len(block))
        file.write(count.to_bytes(8, "little"))
        _write_ids(file, table, has_text)
    return records


def _write_ids(file: HashedFile, table: Table, has_text: Sequence[Array]) -> None:
    """Append the ids of rows with a text, int64. has_text: bits of each block."""
    for number, bits in enumerate(has_text):
        start = number * table.block_rows
        stop = min(start + table.block_rows, table.rows)
        ids = ids_of(table, start, stop)[np.unpackbits(bits, count=stop - start).astype(bool)]
        file.write(np.ascontiguousarray(ids, "<i8").data)


def _head(form: Form, count: int) -> tuple[bytes, int]:
    """What faiss writes before the number of codes of a flat index with `count` vectors, and what it counts per vector.

    Raises EmbedkitError if this version of faiss has a layout that is not known.
    """
    faiss = optional_import("faiss", "export")
    index = _with_ids(form, _flat(form))
    serialize = faiss.serialize_index_binary if form.dtype == "binary" else faiss.serialize_index
    empty = serialize(index).tobytes()
    vectors = np.zeros((3, form.width if form.dtype == "binary" else form.dimensions), np.uint8)
    index.add_with_ids(vectors if form.dtype == "binary" else vectors.astype(np.float32), np.arange(3))
    three = serialize(index).tobytes()
    head = bytearray(empty[:-16])
    totals = [at for at in range(len(head)) if head[at] != three[at]]
    counted = int.from_bytes(three[len(head) : len(head) + 8], "little")
    if len(three) != len(empty) + 3 * (form.vector_bytes + 8) or len(totals) != 2 or counted % 3:
        raise EmbedkitError(
            f"faiss {faiss.__version__} writes flat indexes in a layout that embedkit does not know; install that "
            "of requirements/cpu.txt, or type --index"
        )
    for at in totals:
        head[at : at + 8] = count.to_bytes(8, "little")
    return bytes(head), counted // 3


def _codes(form: Form, vectors: Floats) -> Array:
    """Vectors as faiss stores them: int8 without a sign."""
    stored = form.stored(vectors)
    return stored.view(np.uint8) ^ np.uint8(128) if form.dtype == "int8" else stored


def _flat(form: Form) -> Any:
    faiss = optional_import("faiss", "export")
    if form.dtype == "binary":
        return faiss.IndexBinaryFlat(form.width * 8)
    if form.dtype == "float32":
        return faiss.IndexFlatIP(form.dimensions)
    kind = getattr(faiss.ScalarQuantizer, SCALARS[form.dtype])
    index = faiss.IndexScalarQuantizer(form.dimensions, kind, faiss.METRIC_INNER_PRODUCT)
    _set_ranges(form, index)
    return index


def _set_ranges(form: Form, index: Any) -> None:
    if form.ranges is not None:
        faiss = optional_import("faiss", "export")
        trained = np.concatenate([form.ranges[0], form.ranges[1] - form.ranges[0]])
        faiss.copy_array_to_vector(np.ascontiguousarray(trained, np.float32), index.sq.trained)
        index.is_trained = True


def _with_ids(form: Form, index: Any) -> Any:
    faiss = optional_import("faiss", "export")
    return faiss.IndexBinaryIDMap(index) if form.dtype == "binary" else faiss.IndexIDMap(index)


def _write_cells(job: Job, table: Table, count: int, folder: Path, advance: Advance) -> Sequence[FileRecord]:
    """Train cells on rows at even distances, add all rows, and write the index."""
    faiss = optional_import("faiss", "export")
    form = job.form
    index = _cells(form, cells_for(count))
    index.train(np.ascontiguousarray(_input(form, _training(table, count, index.nlist * TRAINED))))
    _set_ranges(form, index)
    at = 0
    for block in table.blocks():
        kept, ids = is_text(block), ids_of(table, at, at + len(block))
        index.add_with_ids(np.ascontiguousarray(_input(form, block[kept])), np.ascontiguousarray(ids[kept]))
        at += len(block)
        advance(len(block))
    index.nprobe = max(index.nlist // 16, min(index.nlist, 8))
    records: list[FileRecord] = []
    serialize = faiss.write_index_binary if form.dtype == "binary" else faiss.write_index
    with new_file(folder, table.name(INDEX), records) as file:
        serialize(index, faiss.PyCallbackIOWriter(file.write, BLOCK_BYTES))
    return records


def _training(table: Table, count: int, rows: int) -> Floats:
    """Vectors with a text, `rows` or more at even distances of `count`, float32 (n, dim). Zeros if there are none."""
    step = max(count // max(rows, 1), 1)
    found, at = [np.zeros((int(not count), table.dim), np.float32)], 0
    for block in table.blocks():
        texts = block[is_text(block)]
        found.append(texts[-at % step :: step].copy())  # the rest is not kept in memory
        at += len(texts)
    return np.concatenate(found)


def _cells(form: Form, cells: int) -> Any:
    """An IVF index that is not trained."""
    faiss = optional_import("faiss", "export")
    if form.dtype == "binary":
        coarse = faiss.IndexBinaryFlat(form.width * 8)
        index = faiss.IndexBinaryIVF(coarse, form.width * 8, cells)
    else:
        coarse = faiss.IndexFlatIP(form.dimensions)
        metric = faiss.METRIC_INNER_PRODUCT
        if form.dtype == "float32":
            index = faiss.IndexIVFFlat(coarse, form.dimensions, cells, metric)
        else:
            kind = getattr(faiss.ScalarQuantizer, SCALARS[form.dtype])
            index = faiss.IndexIVFScalarQuantizer(coarse, form.dimensions, cells, kind, metric, False)
    index.own_fields = True
    coarse.this.disown()
    return index


def _input(form: Form, vectors: Floats) -> Array:
    """What an index of faiss takes: float32, which it stores in its own form, or bits."""
    return form.stored(vectors) if form.dtype == "binary" else form.cut(vectors)


def _read(path: Path, form: Form) -> Any:
    """Open an index: flat ones are mapped into memory."""
    faiss = optional_import("faiss", "export")
    read = faiss.read_index_binary if form.dtype == "binary" else faiss.read_index
    return read(str(path), faiss.IO_FLAG_MMAP_IFC)


def _reconstruct(index: Any, job: Job) -> Any:
    """A function that gives the vector of an id, as faiss decodes it."""
    faiss = optional_import("faiss", "export")
    if job.request.index:
        index.set_direct_map_type(faiss.DirectMap.Hashtable)
        return index.reconstruct
    downcast = faiss.downcast_IndexBinary if job.form.dtype == "binary" else faiss.downcast_index
    inner, ids = downcast(index.index), faiss.rev_swig_ptr(index.id_map.data(), index.ntotal)
    return lambda id_: inner.reconstruct(int(np.searchsorted(ids, id_)))  # ids ascend


def _require_like(path: Path, row: int, found: Array, vector: Floats, form: Form) -> None:
    """Raise EmbedkitError unless a vector that faiss gave is the stored one; for int8, within an interval."""
    stored = form.stored(vector)
    wanted = stored[0] if form.dtype == "binary" else form.decoded(stored)[0]
    off = np.zeros(1)
    if form.ranges is not None:
        off = (form.ranges[1] - form.ranges[0]) / 255 * 1.6 + np.abs(wanted) * 1e-5
    if (np.abs(found.astype(np.float64) - wanted) > off).any():
        raise EmbedkitError(f"{path}: the vector of row {row} is not that of the run; export it again")
