"""The data set as a sequence of rows: files, formats, the Hub, sampling, sources."""

from embedkit.data.arrow_chats import is_list
from embedkit.data.chat_values import ChatRules, NotAChatError, message_list, read_chat
from embedkit.data.choose_columns import choose_columns
from embedkit.data.columns import (
    CHAT_TEXTS,
    LEFT_OUT_COLUMN,
    MESSAGES_COLUMN,
    MISFIT_COLUMN,
    Columns,
    columns_of,
    columns_of_templates,
    text_column,
)
from embedkit.data.dataset import (
    Dataset,
    bare_name,
    check_columns,
    column_names,
    has_reader,
    identify,
    is_parquet,
    open_dataset,
    peek,
    read_rows,
    read_sources,
    row_bytes,
)
from embedkit.data.find_inputs import find_dataset, find_model, is_on_hub
from embedkit.data.hub import DataSource, require_fetched
from embedkit.data.hub_id import SCHEME, hub_id
from embedkit.data.parquet import leaf_columns, open_parquet, read_texts
from embedkit.data.reasoning import REASONING_FIELDS
from embedkit.data.roles import ASSISTANT
from embedkit.data.row_frame import values_frame
from embedkit.data.sampling import row_hash, row_hashes, sample_rows
from embedkit.data.source_folders import source_folders
from embedkit.data.source_index import SourceIndex, open_part, read_checked_part

__all__ = [
    "ASSISTANT",
    "CHAT_TEXTS",
    "LEFT_OUT_COLUMN",
    "MESSAGES_COLUMN",
    "MISFIT_COLUMN",
    "REASONING_FIELDS",
    "SCHEME",
    "ChatRules",
    "Columns",
    "DataSource",
    "Dataset",
    "NotAChatError",
    "SourceIndex",
    "bare_name",
    "check_columns",
    "choose_columns",
    "column_names",
    "columns_of",
    "columns_of_templates",
    "find_dataset",
    "find_model",
    "has_reader",
    "hub_id",
    "identify",
    "is_list",
    "is_on_hub",
    "is_parquet",
    "leaf_columns",
    "message_list",
    "open_dataset",
    "open_parquet",
    "open_part",
    "peek",
    "read_chat",
    "read_checked_part",
    "read_rows",
    "read_sources",
    "read_texts",
    "require_fetched",
    "row_bytes",
    "row_hash",
    "row_hashes",
    "sample_rows",
    "source_folders",
    "text_column",
    "values_frame",
]
