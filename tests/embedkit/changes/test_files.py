"""Which files differ from those of a run, and how they are named."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from embedkit.changes.files import data_changes, file_changes, order_of_run, show_changes
from embedkit.documents.schema import DataFile, FileRecord


def files(**sizes: int) -> list[DataFile]:
    """JSONL files by name, without the suffix, and size."""
    return [DataFile(name=f"{name}.jsonl", bytes=size) for name, size in sizes.items()]


def shown(old: Sequence[DataFile], new: Sequence[DataFile | None], old_paths: str = "", new_paths: str = "") -> str:
    """The lines of a comparison. Paths are words; without them, a folder that moved."""
    before = old_paths.split() or [f"/old/{file.name}" for file in old]
    now = new_paths.split() or [f"/new/{file.name}" for file in new if file is not None]
    return show_changes(data_changes(old, new, before, now))


def test_a_file_in_front_is_the_only_change() -> None:
    assert shown(files(b=20, c=30), files(a=3000, b=20, c=30)) == "  data  a.jsonl  not in the run  ->  3,000 bytes"


def test_changed_removed_and_added_files_are_named() -> None:
    """The run's files come in its order, then the new ones."""
    assert shown(files(one=1024, long_name=5, three=7), files(zero=1, one=1031, three=7)) == (
        "  data  one.jsonl        1,024 bytes  ->  1,031 bytes\n"
        "  data  long_name.jsonl  5 bytes  ->  not there\n"
        "  data  zero.jsonl       not in the run  ->  1 bytes"
    )


def test_a_missing_file_is_named() -> None:
    assert shown(files(a=1, b=2), [None, *files(b=2)], "/d/a /d/b", "/d/a /d/b") == "  data  a  1 bytes  ->  not there"


def test_files_of_one_name_are_told_apart_by_folders() -> None:
    old = [DataFile(name="x.jsonl", bytes=size) for size in (1, 2)]
    new = [DataFile(name="x.jsonl", bytes=size) for size in (9, 1, 3)]
    paths = "/d/a/x.jsonl /d/b/x.jsonl", "/d/0/x.jsonl /d/a/x.jsonl /d/b/x.jsonl"
    assert shown(old, new, *paths) == (
        "  data  b/x.jsonl  2 bytes  ->  3 bytes\n  data  0/x.jsonl  not in the run  ->  9 bytes"
    )


def test_files_of_one_name_that_moved_are_compared_by_size() -> None:
    """The second of two equal names has changed; both are in another folder now, and a new one is before them."""
    old = [DataFile(name="x.jsonl", bytes=size) for size in (1, 2)]
    new = [DataFile(name="x.jsonl", bytes=size) for size in (3, 1)]
    assert shown(old, new, "/d/a/x /d/b/x", "/e/b/x /e/a/x") == "  data  b/x  2 bytes  ->  3 bytes"


def test_parquet_of_one_size_is_shown_with_its_rows() -> None:
    old = [DataFile(name="a.parquet", bytes=9000, rows=1200, footer_sha256="0123456789abcdef")]
    new = [DataFile(name="a.parquet", bytes=9000, rows=1199, footer_sha256="f" * 64)]
    assert shown(old, new) == (
        "  data  a.parquet  9,000 bytes, 1,200 rows, footer sha256 0123456789ab  ->  "
        "9,000 bytes, 1,199 rows, footer sha256 ffffffffffff"
    )


def test_a_model_file_of_one_size_is_shown_with_sha256() -> None:
    old = [FileRecord(name="1_Pooling/config.json", bytes=5, sha256="a" * 64)]
    new = [FileRecord(name="1_Pooling/config.json", bytes=5, sha256="b" * 64)]
    changes = file_changes("model file", old, new)
    assert show_changes(changes) == (
        "  model file  1_Pooling/config.json  5 bytes, sha256 aaaaaaaaaaaa  ->  5 bytes, sha256 bbbbbbbbbbbb"
    )


def test_another_order_is_a_change_of_its_own() -> None:
    """Files that cannot be told apart stay in the order typed; then the order is all that differs."""
    old, new = files(a=1) + files(b=2) + files(b=2), files(b=2) + files(a=1) + files(b=2)
    assert shown(old, new, "/1/a /1/b /2/b", "/1/b /1/a /2/b") == (
        "  data  a    file 1 of 3  ->  file 2 of 3\n  data  1/b  file 2 of 3  ->  file 1 of 3"
    )


def test_a_long_list_is_cut() -> None:
    lines = shown([], files(**{f"f{i:04}": i for i in range(1023)})).splitlines()
    assert len(lines) == 21
    assert lines[19:] == ["  data  f0019.jsonl  not in the run  ->  19 bytes", "  ... and 1,003 more"]


some_files = st.lists(st.builds(DataFile, name=st.sampled_from("abc"), bytes=st.integers(1, 3)), max_size=6)


@given(some_files, some_files)
def test_no_difference_is_shown_only_for_the_same_files(old: list[DataFile], new: list[DataFile]) -> None:
    """Whatever the names, each file that is in one list only is in a line, and equal files are in none."""
    changes = file_changes("data", old, new, [f"/{i}" for i in range(len(old))], [f"/n{i}" for i in range(len(new))])
    before, after = Counter(old), Counter(new)
    assert sum(change.old != "not in the run" for change in changes) == (before - after).total()
    assert sum(change.new != "not there" for change in changes) == (after - before).total()


@given(
    st.lists(st.integers(0, 20), unique=True).flatmap(lambda sizes: st.tuples(st.just(sizes), st.permutations(sizes)))
)
def test_files_in_another_order_are_found(sizes: tuple[list[int], list[int]]) -> None:
    old, new = ([DataFile(name="x", bytes=size) for size in order] for order in sizes)
    order = order_of_run(old, new)
    assert order is not None
    assert [new[place] for place in order] == old


def test_two_alike_or_other_files_have_no_order() -> None:
    assert order_of_run(files(a=1) * 2, files(a=1) * 2) is None
    assert order_of_run(files(a=1), files(a=2)) is None
    assert order_of_run(files(a=1, b=1), files(a=1)) is None
