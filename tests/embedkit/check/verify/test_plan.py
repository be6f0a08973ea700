"""Documents of prepare that are sealed and say something wrong: verify names the file, what is wrong and the fix."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from embedkit.check.verify import verify
from embedkit.documents import FORMAT, DataIndex, PartManifest, Plan, Preflight, Rejected, ShardManifest, read, write
from embedkit.documents.codec import digest, file_record
from embedkit.documents.schema import RunConfig
from embedkit.run import RunFolder
from tests.support.reseal import reseal


def found(run: RunFolder) -> list[tuple[str, str, str]]:
    """File, problem and fix, in order."""
    return [(problem.file, problem.what, problem.fix) for problem in verify(run).problems]


def made_again(run: RunFolder, *paths: Path) -> str:
    return f"rm {' '.join(map(str, paths))} && {run.prepare_command}"


def of_part(number: int, **changes: int) -> Callable[[Plan], Any]:
    def edited(plan: Plan) -> Any:
        parts = list(plan.parts)
        added = {name: getattr(parts[number], name) + value for name, value in changes.items()}
        parts[number] = msgspec.structs.replace(parts[number], **added)
        return tuple(parts)

    return edited


def of_shard(number: int, **changes: Any) -> Callable[[Plan], Any]:
    def edited(plan: Plan) -> Any:
        shards = list(plan.shards)
        shards[number] = msgspec.structs.replace(shards[number], **changes)
        return tuple(shards)

    return edited


def setting(**changes: Any) -> Callable[[Plan], Any]:
    return lambda plan: msgspec.structs.replace(plan.settings, **changes)


OF_INDEX = "its counts of rows are not those of parts/index.json"
OF_FILES = "its counts differ from the files: 76 rows kept, 8 dropped"
OF_PARTS = "its parts have different rows than the files"
OF_DROPPED = "its counts of dropped rows are not those of dropped_rows.parquet"
OF_ROWS = "its shard {} does not have the tokens of its rows"
OF_REQUEST = "its engine settings are not those of the request"

PLANS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "rows": ({"rows": 85}, [OF_INDEX]),
    "rows chosen": ({"rows_chosen": 83}, [OF_FILES, OF_INDEX]),
    "dropped": ({"dropped": lambda p: p.dropped | {"empty": 4}}, [OF_DROPPED]),
    "tokens": ({"tokens": lambda p: p.tokens + 1}, ["the rows' token counts do not add up to the plan's"]),
    "a part's rows": ({"parts": of_part(1, rows=1)}, [OF_PARTS]),
    "a part's first id": ({"parts": of_part(3, first_id=1)}, [OF_PARTS]),
    "the first shard's tokens": ({"shards": of_shard(0, tokens=7)}, [OF_ROWS.format(0)]),
    "the last shard's tokens": ({"shards": of_shard(2, tokens=7)}, [OF_ROWS.format(2)]),
    "device": ({"settings": setting(device="cuda")}, [OF_REQUEST]),
    "dtype": ({"settings": setting(dtype="float16")}, [OF_REQUEST]),
    "limit": ({"settings": setting(max_length=255)}, [OF_REQUEST]),
    "rows kept": (
        {
            "rows_kept": 75,
            "shards": lambda p: of_shard(2, stop=75, tokens=7, chunks=(*p.shards[2].chunks[:-1], 75))(p),
        },
        [OF_FILES],
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_that_is_not_of_its_files_is_named(name: str, small_prepared: RunFolder) -> None:
    changes, whats = PLANS[name]
    reseal(small_prepared.plan, Plan, **changes)
    fix = made_again(small_prepared, small_prepared.plan)
    assert found(small_prepared) == [("plan.json", what, fix) for what in whats]


def test_dropped_rows_under_another_name_are_named(small_prepared: RunFolder) -> None:
    run = small_prepared
    copy = run.dropped.with_name("other.parquet")
    shutil.copy(run.dropped, copy)
    reseal(run.plan, Plan, dropped_rows=file_record(copy))
    assert found(run) == [("plan.json", "does not name dropped_rows.parquet", made_again(run, run.plan))]


NOT_ALL = "its kept and dropped rows are not all its rows"

PARTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "part": ({"part": 1}, ["its part is not that of its files"]),
    "start": ({"start": 49}, ["its start is not that of its files", NOT_ALL]),
    "stop": ({"stop": 73}, ["its stop is not that of its files", NOT_ALL]),
    "kept": ({"kept": 23}, ["its kept is not that of its files", NOT_ALL]),
    "tokens": ({"tokens": 1}, ["its tokens is not that of its files"]),
    "dropped": (
        {"dropped": {"empty": 1, "no_assistant": 1, "too_long": 0}},
        ["its dropped is not that of its files"],
    ),
    "more dropped": (
        {"dropped": {"empty": 1, "no_assistant": 1, "too_long": 1}},
        ["its dropped is not that of its files", NOT_ALL],
    ),
    "no file of dropped rows": ({"dropped_rows": None}, ["does not name the file of its dropped rows"]),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_manifest_that_is_not_of_its_files_is_named(name: str, small_prepared: RunFolder) -> None:
    run = small_prepared
    changes, whats = PARTS[name]
    reseal(run.part_manifest(2), PartManifest, **changes)
    fix = made_again(run, run.part_manifest(2))
    assert found(run) == [("parts/part-00002.json", what, fix) for what in whats]


def test_a_part_manifest_of_another_file_is_named(small_prepared: RunFolder) -> None:
    """The plan has the file that is there."""
    path = small_prepared.part_manifest(0)
    reseal(path, PartManifest, extracted=lambda manifest: msgspec.structs.replace(manifest.extracted, bytes=9))
    what = "names a different file than the plan"
    assert found(small_prepared) == [("parts/part-00000.json", what, small_prepared.prepare_command)]


def test_dropped_rows_of_a_part_under_another_name_are_named(small_prepared: RunFolder) -> None:
    run = small_prepared
    copy = run.parts / "dropped-00009.parquet"
    shutil.copy(run.part_dropped(1), copy)
    reseal(run.part_manifest(1), PartManifest, dropped_rows=file_record(copy))
    what = "names a different file than its own"
    assert found(run) == [("parts/part-00001.json", what, made_again(run, run.part_manifest(1)))]


def test_without_a_plan_the_parts_numbers_are_still_compared(small_prepared: RunFolder) -> None:
    run = small_prepared
    run.plan.unlink()
    assert found(run) == []
    reseal(run.part_manifest(1), PartManifest, stop=49, tokens=1)  # the tokens are those of the rows, not read yet
    reseal(
        run.part_manifest(2), PartManifest, extracted=lambda m: msgspec.structs.replace(m.extracted, sha256="0" * 64)
    )
    run.part_manifest(3).unlink()
    data = run.part_data(2)
    assert found(run) == [
        ("parts/part-00001.json", "its stop is not that of its files", made_again(run, run.part_manifest(1))),
        ("parts/part-00001.json", NOT_ALL, made_again(run, run.part_manifest(1))),
        (
            "extracted_data.parquet/part-00002.parquet",
            f"{data}: its bytes are not those that were written (sha256 differs)",
            run.prepare_command,
        ),
    ]


@pytest.mark.parametrize("changes", [{"rows": 85}, {"rows_chosen": 83}])
def test_an_index_of_other_counts_is_found(changes: dict[str, int], small_prepared: RunFolder) -> None:
    """All parts were made for the index as it was."""
    run = small_prepared
    reseal(run.data_index, DataIndex, **changes)
    what = "all parts were made for another index"
    assert found(run)[0] == ("parts/index.json", what, made_again(run, run.data_index))
    assert [file for file, _, _ in found(run)] == ["parts/index.json", "plan.json"]


def test_a_part_of_another_index_is_found(small_prepared: RunFolder) -> None:
    run = small_prepared
    for part in (0, 3):
        reseal(run.part_manifest(part), PartManifest, index_sha256="0" * 64)
    wanted = [(f"parts/part-0000{part}.json", "belongs to another run", run.prepare_command) for part in (0, 3)]
    assert found(run) == wanted
    for part in (1, 2):
        reseal(run.part_manifest(part), PartManifest, index_sha256="0" * 64)
    what = "all parts were made for another index"
    assert found(run) == [("parts/index.json", what, made_again(run, run.data_index))]


def test_an_index_for_another_request_is_named(small_prepared: RunFolder) -> None:
    """The plan is for the run's request, so it is the index that is wrong."""
    run = small_prepared
    before = digest(read(run.data_index, DataIndex))
    index = reseal(run.data_index, DataIndex, request_sha256="0" * 64)
    for part in range(4):
        assert reseal(run.part_manifest(part), PartManifest, index_sha256=digest(index)).index_sha256 != before
    what = "was made for a different request"
    assert found(run) == [("parts/index.json", what, made_again(run, run.data_index))]


def preflight_of(run: RunFolder, request_sha256: str) -> Preflight:
    engine = read(run.shard_manifest(0), ShardManifest).engine
    return Preflight(format=FORMAT, request_sha256=request_sha256, engine=engine, job="1", host="n", start_seconds=1.0)


def test_other_documents_are_read_and_compared(small: RunFolder) -> None:
    run = small
    sha256 = digest(read(run.config, RunConfig).request)
    write(run.preflight, preflight_of(run, sha256))
    write(run.rejected, Rejected(format=FORMAT, shards={}))
    assert found(run) == []
    write(run.preflight, preflight_of(run, "0" * 64))
    run.rejected.write_bytes(b"{}")
    damaged = "its bytes are not those that were written (damaged, or edited by hand)"
    wanted = [
        ("preflight.json", "was made for a different request", f"rm {run.preflight}"),
        ("embeddings/rejected.json", f"{run.rejected}: {damaged}", f"rm {run.rejected}"),
    ]
    assert found(run) == wanted
    run.preflight.write_bytes(b"{}")
    assert found(run)[0] == ("preflight.json", f"{run.preflight}: {damaged}", f"rm {run.preflight}")
    for path in (run.preflight, run.rejected):
        path.unlink()
        path.mkdir()
    whats = {file: what for file, what, _ in found(run)}
    assert whats.keys() == {"preflight.json", "embeddings/rejected.json"}
    assert all("Is a directory" in what for what in whats.values())


def test_dropped_rows_that_are_not_the_parts_are_counted(small_prepared: RunFolder) -> None:
    run = small_prepared
    dropped = pl.read_parquet(run.dropped)
    dropped[1:].write_parquet(run.dropped)
    reseal(run.plan, Plan, dropped_rows=file_record(run.dropped))
    fix = made_again(run, run.plan)
    assert found(run) == [
        ("plan.json", "its counts differ from the files: 76 rows kept, 7 dropped", fix),
        ("plan.json", OF_DROPPED, fix),
    ]
