"""Exports pushed to a stand-in hub on loopback, by huggingface_hub itself: the real hub cannot be had in a test."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pytest

from embedkit.documents import FileRecord, Success, read
from embedkit.errors import EmbedkitError, UsageError
from embedkit.export import Exported, ExportOptions, export
from embedkit.export import parquet as parquet_module
from embedkit.export.record import Export
from embedkit.run import RunFolder
from tests.conftest import embedkit
from tests.embedkit.export.conftest import SOURCES, VECTORS
from tests.support.hub import Fault, StandInHub, stand_in_hub
from tests.support.reseal import reseal

REPO = "datasets/lab/vectors"
NAMES = [f"data/part-0000{i}.parquet" for i in range(3)]
COMMITS = "/commit/"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub without repositories, whose token may write to those of `lab`, and nobody waits. 150 rows are 3 files."""
    from huggingface_hub import constants

    with stand_in_hub({}, tmp_path / "hub") as found:
        found.accounts = {"hf_lab": {"lab"}, "hf_other": {"other"}}
        monkeypatch.setenv("HF_TOKEN", "hf_lab")
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # an engine of an earlier test may have set it
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setattr(parquet_module, "ROW_GROUP", 5)
        yield found


@pytest.fixture
def run(known_run: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(known_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def pushed(run: RunFolder, **options: Any) -> Exported:
    return export(run, ExportOptions(**{"to": "hub:lab/vectors", "queries": 0} | options))


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the Parquet files that are written."""
    names: list[str] = []
    write = parquet_module._write

    def counting(*arguments: Any) -> Sequence[FileRecord]:
        names.append(arguments[4])
        return write(*arguments)

    monkeypatch.setattr(parquet_module, "_write", counting)
    return names


def left(run: RunFolder) -> list[str]:
    return sorted(path.relative_to(run.exports).as_posix() for path in run.exports.rglob("*"))


def test_the_stand_in_hub_gets_the_files_of_parquet(hub: StandInHub, run: RunFolder, tmp_path: Path) -> None:
    """Byte for byte; each in a commit of its own, and all of main in the last."""
    folder = export(run, ExportOptions(to="parquet", out=tmp_path / "x", queries=20, dtype="int8")).folder
    done = pushed(run, queries=20, dtype="int8")
    files = hub.files(REPO)
    assert sorted(files) == sorted([".gitattributes", "README.md", "export.json", *NAMES])
    assert all(files[name] == (folder / name).read_bytes() for name in [*NAMES, "export.json"])
    branch = hub.pushes[0][0]
    assert hub.pushes == [*((branch, [name]) for name in NAMES), ("main", [*NAMES, "README.md", "export.json"])]
    assert hub.branches == {}
    assert left(run) == []
    assert done.address == f"{hub.url}/datasets/lab/vectors"
    assert done.how_to_read[1] == "rows = load_dataset('lab/vectors', split='train')"


def test_each_source_has_a_folder_in_the_stand_in_hub(hub: StandInHub, run: RunFolder, tmp_path: Path) -> None:
    pushed(run, by_source=True)
    files = hub.files(REPO)
    for number, name in enumerate("abc"):
        (tmp_path / "one.parquet").write_bytes(files[f"by_source/s{number}/part-00000.parquet"])
        ids = [i for i, source in enumerate(SOURCES) if source == name]
        assert pl.read_parquet(tmp_path / "one.parquet")["id"].to_list() == ids


def test_the_disk_never_has_two_files_for_the_stand_in_hub(hub: StandInHub, run: RunFolder) -> None:
    """At every request of a push there is at most the one file that is pushed."""
    seen = []
    hub.before = lambda request, port: seen.append([path.name for path in run.exports.rglob("*.parquet")])
    pushed(run)
    assert {len(names) for names in seen} == {0, 1}
    assert {name for names in seen for name in names} == {Path(name).name for name in NAMES}


LOAD = """
import json, sys
from datasets import load_dataset
for config in sys.argv[1:]:
    rows = load_dataset("lab/vectors", config or None, split="train")
    print(json.dumps({name: rows[name][:] for name in rows.column_names}))
"""


def loaded(hub: StandInHub, tmp_path: Path, *configs: str) -> list[dict[str, Any]]:
    """Columns of each configuration, as `datasets` reads them."""
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", LOAD, *configs]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_datasets_loads_what_the_stand_in_hub_got(hub: StandInHub, run: RunFolder, tmp_path: Path) -> None:
    """Ids, texts and vectors of all rows from a private repository, and of one source whose folder is a pattern."""
    pushed(run, texts=True)
    (found,) = loaded(hub, tmp_path, "")
    assert found["id"] == list(range(150))
    assert (np.array(found["embedding"], np.float32) == VECTORS).all()
    texts = pl.read_parquet(run.metadata)
    assert found["response_text"] == texts["response_text"].to_list()
    (run.by_source / "s1").rename(run.by_source / "s[1]")
    success = read(run.success, Success)
    sources = {
        name: type(one)(folder=one.folder.replace("s1", "s[1]"), rows=50) for name, one in success.sources.items()
    }
    files = tuple(
        FileRecord(name=file.name.replace("/s1/", "/s[1]/"), bytes=file.bytes, sha256=file.sha256)
        for file in success.files
    )
    reseal(run.success, Success, sources=sources, files=files)
    pushed(run, by_source=True, overwrite=True)
    every, one = loaded(hub, tmp_path, "", "s[1]")
    assert sorted(every["id"]) == list(range(150))
    assert one["id"] == [i for i in range(150) if SOURCES[i] == "b"]


CUTS = [
    *(Fault("PUT /storage/", 500, skip=skip, times=1000) for skip in range(3)),
    Fault("PUT /storage/", drop=True, skip=1, times=1000),
    *(Fault(COMMITS, 500, skip=skip, times=1000) for skip in range(4)),
    *(Fault(COMMITS, drop=True, skip=skip, times=1000) for skip in (1, 3)),
]


@pytest.mark.parametrize("fault", CUTS)
def test_a_push_to_a_stand_in_hub_that_fails_goes_on(
    fault: Fault, hub: StandInHub, run: RunFolder, written: list[str]
) -> None:
    """Whichever push fails: typed again, nothing that the Hub has is written or pushed again."""
    hub.faults = [replace(fault)]
    message = "not pushed to http://127.0.0.1" if fault.drop else "still answers 500"
    with pytest.raises(EmbedkitError, match=rf"hub:lab/vectors: .*{message}.*the same command again"):
        pushed(run)
    assert "export.json" not in hub.files(REPO)
    hub.faults = []
    pushed(run)
    assert len(hub.puts) == len(set(hub.puts)) == 3
    assert [names for _, names in hub.pushes] == [*([name] for name in NAMES), [*NAMES, "README.md", "export.json"]]
    assert written == NAMES
    assert left(run) == []


@pytest.mark.parametrize("where", ["POST /api/repos/create", "/branch/", "/paths-info/", "PUT /storage/", COMMITS])
def test_answers_of_the_stand_in_hub_that_are_lost(where: str, hub: StandInHub, run: RunFolder) -> None:
    """Each push is done, and its connection ends without an answer: it is looked for, and not done twice."""
    hub.faults = [Fault(where, cut_after=0, times=2)]
    pushed(run)
    assert [names for _, names in hub.pushes] == [*([name] for name in NAMES), [*NAMES, "README.md", "export.json"]]
    assert not hub.faults[0].times
    assert hub.branches == {}


@pytest.mark.slow
def test_a_killed_push_to_the_stand_in_hub_goes_on(hub: StandInHub, run: RunFolder, tmp_path: Path) -> None:
    """Killed before and after each push, one start after the other: nothing is put or committed twice."""
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    command = ["export", run.path, "--to", "hub:lab/vectors", "--by-source", "--queries", 0]

    def kill(request: str, port: int) -> bool:
        if where not in request or len(hub.pushes) != commits:
            return False
        callers = [one.pid for one in psutil.net_connections("tcp4") if one.laddr and one.laddr.port == port]
        os.kill(next(pid for pid in callers if pid not in (None, os.getpid())), signal.SIGKILL)
        return True

    for commits, where, is_after in (
        (0, "PUT /storage/", False),
        (0, "PUT /storage/", True),
        (1, "/embedkit-", True),
        (2, COMMITS, False),
        (3, "/commit/main", False),
        (4, "/commit/main", True),
        (4, "DELETE ", False),
    ):
        setattr(hub, "after" if is_after else "before", kill)
        done = embedkit(*command, check=False, **variables)
        assert done.returncode == -signal.SIGKILL, (commits, where, done.stderr)
        hub.before = hub.after = lambda request, port: False
    embedkit(*command, **variables)
    names = [f"by_source/s{i}/part-00000.parquet" for i in range(3)]
    assert [changed for _, changed in hub.pushes] == [*([name] for name in names), [*names, "README.md", "export.json"]]
    assert len(hub.puts) == len(set(hub.puts)) == 3
    assert hub.branches == {}
    assert left(run) == []


def test_progress_that_is_lost_pushes_nothing_twice(hub: StandInHub, run: RunFolder, written: list[str]) -> None:
    """As on another machine: the files are made again, and the stand-in hub has them."""
    hub.faults = [Fault(COMMITS, 500, times=1000, skip=2)]
    with pytest.raises(EmbedkitError, match="still answers 500"):
        pushed(run)
    shutil.rmtree(run.exports)
    hub.faults = []
    pushed(run)
    assert written == [*NAMES, *NAMES]
    assert len(hub.puts) == 3
    assert len(hub.pushes) == 4


def test_a_byte_flipped_on_the_way_to_the_stand_in_hub(
    hub: StandInHub, run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, the file is pushed again; always, the error names it."""
    hub.faults = [Fault("PUT /storage/", flip=True, skip=1)]
    pushed(run)
    assert f"{NAMES[1]} arrived damaged: sha256 " in caplog.text
    record = read_record(hub)
    for file in record.files:
        assert hashlib.sha256(hub.files(REPO)[file.name]).hexdigest() == file.sha256
    hub.faults = [Fault("PUT /storage/", flip=True, times=1000)]
    with pytest.raises(EmbedkitError, match=rf"hub:lab/vectors: not pushed .* {NAMES[0]} arrived damaged: sha256 "):
        pushed(run, dtype="float16", overwrite=True)


def read_record(hub: StandInHub) -> Export:
    return read(hub.repos[REPO] / "export.json", Export)


def test_a_file_that_is_lost_in_the_stand_in_hub_is_pushed_again(
    hub: StandInHub, run: RunFolder, written: list[str]
) -> None:
    """progress.json names it, and the branch was deleted meanwhile."""
    hub.faults = [Fault(COMMITS, 500, times=1000, skip=2)]
    with pytest.raises(EmbedkitError, match="still answers 500"):
        pushed(run)
    hub.faults, hub.branches = [], {}
    pushed(run)
    assert written == [*NAMES, *NAMES[:2]]
    assert sorted(hub.files(REPO)) == sorted([".gitattributes", "README.md", "export.json", *NAMES])


def test_a_branch_of_the_stand_in_hub_that_is_deleted_meanwhile(hub: StandInHub, run: RunFolder) -> None:
    """By another process that ended the same export, or by a person: what is not in main is made again."""
    hub.before = lambda request, port: hub.branches.clear() if "PUT" in request and len(hub.pushes) == 1 else None
    with pytest.raises(EmbedkitError, match=r"the branch of this export was deleted meanwhile\. Type the same command"):
        pushed(run)
    hub.before = lambda request, port: None
    pushed(run)
    assert sorted(hub.files(REPO)) == sorted([".gitattributes", "README.md", "export.json", *NAMES])


def failed(run: RunFolder, **options: Any) -> str:
    """The message with which a push ends; empty if it ends well."""
    try:
        pushed(run, **options)
    except EmbedkitError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_faults_of_a_stand_in_hub_at_random(seed: int, hub: StandInHub, run: RunFolder, tmp_path: Path) -> None:
    """However often an overwrite fails: main has the old export until the new one, and nothing is committed twice."""
    pushed(run)
    old = hub.files(REPO)
    hub.pushes, hub.puts = [], []
    rng = random.Random(seed)
    where = [
        "GET /api",
        "/branch/",
        "/paths-info/",
        "/preupload/",
        "/batch",
        "PUT /storage/",
        "/verify",
        COMMITS,
        "main",
    ]
    kinds: list[dict[str, Any]] = [{"status": 500}, {"status": 429}, {"drop": True}, {"cut_after": 0}]
    hub.faults = [
        Fault(rng.choice(where), skip=rng.randrange(4), times=rng.choice([1, 4, 8, 12]), **rng.choice(kinds))
        for _ in range(8)
    ]
    last = [*NAMES, "README.md", "export.json"]
    while message := failed(run, dtype="float16", overwrite=True):
        assert "the same command again" in message
        assert ("main", last) in hub.pushes or hub.files(REPO) == old
    folder = export(run, ExportOptions(to="parquet", out=tmp_path / "x", queries=0, dtype="float16")).folder
    assert all(hub.files(REPO)[name] == (folder / name).read_bytes() for name in [*NAMES, "export.json"])
    assert [names for _, names in hub.pushes] == [*([name] for name in NAMES), last]
    assert len(set(hub.puts)) == 3
    assert left(run) == []


@pytest.mark.parametrize(
    ("token", "owner", "message"),
    [
        ("", "lab", "no token of the Hub is set; make one that may write at http.*/settings/tokens, and set HF_TOKEN"),
        ("hf_wrong", "lab", r"does not accept the token \(401\); set HF_TOKEN to one that may"),
        ("hf_other", "lab", r"does not let the token write there \(403: You don't have the rights .*\); set HF_TOKEN"),
        ("hf_lab", "other", r"does not let the token write there \(403.*\); set HF_TOKEN to one that may"),
    ],
)
def test_tokens_that_the_stand_in_hub_refuses(
    token: str,
    owner: str,
    message: str,
    hub: StandInHub,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", token)
    hub.make_repo("datasets/other/vectors")
    with pytest.raises(EmbedkitError, match=f"hub:{owner}/vectors: .*{message}"):
        pushed(run, to=f"hub:{owner}/vectors")
    assert hub.pushes == []
    assert hub.branches == {}
    assert left(run) == []


def test_a_hidden_repository_of_others_in_the_stand_in_hub(hub: StandInHub, run: RunFolder) -> None:
    """It looks as if it did not exist, until it is to be created."""
    hub.make_repo(REPO, private_to="hf_other")
    with pytest.raises(EmbedkitError, match=r"has no such data set, or does not show it to the token \(404\)"):
        pushed(run)


def test_a_stand_in_hub_that_is_not_there(hub: StandInHub, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EmbedkitError, match=r"not pushed to http://127\.0\.0\.1:9: .*Type the same command again"):
        pushed(run)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EmbedkitError, match="HF_HUB_OFFLINE is set, so nothing can be pushed; unset it"):
        pushed(run)


def test_waits_as_long_as_the_stand_in_hub_requests(
    hub: StandInHub, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour; not two. If it says no time, as after too many commits: a minute, and longer the next times."""
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub.faults = [
        Fault(COMMITS, 429, {"Retry-After": "3600"}),
        Fault("/paths-info/", 503),
        Fault("/validate-yaml", 503),
    ]
    pushed(run)
    assert {3600, 1} <= set(waits)
    hub.faults.append(Fault(COMMITS, 429, times=4))
    waits.clear()
    pushed(run, by_source=True, overwrite=True)
    assert waits == [60, 300, 900, 2700]
    assert not any(fault.times for fault in hub.faults)
    hub.faults = [Fault(COMMITS, 429, {"Retry-After": "7200"}, times=1000)]
    with pytest.raises(EmbedkitError, match=r"still answers 429\. Type the same command again in 7,200 s; what was"):
        pushed(run, dtype="float16", overwrite=True)


def test_a_new_repository_of_the_stand_in_hub_is_private(
    hub: StandInHub, run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless --public is typed; those that are there stay as they are, and --private refuses a public one."""
    pushed(run, to="hub:lab/a")
    assert hub.is_hidden("datasets/lab/a", token="")
    pushed(run, to="hub:lab/b", private=False)
    assert not hub.is_hidden("datasets/lab/b", token="")
    assert "everybody can read" not in caplog.text
    pushed(run, to="hub:lab/b", overwrite=True)
    assert "datasets/lab/b is public: everybody can read what is pushed" in caplog.text
    with pytest.raises(UsageError, match=r"--private: .*/datasets/lab/b is public; change it there, or leave out"):
        pushed(run, to="hub:lab/b", overwrite=True, private=True)
    pushed(run, to="hub:lab/a", overwrite=True, private=False)
    assert "datasets/lab/a is private, and stays so" in caplog.text


def test_files_of_others_in_the_stand_in_hub_are_never_replaced(hub: StandInHub, run: RunFolder) -> None:
    folder = hub.make_repo(REPO)
    (folder / "train.csv").write_text("a,b\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"has files and is no export \(it has no export\.json\), such as train\.csv"):
        pushed(run, overwrite=True)
    (folder / "export.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"its export\.json is none that this version of embedkit reads"):
        pushed(run, overwrite=True)
    assert hub.pushes == []
    assert left(run) == []


def test_an_empty_repository_of_the_stand_in_hub_is_filled(hub: StandInHub, run: RunFolder) -> None:
    """Its README.md, which the Hub's page of new repositories offers to make, is replaced."""
    (hub.make_repo(REPO) / "README.md").write_text("# Soon", encoding="utf-8")
    pushed(run)
    assert b"# vectors" in hub.files(REPO)["README.md"]


def test_an_export_in_the_stand_in_hub_is_replaced_when_asked(hub: StandInHub, run: RunFolder) -> None:
    """Until the last commit, main has the old one as it was. Files that were added to it stay."""
    pushed(run)
    (hub.repos[REPO] / "LICENSE").write_text("MIT", encoding="utf-8")
    for options, which in (({}, "this"), ({"dtype": "int8"}, r"another \(of the run run\)")):
        with pytest.raises(UsageError, match=f"datasets/lab/vectors: has an export already, {which}; --overwrite repl"):
            pushed(run, **options)
    old = hub.files(REPO)
    seen = []
    hub.before = lambda request, port: seen.append(hub.files(REPO) == old) if "PUT" in request else None
    pushed(run, by_source=True, overwrite=True)
    assert seen == [True] * 3
    new = [f"by_source/s{i}/part-00000.parquet" for i in range(3)]
    assert sorted(hub.files(REPO)) == sorted([".gitattributes", "LICENSE", "README.md", "export.json", *new])
    pushed(run, dtype="int8", overwrite=True)
    assert sorted(hub.files(REPO)) == sorted([".gitattributes", "LICENSE", "README.md", "export.json", *NAMES])
    assert read_record(hub).request.dtype == "int8"


def test_names_that_coincide_in_the_stand_in_hub(hub: StandInHub, run: RunFolder) -> None:
    """The old export is whole until the new one is, though both have data/part-00000.parquet."""
    pushed(run)
    old = hub.files(REPO)
    hub.faults = [Fault("/commit/main", 500, times=1000)]
    with pytest.raises(EmbedkitError, match="still answers 500"):
        pushed(run, dtype="float16", overwrite=True)
    assert hub.files(REPO) == old
    hub.faults = []
    pushed(run, dtype="float16", overwrite=True)
    assert all(hub.files(REPO)[name] != old[name] for name in NAMES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("export.json", r"export\.json was changed there meanwhile, perhaps by another export"),
        (
            "README.md",
            r"somebody else changed it meanwhile \(412: A commit has happened since\..*\)\. Type the same com",
        ),
    ],
)
def test_a_stand_in_repository_that_changes_meanwhile(name: str, message: str, hub: StandInHub, run: RunFolder) -> None:
    """Another export's record is never replaced unseen. Another change stops the last commit, and the next makes it."""

    def change(request: str, port: int) -> None:
        if ("/validate-yaml" if name == "README.md" else "PUT") in request:
            (hub.repos[REPO] / name).write_text("{}", encoding="utf-8")

    hub.before = change
    with pytest.raises(EmbedkitError, match=message):
        pushed(run)
    assert all(branch != "main" for branch, _ in hub.pushes)
    hub.before = lambda request, port: None
    if name == "README.md":
        pushed(run)
        assert len(hub.puts) == 3


def test_a_stand_in_repository_that_keeps_no_large_files(hub: StandInHub, run: RunFolder) -> None:
    hub.large = (".bin",)
    with pytest.raises(
        EmbedkitError, match=r"keeps data/part-00000\.parquet without a sha256, because its \.gitattributes"
    ):
        pushed(run)


def test_a_name_that_ends_like_a_file_in_the_stand_in_hub(hub: StandInHub, run: RunFolder) -> None:
    pushed(run, to="hub:lab/vectors.parquet")
    assert "datasets/lab/vectors.parquet" in hub.repos


@pytest.mark.parametrize("name", ["", "vectors", "lab/", "/vectors", "lab/a/b", "lab/a b", "lab/..", "lab/a--b", "-/a"])
def test_names_that_are_no_repository(name: str, known_run: RunFolder) -> None:
    with pytest.raises(UsageError, match=f"--to hub:{name}: type hub:owner/name; names have letters, digits, "):
        pushed(known_run, to=f"hub:{name}")


def test_options_that_do_not_fit_a_stand_in_repository(hub: StandInHub, run: RunFolder, tmp_path: Path) -> None:
    for options, message in (
        ({"out": tmp_path / "x"}, "--out .*: hub:lab/vectors writes no folder; leave out --out"),
        ({"index": True}, "--index: parquet files have no index"),
        ({"to": "csv"}, "--to csv: type parquet, npy, lance, faiss or hub:owner/name"),
        ({"to": "npy", "private": False}, "--public: only a repository of the Hub has this"),
    ):
        with pytest.raises(UsageError, match=message):
            pushed(run, **options)
    assert hub.requests == []


def test_the_command_says_where_the_stand_in_hub_has_it(hub: StandInHub, run: RunFolder, tmp_path: Path) -> None:
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = embedkit("export", run.path, "--to", "hub:lab/vectors", "--queries", 0, **variables)
    assert done.stdout.splitlines()[0] == f"written: {hub.url}/datasets/lab/vectors"
    assert "read back with polars: 6 vectors are those of the run\n" in done.stdout
    assert "  rows = load_dataset('lab/vectors', split='train')\n" in done.stdout
    none = embedkit("export", run.path, "--to", "hub:lab/new", code=1, **variables | {"HF_TOKEN": ""})
    assert "no token of the Hub is set" in none.stderr
