"""Small pieces: durable files, matrices, folder names, documents."""

import json
import os
import stat
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from embedkit.data.source_folders import source_folders
from embedkit.documents.codec import decode, encode, read, sealed
from embedkit.documents.matrix import open_matrix
from embedkit.documents.matrix_file import check_matrix, matrix_header
from embedkit.documents.schema import FORMAT, FileRecord, Plan, RunConfig
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder
from embedkit.storage.atomic import (
    atomic_write,
    atomic_write_bytes,
    private_folder,
)


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write_bytes(path, b"old")

    def fail_half_way() -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"new")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@given(st.integers(0, 40), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_matrix_is_what_safetensors_writes(rows: int, dim: int) -> None:
    folder = Path(os.environ.get("TMPDIR", "/tmp"))
    data = np.arange(rows * dim, dtype=np.float32).reshape(rows, dim)
    ours, theirs = folder / f"ours-{os.getpid()}", folder / f"theirs-{os.getpid()}"
    ours.write_bytes(matrix_header(rows, dim) + data.tobytes())
    save_file({"embeddings": data}, theirs)
    try:
        assert ours.read_bytes() == theirs.read_bytes()
        with safe_open(ours, "np") as file:
            assert np.array_equal(file.get_tensor("embeddings"), data)
        if rows:
            assert np.array_equal(open_matrix(ours, rows, dim), data)
        ours.write_bytes(ours.read_bytes() + b"x")
        with pytest.raises(EmbedkitError, match="not a whole matrix"):
            check_matrix(ours, rows, dim)
    finally:
        ours.unlink()
        theirs.unlink()


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["a/b", "a_b", "A_B", "..", ""])))
@settings(max_examples=300, deadline=None)
def test_source_folders_are_safe_and_unique(sources: list[str]) -> None:
    folders = source_folders(sources)
    assert set(folders) == set(sources)
    names = list(folders.values())
    assert len({name.casefold() for name in names}) == len(names)
    for name in names:
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert "\0" not in name
        assert not name.startswith(".")


def test_source_folders_keep_the_plain_names() -> None:
    """Fault 10 of the replaced scripts: a/b and a_b collided, and .. escaped."""
    folders = source_folders(["a/b", "a_b", "..", "math 1"])
    assert folders["a/b"] == "a_b"
    assert folders["math 1"] == "math_1"
    assert folders["a_b"].startswith("a_b-")
    assert folders[".."].startswith("source-")


def test_documents_say_what_is_wrong(tmp_path: Path, hash_run: RunFolder) -> None:
    record = FileRecord(name="a", bytes=1, sha256="0")
    path = tmp_path / "record.json"
    assert decode(encode(record), FileRecord, path) == record
    with pytest.raises(EmbedkitError, match=r"record\.json: not a valid FileRecord: .*bytes"):
        decode(sealed(b'{"name": "a", "bytes": "1", "sha256": ""}'), FileRecord, path)
    with pytest.raises(EmbedkitError, match="unknown field `extra`"):
        decode(sealed(b'{"name": "a", "bytes": 1, "sha256": "", "extra": 1}'), FileRecord, path)
    with pytest.raises(EmbedkitError, match="its bytes are not those that were written"):
        decode(encode(record).replace(b'"a"', b'"b"'), FileRecord, path)
    with pytest.raises(EmbedkitError, match="no such file"):
        read(path, FileRecord)

    newer = json.loads(hash_run.plan.read_bytes()) | {"format": FORMAT + 1, "surprise": True}
    path.write_bytes(sealed(json.dumps(newer).encode()))
    with pytest.raises(EmbedkitError, match=f"it has format {FORMAT + 1}; this embedkit reads format {FORMAT}"):
        read(path, Plan)


def test_documents_are_canonical(hash_run: RunFolder) -> None:
    """Written, read and written again, a document has the same bytes; hashes rest on that."""
    for path, kind in ((hash_run.config, RunConfig), (hash_run.plan, Plan)):
        document = read(path, kind)
        assert encode(document) == path.read_bytes()
        assert msgspec.json.decode(path.read_bytes())["format"] == FORMAT


def test_a_private_folder_is_private_or_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    for folder in (tmp_path / "open", tmp_path / "new"):
        assert stat.S_IMODE(private_folder(folder).stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(EmbedkitError, match="is not yours"):
        private_folder(tmp_path / "link")
