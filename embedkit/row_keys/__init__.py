"""Row keys: find rows of one run in another by hashes of their texts and token ids, and copy their vectors."""

from embedkit.row_keys.copies import EMBEDDED, CopiedRows, Copies, copies_from_bytes, joined_copies, no_copies
from embedkit.row_keys.earlier_run import EarlierRun, open_earlier
from embedkit.row_keys.kept_keys import KeptKeys
from embedkit.row_keys.key_files import key_records, read_copies, read_key_file, read_keys, read_view_keys
from embedkit.row_keys.keys import Keys, RowKeys, joined, keys_from_bytes, text_keys, token_keys, vector_keys
from embedkit.row_keys.lookup import NOT_FOUND, Lookup, matrix_keys, remove_lookups, write_lookups
from embedkit.row_keys.reusable import check_reusable, reusable

__all__ = [
    "EMBEDDED",
    "NOT_FOUND",
    "CopiedRows",
    "Copies",
    "EarlierRun",
    "KeptKeys",
    "Keys",
    "Lookup",
    "RowKeys",
    "check_reusable",
    "copies_from_bytes",
    "joined",
    "joined_copies",
    "key_records",
    "keys_from_bytes",
    "matrix_keys",
    "no_copies",
    "open_earlier",
    "read_copies",
    "read_key_file",
    "read_keys",
    "read_view_keys",
    "remove_lookups",
    "reusable",
    "text_keys",
    "token_keys",
    "vector_keys",
    "write_lookups",
]
