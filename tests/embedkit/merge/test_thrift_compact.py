"""Thrift structs to a tree and back, byte by byte."""

import pytest

from embedkit.merge.thrift_compact import (
    BINARY,
    BYTE,
    DOUBLE,
    FALSE,
    I16,
    I32,
    I64,
    LIST,
    STRUCT,
    TRUE,
    NotUnderstood,
    Struct,
    read_struct,
    write_struct,
)

STRUCTS: dict[str, tuple[Struct, str]] = {
    "empty": ({}, "00"),
    "an i32": ({1: (I32, -1)}, "15 01 00"),
    "the largest i64": ({1: (I64, 2**63 - 1)}, "16 fe ff ff ff ff ff ff ff ff 01 00"),
    "the least i64": ({1: (I64, -(2**63))}, "16 ff ff ff ff ff ff ff ff ff 01 00"),
    "an i16 of two bytes": ({2: (I16, 100)}, "24 c8 01 00"),
    "booleans in fields": ({1: (TRUE, True), 2: (FALSE, False)}, "11 12 00"),
    "a byte": ({3: (BYTE, 200)}, "33 c8 00"),
    "a double": ({1: (DOUBLE, bytes(7) + b"\x40")}, "17 00 00 00 00 00 00 00 40 00"),
    "text": ({4: (BINARY, b"ab")}, "48 02 61 62 00"),
    "a step of fifteen": ({15: (I32, 0)}, "f5 00 00"),
    "a step of sixteen": ({16: (I32, 0)}, "05 20 00 00"),
    "a struct in a struct": ({1: (STRUCT, {1: (I32, 1)}), 2: (I32, 2)}, "1c 15 02 00 15 04 00"),
    "fourteen elements": ({1: (LIST, (I32, [1] * 14))}, "19 e5" + " 02" * 14 + " 00"),
    "fifteen elements": ({1: (LIST, (I32, [1] * 15))}, "19 f5 0f" + " 02" * 15 + " 00"),
    "a list of booleans": ({1: (LIST, (TRUE, [1, 2]))}, "19 21 01 02 00"),
    "a list of structs": ({1: (LIST, (STRUCT, [{}, {1: (BINARY, b"")}]))}, "19 2c 00 18 00 00 00"),
}


@pytest.mark.parametrize("name", STRUCTS)
def test_structs_are_read_and_written(name: str) -> None:
    struct, written = STRUCTS[name]
    assert write_struct(struct) == bytes.fromhex(written)
    assert read_struct(bytes.fromhex(written)) == struct


def test_bytes_stand_for_a_struct_in_a_list() -> None:
    assert write_struct({1: (LIST, (STRUCT, [bytes.fromhex("15 02 00")]))}) == bytes.fromhex("19 1c 15 02 00 00")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ("", "cut short"),
        ("15", "cut short"),
        ("15 ff", "cut short"),
        ("48 02 61", "cut short"),
        ("17 00 00", "cut short"),
        ("19 2c 00", "cut short"),
        ("1c" * 5000, "too deep"),
        ("00 00", "bytes after"),
        ("1b 00 00", "kind 11"),
        ("1a 15 02 00", "kind 10"),
        ("1d" + "00" * 17, "kind 13"),
    ],
)
def test_what_is_no_struct_is_refused(data: str, match: str) -> None:
    with pytest.raises(NotUnderstood, match=match):
        read_struct(bytes.fromhex(data))
