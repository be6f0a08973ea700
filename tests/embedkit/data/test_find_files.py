"""Files of a data set: names that other programs hide, patterns, paths that do not exist."""

import os
import shutil
import string
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.data.find_files import find_files
from embedkit.data.find_inputs import find_model
from embedkit.errors import UsageError
from jobs.cli.main import cli

STRAY = [
    ".ipynb_checkpoints/a-checkpoint.parquet",
    "sub/.ipynb_checkpoints/c-checkpoint.jsonl",
    "_delta_log/00000.checkpoint.parquet",
    "_SUCCESS",
    "._a.parquet",
    "sub/_temporary/0/b.parquet",
]


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(folder: Path, *datasets: str | Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_files(datasets)]


def test_hidden_names_in_a_folder_are_skipped_with_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path / "_here", "a.parquet", "sub/c.jsonl", *STRAY)
    assert names(tmp_path / "_here", str(tmp_path / "_here")) == ["a.parquet", "sub/c.jsonl"]
    assert caplog.messages == [
        f"--dataset {tmp_path}/_here: 6 skipped: names that begin with . or _ and temporary files are not data "
        "(._a.parquet, .ipynb_checkpoints, _SUCCESS, ...)"
    ]
    typed = tmp_path / "_here" / "._a.parquet"
    assert find_files([str(typed)]) == [typed]


@pytest.mark.parametrize(
    "name",
    [
        *("x.parquet.tmp", "x.tmp.parquet", "x.parquet~", ".x.parquet.crc", "x.parquet.crc", "x.parquet.crdownload"),
        *("x.jsonl.partial", "x.parquet.lock", "x.parquet.incomplete", "x.PARQUET.TMP", "x.jsonl.part", "x.jsonl.swp"),
        *("out.tmp/x.parquet", "x.incomplete/x.parquet", "_temporary/0/x.parquet", ".git/x.jsonl", "sub/.x.jsonl.swp"),
    ],
)
def test_temporary_names_are_skipped_and_listed(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "a.parquet", name)
    assert names(tmp_path, str(tmp_path)) == ["a.parquet"]
    shown = name if name.startswith("sub/") else name.split("/")[0]
    assert caplog.messages == [
        f"--dataset {tmp_path}: 1 skipped: names that begin with . or _ and temporary files are not data ({shown})"
    ]
    assert names(tmp_path, f"{tmp_path}/**") == ["a.parquet"]


READABLE = (
    ".parquet, .pq, .arrow, .feather, .ipc, .jsonl, .ndjson, .json, .csv and .tsv, the last five also as .gz, .zst, "
    ".bz2 or .xz, files are read"
)


def test_what_looks_like_data_is_read_or_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read = ["B.PARQUET", "a.Jsonl", "b.jsonl.GZ", "c.ndjson", "d.pq", "e.NDJSON", "f.x.jsonl", "g.arrow", "h.FEATHER"]
    read += ["i.ipc", "j.jsonl.zst", "k.ndjson.bz2", "l.jsonl.xz", "sub/m.PQ"]
    left = ["c.parquet.gz", "c.arrow.zst", "d.txt.gz", "part-00000", "part.00001", "x.avro", "x.jsonl.lz4", "README.md"]
    beside = ["c.json", "sub/d.json.gz", "sub/t.csv", "u.TSV", "v.csv.zst"]
    made(tmp_path, *read, *left, *beside)
    assert names(tmp_path, str(tmp_path)) == read
    assert caplog.messages == [
        f"--dataset {tmp_path}: 8 not read: 2 without suffix (part-00000, part.00001), 1 .arrow.zst (c.arrow.zst), "
        "1 .avro (x.avro), 1 .jsonl.lz4 (x.jsonl.lz4), 1 .parquet.gz (c.parquet.gz), 1 .txt.gz (d.txt.gz), 1 .md "
        f"(README.md). Only {READABLE}; convert those that have rows",
        f"--dataset {tmp_path}: 5 not read: .json, .csv and .tsv files beside other data files; to read them, name "
        "them (c.json, sub/d.json.gz, sub/t.csv, ...)",
    ]
    caplog.clear()
    found = names(tmp_path, f"{tmp_path}/*")
    assert found == sorted([*read, *(name for name in beside if not name.startswith("sub/"))])
    assert caplog.messages[0].startswith(f"--dataset {tmp_path}/*: 8 not read: 2 without suffix ({tmp_path}/part-00000")
    assert caplog.messages[1].startswith(f"--dataset {tmp_path}/*: 2 not read: .json, .csv and .tsv files beside")


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "sub/a.csv", "a.TSV", "a.tsv.xz"])
def test_json_and_csv_alone_are_read(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "z/notes.md", "b.json", name)
    assert names(tmp_path, str(tmp_path)) == sorted(["b.json", name])
    made(tmp_path, "x/y/b.ndjson.gz")
    assert names(tmp_path, str(tmp_path)) == ["x/y/b.ndjson.gz"]
    assert f"2 not read: .json, .csv and .tsv files beside other data files; to read them, name them ({name}" in (
        caplog.text.replace("(b.json, ", "(").replace(", b.json", "")
    )
    typed = tmp_path / name
    assert find_files([str(tmp_path), str(typed)]) == [tmp_path / "x/y/b.ndjson.gz", typed]
    assert find_files([str(tmp_path), f"{typed.with_suffix('')}.*"]) == [tmp_path / "x/y/b.ndjson.gz", typed]


@pytest.mark.parametrize("name", ["a.parquet.gz", "part-00000", "a.avro", "a.arrow.gz", "a.zst", "x.parquet.tmp"])
def test_a_named_file_that_is_not_read_is_refused(name: str, tmp_path: Path) -> None:
    made(tmp_path, name)
    with pytest.raises(UsageError, match=rf"{name}: only {READABLE}$"):
        find_files([str(tmp_path / name)])
    with pytest.raises(UsageError, match=r"no data file there; 1 "):
        find_files([f"{tmp_path}/*"])


def test_many_kinds_of_files_are_counted_not_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "a.parquet", *(f"{i}.kind{i}" for i in range(10)), *(f"{i}.txt" for i in range(5)))
    find_files([str(tmp_path)])
    assert "15 not read: 5 .txt (0.txt, 1.txt, 2.txt, ...), 1 .kind0 (0.kind0), " in caplog.text
    assert "1 .kind6 (6.kind6), 3 more. Only" in caplog.text


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves `~` alone in --dataset=~/x. A folder that is really called so comes first."""
    made(tmp_path / "home", "data/a.parquet", "data/b.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    there = [tmp_path / "home" / "data" / name for name in ("a.parquet", "b.jsonl")]
    assert find_files(["~/data"]) == find_files(["~/data/*"]) == find_files([*["~/data/a.parquet", "~/data/b.jsonl"]])
    assert find_files(["~/data"]) == there
    with pytest.raises(UsageError, match=rf"^--dataset {tmp_path}/home/c\.parquet: .* does not exist"):
        find_files(["~/c.parquet"])
    with pytest.raises(UsageError, match=r"~nobody-here is no user's home folder on this machine$"):
        find_files(["~nobody-here/data"])
    with pytest.raises(UsageError, match=r"does not exist"):
        find_files([Path("~/data")])  # as a run has recorded it
    made(tmp_path, "~/data/c.parquet")
    assert find_files(["~/data"]) == [tmp_path / "~/data/c.parquet"]


def test_what_is_no_file_is_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "a.parquet")
    os.mkfifo(tmp_path / "b.jsonl")
    assert names(tmp_path, str(tmp_path)) == ["a.parquet"]
    assert "1 not read: 1 that are no files (b.jsonl)" in caplog.text


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    made(tmp_path, "elsewhere/g.parquet", "elsewhere/deep/h.jsonl", "d/a.parquet")
    (tmp_path / "d" / "link").symlink_to(tmp_path / "elsewhere")
    found = ["d/a.parquet", "d/link/deep/h.jsonl", "d/link/g.parquet"]
    assert names(tmp_path, str(tmp_path / "d")) == names(tmp_path, f"{tmp_path}/d/*") == found


@pytest.mark.parametrize("target", [".", "d", "d/sub", "d/sub/deep"])
def test_a_linked_folder_around_itself_is_refused(target: str, tmp_path: Path) -> None:
    made(tmp_path, "d/sub/deep/a.parquet")
    (tmp_path / "d" / "sub" / "deep" / "link").symlink_to(tmp_path / target)
    for dataset in (tmp_path / "d", f"{tmp_path}/*"):
        with pytest.raises(UsageError, match=r"deep/link: a link to .*, a folder around it; .* without end"):
            find_files([str(dataset)])


def test_two_folders_that_link_to_each_other_are_refused(tmp_path: Path) -> None:
    made(tmp_path, "a/x.parquet", "b/y.parquet")
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    with pytest.raises(UsageError, match=r"a/to-b/to-a: a link to .*/a, a folder around it"):
        find_files([str(tmp_path / "a")])


def test_a_file_reached_twice_is_refused(tmp_path: Path) -> None:
    made(tmp_path, "d/2024/a.parquet", "d/b.parquet", "other/c.parquet")
    (tmp_path / "d" / "latest").symlink_to("2024")
    twice = r"names one file twice, as .*{} and as .*{}; its rows would count twice"
    with pytest.raises(UsageError, match=twice.format("d/2024/a.parquet", "d/latest/a.parquet")):
        find_files([str(tmp_path / "d")])
    (tmp_path / "d" / "latest").unlink()
    (tmp_path / "linked").symlink_to("d")
    with pytest.raises(UsageError, match=twice.format("d/b.parquet", "linked/b.parquet")):
        find_files([f"{tmp_path}/d", f"{tmp_path}/linked/b.parquet"])
    with pytest.raises(UsageError, match=twice.format("d/b.parquet", "d/b.parquet")):
        find_files([f"{tmp_path}/d", f"{tmp_path}/other/../d/b.parquet"])
    for link in (Path.symlink_to, Path.hardlink_to):
        link(tmp_path / "other" / "d.parquet", tmp_path / "other" / "c.parquet")
        with pytest.raises(UsageError, match=twice.format("other/c.parquet", "other/d.parquet")):
            find_files([str(tmp_path / "other")])
        recorded = [tmp_path / "other" / name for name in ("c.parquet", "d.parquet")]
        assert find_files(recorded) == recorded  # by an earlier version
        (tmp_path / "other" / "d.parquet").unlink()


def test_links_beside_each_other_may_share_a_file(tmp_path: Path) -> None:
    made(tmp_path, "elsewhere/a.parquet")
    for name in ("d/1.parquet", "d/2.parquet", "e/1.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / "elsewhere" / "a.parquet")
    assert names(tmp_path, str(tmp_path / "d")) == ["d/1.parquet", "d/2.parquet"]
    for other in ("e", "elsewhere", "elsewhere/a.parquet"):
        with pytest.raises(UsageError, match="names one file twice"):
            find_files([str(tmp_path / "d"), str(tmp_path / other)])


def test_links_of_one_snapshot_of_the_hub_may_share_a_file(tmp_path: Path) -> None:
    made(tmp_path, "blobs/abc", "blobs/def")
    for name in ("one/train/a.parquet", "one/test/a.parquet", "two/train/a.parquet"):
        path = tmp_path / "snapshots" / name
        path.parent.mkdir(parents=True)
        path.symlink_to(os.path.relpath(tmp_path / "blobs" / "abc", path.parent))
    files = names(tmp_path / "snapshots", str(tmp_path / "snapshots" / "one"))
    assert files == ["one/test/a.parquet", "one/train/a.parquet"]
    with pytest.raises(UsageError, match=r"twice, as .*one/test/a\.parquet and as .*two/train/a\.parquet"):
        find_files([str(tmp_path / "snapshots")])


def test_a_folder_with_nothing_but_hidden_names_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "d", *STRAY)
    with pytest.raises(UsageError, match="d: no data file there; 6 skipped: names that begin"):
        find_files([str(tmp_path / "d")])


def test_a_wildcard_matches_no_hidden_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path, "a.parquet", "sub/c.parquet", *STRAY)
    assert names(tmp_path, f"{tmp_path}/**/*.parquet") == ["a.parquet", "sub/c.parquet"]
    assert "2 skipped" in caplog.text
    assert names(tmp_path, f"{tmp_path}/_delta*/*.parquet") == ["_delta_log/00000.checkpoint.parquet"]
    assert names(tmp_path, f"{tmp_path}/.[i]*/*.parquet") == [".ipynb_checkpoints/a-checkpoint.parquet"]


def test_a_file_of_that_very_name_wins_over_the_pattern(tmp_path: Path) -> None:
    made(tmp_path, "d[1].parquet", "d1.parquet", "e[1]/x.parquet", "e1/y.parquet")
    assert names(tmp_path, f"{tmp_path}/d[1].parquet", f"{tmp_path}/e[1]") == ["d[1].parquet", "e[1]/x.parquet"]
    (tmp_path / "d[1].parquet").unlink()
    assert names(tmp_path, f"{tmp_path}/d[1].parquet") == ["d1.parquet"]
    with pytest.raises(UsageError, match=r"d\[1\]\.parquet does not exist; the nearest name there is .*d1\.parquet"):
        find_files([tmp_path / "d[1].parquet"])  # as a run has recorded it


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    made(tmp_path, "a.parquet")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "gone.parquet")
    for dataset in (tmp_path, f"{tmp_path}/*.parquet", tmp_path / "b.parquet"):
        with pytest.raises(UsageError, match=r"b\.parquet.* a link to .*gone\.parquet, which does not exist"):
            find_files([str(dataset)])


def test_a_folder_that_a_pattern_matches_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Spark writes them: a folder named like a file, with parts, checksums and markers."""
    spark = ["_SUCCESS", "part-0.parquet", ".part-0.parquet.crc", "_temporary/0/part-1.parquet", "part-2.gz"]
    made(tmp_path, "a.parquet", *(f"s.parquet/{name}" for name in spark), "s.parquet-2.parquet", "sub/b.parquet")
    parts = ["a.parquet", "s.parquet-2.parquet", "s.parquet/part-0.parquet"]
    assert names(tmp_path, f"{tmp_path}/*.parquet") == parts
    assert f"1 not read: 1 .gz ({tmp_path}/s.parquet/part-2.gz). Only" in caplog.text
    assert "3 skipped" in caplog.text
    assert names(tmp_path, f"{tmp_path}/**/*.parquet") == [*parts, "sub/b.parquet"]
    assert names(tmp_path, str(tmp_path / "s.parquet")) == ["s.parquet/part-0.parquet"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may list every folder, so the refusal is made."""
    made(tmp_path, "a.parquet", "closed/b.parquet", "lost+found/closed/x")
    scan = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError, match="closed"):
        find_files([str(tmp_path)])


def test_a_path_that_is_not_utf8_is_refused(tokenizer_only: Path, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    data = made(folder, "a.parquet") / "a.parquet"
    shutil.copytree(tokenizer_only, folder / "model")
    for call in (lambda: find_files([str(data)]), lambda: find_model(str(folder / "model"), None)):
        with pytest.raises(UsageError, match=r"\\udcff.*: the path is not UTF-8; rename it"):
            call()
    options = ["--dataset", "x", "--model", "y", "--run-name", "run", "--output-dir", str(folder)]
    assert "the path is not UTF-8" in str(CliRunner().invoke(cli, ["run", *options]).exception)


@given(
    name=st.text(st.sampled_from("[]*?{}~$%!'\"\\ -#&;|<>()^`=:@,+\n\t🙂é1a.") | st.sampled_from(string.ascii_letters))
    .filter(lambda name: name.strip(".") and not name.startswith((".", "_")))
    .map(lambda name: name[:40])
)
@settings(max_examples=100, deadline=None)
def test_a_recorded_name_is_never_a_pattern(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    there = made(folder, f"{name}.parquet", "1.parquet", "a.parquet") / f"{name}.parquet"
    assert find_files([there]) == find_files([str(there)]) == [there]
    there.unlink()
    with pytest.raises(UsageError, match="does not exist"):
        find_files([there])
