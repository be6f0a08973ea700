"""The data set as a sequence of rows: files, formats, the Hub, sampling, sources."""

from embedkit.data.dataset import (
    Dataset,
    check_columns,
    find_files,
    identify,
    open_dataset,
    read_rows,
    read_sources,
    row_bytes,
)
from embedkit.data.hub import DataSource, fetch_dataset, fetch_model, is_hub_id, require_fetched
from embedkit.data.parquet import open_parquet
from embedkit.data.sampling import row_hash, sample_rows
from embedkit.data.source_folders import source_folders
from embedkit.data.source_index import SourceIndex, open_checked_part

__all__ = [
    "DataSource",
    "Dataset",
    "SourceIndex",
    "check_columns",
    "fetch_dataset",
    "fetch_model",
    "find_files",
    "identify",
    "is_hub_id",
    "open_checked_part",
    "open_dataset",
    "open_parquet",
    "read_rows",
    "read_sources",
    "require_fetched",
    "row_bytes",
    "row_hash",
    "sample_rows",
    "source_folders",
]
