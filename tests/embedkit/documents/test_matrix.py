"""A Matrix of one or several files gives what NumPy gives of the same rows in memory."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.documents import Dtype, Matrix, MatrixFile, from_stored, matrix_header, open_matrix, to_stored
from embedkit.errors import EmbedkitError

DIM = 3


def numbers(rows: int) -> np.ndarray:
    """Different numbers that every type has exactly: small integers and halves."""
    return (np.arange(rows * DIM) % 241 / 2).astype(np.float32).reshape(rows, DIM)


def write(folder: Path, whole: np.ndarray, borders: list[int], store: Dtype = "float32") -> Matrix:
    """Files with the rows between these borders."""
    files = []
    for number, (start, stop) in enumerate(pairwise(borders)):
        files.append(MatrixFile(folder / f"{number}.safetensors", stop - start, DIM, store))
        data = to_stored(whole[start:stop], store).tobytes()
        files[-1].path.write_bytes(matrix_header(stop - start, DIM, store) + data)
    return Matrix(files)


@st.composite
def cuts(draw: st.DrawFn) -> list[int]:
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    return [0, *np.cumsum(sizes).tolist()]


KEYS = st.one_of(
    st.integers(-60, 60),
    st.slices(40),
    st.lists(st.integers(-60, 60), max_size=9),
    st.lists(st.booleans(), min_size=1, max_size=54).map(np.array),
    st.tuples(st.slices(40), st.slices(DIM)),
    st.tuples(st.integers(-60, 60), st.integers(0, DIM - 1)),
)


def got(array: Any, key: Any) -> Any:
    try:
        return np.asarray(array[key]).tolist()
    except IndexError:
        return IndexError


@given(cuts(), KEYS, st.sampled_from(["float32", "float16", "bfloat16"]))
def test_indexing_is_that_of_numpy(borders: list[int], key: Any, store: Dtype) -> None:
    whole = numbers(borders[-1])
    with TemporaryDirectory() as folder:
        matrix = write(Path(folder), whole, borders, store)
        assert got(matrix, key) == got(whole, key)
        assert (matrix.shape, matrix.dtype, len(matrix)) == (whole.shape, whole.dtype, len(whole))
        assert np.array_equal(np.asarray(matrix), whole)


@given(cuts(), st.data())
def test_chosen_rows_are_a_matrix_of_their_own(borders: list[int], data: st.DataObject) -> None:
    whole = numbers(borders[-1])
    ids = np.array(data.draw(st.lists(st.integers(0, borders[-1] - 1), max_size=20)), np.int64)
    at = np.array(data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=20) if len(ids) else st.just([])), np.int64)
    with TemporaryDirectory() as folder:
        chosen = write(Path(folder), whole, borders).select(ids)
        assert np.array_equal(np.asarray(chosen), whole[ids])
        assert np.array_equal(chosen.take(at), whole[ids][at])
        assert np.array_equal(np.asarray(chosen.select(at)), whole[ids][at])
        blocks = [vectors.tolist() for _, vectors in chosen.blocks(rows=4)]
        assert [row for block in blocks for row in block] == whole[ids].tolist()
        chosen.release()
        assert [chosen.path_of(i).name for i in range(len(ids))] == [
            f"{np.searchsorted(borders, i, 'right') - 1}.safetensors" for i in ids.tolist()
        ]


def test_a_product_is_computed_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = numbers(23)
    matrix = write(tmp_path, whole, [0, 4, 20, 23])
    query = np.array([1, 2, 3], np.float32)
    assert np.array_equal(matrix @ query, whole @ query)
    assert np.array_equal(matrix @ whole[:5].T, whole @ whole[:5].T)
    assert (matrix.select(np.empty(0, np.int64)) @ query).shape == (0,)


def test_one_file_of_float32_is_not_copied(tmp_path: Path) -> None:
    one = write(tmp_path, numbers(8), [0, 8])
    assert isinstance(one.array, np.memmap)
    assert np.shares_memory(one[2:5], one.array)
    assert np.shares_memory(np.asarray(one), one.array)
    assert not np.shares_memory(np.array(one), one.array)
    assert one.select(np.array([1])).array is None
    (tmp_path / "b").mkdir()
    assert write(tmp_path / "b", numbers(8), [0, 4, 8]).array is None
    assert write(tmp_path / "b", numbers(8), [0, 8], "float16").array is None


def test_rows_of_neighbouring_files_are_put_together(tmp_path: Path) -> None:
    whole = numbers(20)
    matrix = write(tmp_path, whole, [0, 7, 8, 20])
    for start, stop in ((0, 20), (6, 9), (7, 8), (8, 20), (3, 3)):
        assert np.array_equal(matrix[start:stop], whole[start:stop])
    matrix.read_ahead(5, 12)
    matrix.release(5, 12)
    assert np.array_equal(matrix[[19, 0, 7, 7]], whole[[19, 0, 7, 7]])
    assert np.array_equal(np.stack(list(matrix)), whole)


def test_what_an_array_has_and_a_matrix_has_not(tmp_path: Path) -> None:
    matrix = write(tmp_path, numbers(8), [0, 4, 8])
    with pytest.raises(AttributeError, match=r"has no 'mean': np.asarray\(...\).mean reads all 0.0 GB, and `blocks`"):
        matrix.mean()
    with pytest.raises(AttributeError, match="a Matrix has no 'nothing'"):
        matrix.nothing  # noqa: B018
    assert repr(matrix) == "<Matrix of 8 x 3 float32, in 2 files of float32>"


def test_a_file_of_another_shape_or_type_is_refused(tmp_path: Path) -> None:
    write(tmp_path, numbers(8), [0, 8])
    path = tmp_path / "0.safetensors"
    for rows, dim, store in ((7, DIM, "float32"), (8, 4, "float32"), (8, DIM, "float16"), (8, DIM, "bfloat16")):
        with pytest.raises(EmbedkitError, match=f"not a whole matrix of {rows} x {dim} {store}"):
            open_matrix(path, rows, dim, store)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        open_matrix(tmp_path / "none", 8, DIM)


def test_stored_numbers_come_back_as_they_were_rounded() -> None:
    for store in ("float16", "bfloat16"):
        stored = to_stored(np.array([[1, 1 + 2**-9, -0.0, 3e38]], np.float32), store)  # type: ignore[arg-type]
        once = from_stored(stored, store)  # type: ignore[arg-type]
        assert stored.tobytes() == to_stored(once, store).tobytes()  # type: ignore[arg-type]
