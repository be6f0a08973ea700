"""Makes one part: extracts the texts, counts tokens, drops what does not fit, writes the files.

A part's data file has a fixed name and the same bytes whichever worker writes it. It counts once its manifest exists.
The rules of extraction are in extract.py, the reasons for dropping a row in dropped_rows.py.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from embedkit.documents import (
    FORMAT,
    DataIndex,
    FileRecord,
    PartManifest,
    Request,
    RunConfig,
    View,
    atomic_write_hashed,
    read,
    read_checked,
)
from embedkit.errors import EmbedkitError
from embedkit.model import HfTokenizer, Tokenizer, audit, load_reference, load_tokenizer
from embedkit.prepare.audited_rows import AuditedRows
from embedkit.prepare.dropped_rows import DROPPED_SCHEMA, count_reasons, gather_dropped, split_kept, write_dropped
from embedkit.prepare.extract import count_column, empty_column
from embedkit.prepare.find_copies import CopyFinder, CountedView, gather
from embedkit.prepare.message_counts import MessageCounts
from embedkit.prepare.views import extract_texts, own_columns, view_texts
from embedkit.row_keys import Copies, RowKeys, joined, joined_copies, read_copies, read_key_file
from embedkit.run import RunFolder

log = logging.getLogger(__name__)

COMPRESSION: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["dataset_source"],  # texts hardly repeat
    "write_statistics": ["id", "row", "dataset_source", "num_tokens"],
}
"""How Parquet files are written. Dictionaries and statistics for further columns cost time and serve no reader."""

TEXT_FIELDS = (
    pa.field("row", pa.int64()),
    pa.field("dataset_source", pa.large_string()),
    pa.field("user_prompt", pa.large_string()),
    pa.field("think_text", pa.large_string()),
    pa.field("response_text", pa.large_string()),
    pa.field("num_turns", pa.int32()),
)


def extracted_schema(request: Request) -> pa.Schema:
    """Columns of extracted_data.parquet: num_tokens for `combined`, num_tokens_<view> and empty_<view> otherwise.

    Columns that templates name follow the texts of the chat.
    """
    fields = [*TEXT_FIELDS, *(pa.field(name, pa.large_string()) for name in own_columns(request))]
    for view in request.views:
        fields.append(pa.field(count_column(view), pa.int32()))
        if view != "combined":
            fields.append(pa.field(empty_column(view), pa.bool_()))
    return pa.schema(fields)


@dataclass(frozen=True)
class PartRows:
    """A part to make: its number, its position among the chosen rows, and the rows, int64 (n,)."""

    part: int
    start: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """A durable part, with what the plan needs of it, taken from the bytes that its manifest's digests are of.

    tokens: token counts of the kept rows, one column per view, int32 (rows, views). copied: which texts' vectors are
    copied, bool (rows, views). dropped: its dropped rows.
    """

    manifest: PartManifest
    tokens: npt.NDArray[np.int32]
    copied: npt.NDArray[np.bool_]
    dropped: pl.DataFrame


@dataclass(frozen=True)
class _MadeRows:
    """The rows of a part, written. keys, copies: of those that were kept. audited: how many were."""

    extracted: FileRecord
    keys: RowKeys
    copies: Copies
    dropped: pl.DataFrame
    messages: MessageCounts
    audited: int


@dataclass
class PartMaker:
    """Makes the parts of one run. It is sent to every worker process, which loads its tokenizers when needed.

    index_sha256: digest of `parts/index.json`; a part made for another index does not count.
    """

    run: RunFolder
    config: RunConfig
    index_sha256: str

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that counts."""
        return load_tokenizer(Path(self.config.locations.model), self.config.request.prefix)

    @cached_property
    def reference(self) -> HfTokenizer:
        """The tokenizer whose ids are right by definition."""
        return load_reference(Path(self.config.locations.model), self.config.request.prefix)

    @cached_property
    def finder(self) -> CopyFinder:
        """Finds the texts that reused runs have."""
        return CopyFinder(self.run, self.config.request)

    @cached_property
    def index(self) -> DataIndex:
        """The run's `parts/index.json`."""
        return read(self.run.data_index, DataIndex)

    @cached_property
    def parts(self) -> int:
        """How many parts the run has."""
        return len(self.index.part_borders) - 1

    def sound_part(self, part: int) -> Part | None:
        """The part if its manifest is readable, made for this run, and the part's files match it.

        The rows' numbers are taken from the bytes that were compared.
        """
        path = self.run.part_manifest(part)
        if not path.exists():
            return None
        try:
            manifest = read(path, PartManifest)
        except EmbedkitError as error:
            log.warning("part %d is made again: %s", part, error)
            return None
        is_this_part = (manifest.part, manifest.index_sha256) == (part, self.index_sha256)
        if not is_this_part:
            return None
        try:
            data = read_checked(self.run.part_data(part), manifest.extracted)
            lost = pl.DataFrame(schema=DROPPED_SCHEMA)
            if manifest.dropped_rows is not None:
                lost = pl.read_parquet(
                    bytes(read_checked(self.run.part_dropped(part), manifest.dropped_rows)), glob=False
                )
            tokens = token_counts(data, self.config.request.views)
            copied = self._sound_keys(part, manifest)
        except (EmbedkitError, pa.ArrowException, pl.exceptions.PolarsError) as error:
            log.warning("part %d is made again: %s", part, error)
            return None
        return Part(manifest, tokens, copied, lost)

    def _sound_keys(self, part: int, manifest: PartManifest) -> npt.NDArray[np.bool_]:
        """Check the files of keys and copies. Returns which texts are copied; raises EmbedkitError."""
        shape = (manifest.kept, len(self.config.request.views))
        if manifest.row_keys is not None:
            read_key_file(self.run.part_keys(part), manifest.row_keys, *shape)
        elif self.index.row_keys:
            raise EmbedkitError(f"{self.run.part_manifest(part)}: it names no file of row keys")
        if manifest.copies is None:
            return np.zeros(shape, bool)
        return read_copies(self.run.part_copies(part), manifest.copies, *shape).are_copied

    def make(self, part_rows: PartRows, frames: Iterator[pl.DataFrame]) -> Part:
        """Write the files of a part and return it; the caller writes its manifest last.

        frames: the part's rows in order, as `read_rows` gives them.
        """
        part, start, rows = part_rows.part, part_rows.start, part_rows.rows
        made = self._write_rows(part_rows, frames)
        tokens = made.keys.lengths
        dropped_record = self._write_dropped(part, made.dropped)
        if len(tokens) + made.dropped.height != len(rows):
            raise EmbedkitError(
                f"part {part}: {len(rows)} rows chosen, but {len(tokens)} kept and {made.dropped.height} dropped; a "
                "data file changed while it was read"
            )
        manifest = PartManifest(
            format=FORMAT,
            index_sha256=self.index_sha256,
            part=part,
            start=start,
            stop=start + len(rows),
            kept=len(tokens),
            dropped=count_reasons(made.dropped),
            tokens=int(tokens.sum(dtype=np.int64)),
            extracted=made.extracted,
            dropped_rows=dropped_record,
            tokenizer=self.tokenizer.name,
            audited=made.audited,
            roles=made.messages.most_common_roles(),
            left_out=dict(sorted(made.messages.left_out.items())),
            row_keys=self._write_keys(part, made.keys),
            copies=self._write_copies(part, made.copies),
        )
        return Part(manifest, tokens, made.copies.are_copied, made.dropped)

    def _write_rows(self, part_rows: PartRows, frames: Iterator[pl.DataFrame]) -> _MadeRows:
        """Extract the texts of a part's rows, count their tokens, and write the rows that are kept."""
        run, request = self.run, self.config.request
        part = part_rows.part
        schema = extracted_schema(request)
        keys: list[RowKeys] = []
        copies: list[Copies] = []
        dropped: list[pl.DataFrame] = []
        to_audit = AuditedRows(part, len(part_rows.rows), self.parts, request.views)
        messages = MessageCounts()
        with (
            atomic_write_hashed(run.part_data(part), temporary_folder=run.parts) as file,
            pq.ParquetWriter(file, schema, **COMPRESSION) as writer,
        ):
            for rows_read in frames:
                # Extract the texts; rows without an answer end here.
                if request.chat_format != "plain":
                    messages.add(rows_read)
                texts, unused = extract_texts(rows_read, request)
                to_embed = texts.select("row", *view_texts(request).values())
                # Count tokens.
                views = [self.finder.count(view, to_embed[view].to_list(), self.tokenizer) for view in request.views]
                to_audit.add(to_embed.filter(np.any([view.is_tokenized for view in views], axis=0)))
                counted = texts.with_columns(_count_columns(request.views, views))
                # Drop empty and too long rows; write the others.
                good, bad = split_kept(counted, request.views, request.max_length)
                dropped += [unused, bad]
                if good.height:
                    writer.write_table(good.select(schema.names).to_arrow().cast(schema))
                kept_keys, kept_copies = gather(views, np.searchsorted(texts["row"], good["row"]))
                keys.append(kept_keys)
                copies.append(kept_copies)
            audited = self._audit(to_audit)
        return _MadeRows(
            extracted=file.record,
            keys=joined(keys, len(request.views)),
            copies=joined_copies(copies, len(request.views)),
            dropped=gather_dropped(dropped),
            messages=messages,
            audited=audited,
        )

    def _write_keys(self, part: int, keys: RowKeys) -> FileRecord | None:
        """Write the part's row keys, unless it is of a run that has none."""
        if not self.index.row_keys:
            return None
        with atomic_write_hashed(self.run.part_keys(part)) as file:
            file.write(keys.to_bytes())
        return file.record

    def _write_copies(self, part: int, copies: Copies) -> FileRecord | None:
        """Write from where vectors are copied, if any are."""
        if not copies.are_copied.any():
            return None
        with atomic_write_hashed(self.run.part_copies(part)) as file:
            file.write(copies.to_bytes())
        return file.record

    def _write_dropped(self, part: int, lost: pl.DataFrame) -> FileRecord | None:
        """Write the part's dropped rows if there are any."""
        if not lost.height:
            return None
        return write_dropped(self.run.part_dropped(part), lost)

    def _audit(self, rows: AuditedRows) -> int:
        """Audit the token ids of some rows in every view. Returns their number; 0 if the reference itself counts."""
        if isinstance(self.tokenizer, HfTokenizer):
            return 0
        chosen = rows.chosen()
        for view in self.config.request.views:
            audit(self.tokenizer, self.reference, chosen[view].to_list(), chosen["row"].to_list())
        return chosen.height


def token_counts(part_data: bytes | bytearray, views: Sequence[View]) -> npt.NDArray[np.int32]:
    """Token counts of a part's rows, one column per view, int32 (rows, views)."""
    columns = [count_column(view) for view in views]
    # read_table takes four times as long for a part: it looks for a folder of files first.
    table = pq.ParquetFile(pa.py_buffer(part_data)).read(columns=columns, use_threads=False)
    return np.stack([table[column].to_numpy() for column in columns], axis=1).astype(np.int32)


def _count_columns(views: Sequence[View], counted: Sequence[CountedView]) -> list[pl.Series]:
    """num_tokens and empty columns of the views.

    A text is also empty if the tokenizer makes no token of it, which happens with odd characters.
    """
    columns: list[pl.Series] = []
    for view, texts in zip(views, counted, strict=True):
        columns.append(pl.Series(count_column(view), texts.lengths, dtype=pl.Int32))
        columns.append(pl.Series(empty_column(view), texts.lengths == 0))
    return columns
