"""What a file is by its first bytes: a name may be wrong, and often is.

Source of the magic numbers: the formats' specifications.
"""

import re

_ARCHIVE = "unpack it, and name the files in it"
_CONVERT = "convert it"
_KINDS = {
    b"PAR1": ("a Parquet file", "rename it to end in .parquet"),
    b"ARROW1": ("an Arrow file", "rename it to end in .arrow"),
    b"\xff\xff\xff\xff": ("an Arrow stream", "rename it to end in .arrow"),
    b"FEA1": ("a Feather file of version 1", "write it again with version 2"),
    b"PK\x03\x04": ("a zip archive", _ARCHIVE),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _ARCHIVE),
    b"Rar!\x1a\x07": ("a RAR archive", _ARCHIVE),
    b"\x1f\x8b": ("compressed by gzip", "decompress it"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "decompress it"),
    b"BZh": ("compressed by bzip2", "decompress it"),
    b"\xfd7zXZ\x00": ("compressed by xz", "decompress it"),
    b"\x04\x22\x4d\x18": ("compressed by lz4", "decompress it"),
    b"\xff\x06\x00\x00sNaPpY": ("compressed by snappy", "decompress it"),
    b"Obj\x01": ("an Avro file", _CONVERT),
    b"ORC": ("an ORC file", _CONVERT),
    b"SQLite format 3\x00": ("an SQLite database", _CONVERT),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", _CONVERT),
    b"%PDF-": ("a PDF document", _CONVERT),
    b"version https://git-lfs": ("a pointer of Git LFS, not the data", "fetch the data with: git lfs pull"),
}
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)[\s>]", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
HEAD_BYTES = 512


def explain_content(head: bytes, *, text: bool, expected: tuple[bytes, ...] = ()) -> str | None:
    """Say what a file is, and what to do, if it is surely not what its name says; else None.

    Args:
        head: its first HEAD_BYTES bytes, or all if it has fewer. Of text, after decompression.
        text: whether its name says that it is text.
        expected: how a file with such a name may begin.
    """
    for magic, (what, advice) in _KINDS.items():
        is_name = magic.isalnum()  # such as PAR1, with which text may begin, too
        if head.startswith(magic) and magic not in expected and not (is_name and not _CONTROL.search(head[:64])):
            return f"it is {what}, whatever its name says; {advice}"
    if head[257:262] == b"ustar":
        return f"it is a tar archive, whatever its name says; {_ARCHIVE}"
    if _PAGE.match(head):
        return "it is a page of HTML, whatever its name says; fetch the data file itself"
    if text and head and not head[:64].strip(b"\x00"):
        return "it begins with zero bytes, as a file whose writing was interrupted; fetch or write it again"
    return None
