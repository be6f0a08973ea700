"""`embedkit report` on real local runs: the text has the numbers of the JSON."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from embedkit.documents.codec import read
from embedkit.documents.schema import ShardManifest
from embedkit.duration import duration
from embedkit.run import RunFolder
from embedkit.storage.atomic import sha256_file
from jobs.report.schema import Report
from jobs.units import number
from tests.conftest import embedkit


def report_of(run: RunFolder, *more: object, **environment: str) -> Report:
    """The report, from its JSON."""
    return msgspec.json.decode(embedkit("report", run.path, "--json", *more, **environment).stdout, type=Report)


def table(printed: str, first: str) -> list[dict[str, str]]:
    """The rows of the printed table whose first column has that name; columns are two spaces apart."""
    lines = printed.splitlines()
    at = next(at for at, line in enumerate(lines) if re.match(rf"{first}  ", line))
    names = re.split(r"\s{2,}", lines[at].strip())
    rows = []
    for line in lines[at + 1 :]:
        cells = re.split(r"\s{2,}", line.strip())
        if len(cells) != len(names):
            break
        rows.append(dict(zip(names, cells, strict=True)))
    return rows


def test_a_local_run_is_reported_from_its_manifests(hash_run: RunFolder) -> None:
    report = report_of(hash_run)
    manifests = [read(hash_run.shard_manifest(shard), ShardManifest) for shard in range(3)]
    assert report.merged
    assert (report.unit, report.accounting, report.shards_finished) == ("worker", "none", 3)
    assert report.tokens == report.tokens_done == sum(manifest.tokens for manifest in manifests)
    for shard, manifest in zip(report.shards, manifests, strict=True):
        assert (shard.state, shard.attempts, shard.chunks_adopted) == ("finished", 1, 0)
        assert shard.wall_seconds == pytest.approx(sum(manifest.seconds.values()))
        assert shard.embedded_seconds == pytest.approx(sum(chunk.seconds for chunk in manifest.chunks))
        assert shard.seconds == manifest.seconds
        assert (shard.predicted_seconds, shard.queue_seconds, shard.memory_peak, shard.cpus_used) == (None,) * 4
    merge = report.stages[-1]
    assert merge.seconds == json.loads(hash_run.success.read_bytes())["timings"]
    assert merge.wall_seconds == pytest.approx(sum(merge.seconds.values()), abs=0.01)
    assert any("without Slurm" in note for note in report.notes)


def test_a_copy_with_other_times_of_files_has_the_same_report(hash_run: RunFolder, tmp_path: Path) -> None:
    """Of a finished run, and of one that was killed in the middle."""
    copies = [tmp_path / name for name in ("one", "two")]
    for at, copy in enumerate(copies):
        shutil.copytree(hash_run.path, copy / "run", copy_function=shutil.copy)
        for path in copy.rglob("*"):
            os.utime(path, (1.7e9 + 1000 * at * len(path.name),) * 2)
    one, two = (report_of(RunFolder(copy / "run")) for copy in copies)
    assert one == msgspec.structs.replace(two, run=one.run, made=one.made)
    assert one.elapsed_seconds is not None
    assert all(stage.elapsed_seconds is not None for stage in one.stages)
    for copy in copies:
        run = RunFolder(copy / "run")
        run.shard_manifest(1).unlink()
        shutil.rmtree(run.shard(2))
        run.success.unlink()
    one, two = (report_of(RunFolder(copy / "run")) for copy in copies)
    now = {"made": one.made, "elapsed_seconds": one.elapsed_seconds}
    assert one == msgspec.structs.replace(two, run=one.run, **now)
    assert one.attempts


def test_the_text_says_what_json_says(hash_run: RunFolder) -> None:
    report = report_of(hash_run)
    printed = embedkit("report", hash_run.path, new_interpreter=True).stdout
    rows = table(printed, "shard")
    assert len(rows) == 3
    for row, shard in zip(rows, report.shards, strict=True):
        assert row["wall"] == row["worker time"] == duration(shard.wall_seconds)
        assert row["embedded"] == duration(shard.embedded_seconds)
        assert row["tokens/s"] == number(shard.tokens_per_second)
        assert row["predicted"] == row["queued"] == row["CPUs"] == row["memory"] == "-"
    assert [row["stage"] for row in table(printed, "stage")] == ["prepare", "embed", "merge"]
    assert "merged; 3 of 3 shards finished" in printed


def test_the_page_is_written_and_the_run_is_left_as_it_was(hash_run: RunFolder, tmp_path: Path) -> None:
    before = {path: sha256_file(path) for path in hash_run.path.rglob("*") if path.is_file()}
    embedkit("report", hash_run.path, "--html", tmp_path / "r.html")
    root = ElementTree.parse(tmp_path / "r.html").getroot()
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/1999/xhtml}title")]
    assert [sum(f"{what}: finished\njob local on" in title for title in titles) for what in ("shard 1", "merge")] == [
        1,
        1,
    ]
    assert {path: sha256_file(path) for path in hash_run.path.rglob("*") if path.is_file()} == before


def test_missing_folder_is_named_and_nothing_is_written(hash_run: RunFolder, tmp_path: Path) -> None:
    refused = embedkit("report", hash_run.path, "--html", tmp_path / "no" / "r.html", check=False)
    assert refused.returncode == 2
    assert f"there is no folder {tmp_path}/no" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_requested_or_prepared_run_has_a_report(prepared_run: RunFolder, tmp_path: Path) -> None:
    report = report_of(prepared_run)
    assert (report.merged, report.shards_finished, report.ended) == (False, 0, None)
    assert [(shard.state, shard.attempts, shard.wall_seconds) for shard in report.shards] == [
        ("unfinished", 0, None)
    ] * 3
    prepared_run.plan.unlink()
    shutil.rmtree(prepared_run.logs)
    assert report_of(prepared_run).shards == ()
    embedkit("report", prepared_run.path, "--html", tmp_path / "r.html")
    assert "not prepared yet" in (tmp_path / "r.html").read_text()
    assert "not prepared yet" in embedkit("report", prepared_run.path).stdout


def test_what_a_killed_local_attempt_left_is_counted(damaged_run: RunFolder) -> None:
    """As a kill leaves it: a journal with some chunks, and no manifest."""
    manifest = read(damaged_run.shard_manifest(1), ShardManifest)
    damaged_run.shard_manifest(1).unlink()
    journal = damaged_run.shard(1) / f"{manifest.attempt}.journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    report = report_of(damaged_run)
    shard = report.shards[1]
    assert (shard.state, shard.chunks_done, shard.tokens_done) == (
        *("unfinished", 3),
        sum(chunk.tokens for chunk in manifest.chunks[:3]),
    )
    (attempt,) = [attempt for attempt in report.attempts if attempt.shard == 1]
    assert (attempt.outcome, attempt.ended_at_least) == ("unknown", True)


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\xfe{"])
def test_a_damaged_manifest_or_line_spoils_no_report(damaged_run: RunFolder, damage: bytes) -> None:
    damaged_run.shard_manifest(0).write_bytes(damage)
    damaged_run.success.write_bytes(damage)
    (damaged_run.logs / "embed-00002.attempts.jsonl").write_bytes(damage)
    report = report_of(damaged_run)
    assert [shard.state for shard in report.shards] == ["unfinished", "finished", "finished"]
    assert not report.merged


def test_a_manifest_of_another_plan_does_not_count(damaged_run: RunFolder) -> None:
    shutil.copy(damaged_run.shard_manifest(0), damaged_run.shard_manifest(1))
    assert [shard.state for shard in report_of(damaged_run).shards] == ["finished", "unfinished", "finished"]


def test_all_shards_are_printed_when_asked_for(tmp_path: Path) -> None:
    from rich.console import Console

    from jobs.report.text import print_run_report
    from tests.jobs.report.test_page import history

    report = history(100, 2)
    output: dict[bool, str] = {}
    for everything in (False, True):
        with (tmp_path / "output").open("w") as file:
            print_run_report(report, Console(file=file), everything)
        output[everything] = (tmp_path / "output").read_text()
    assert len(output[False].splitlines()) < 60
    assert "median of" in output[False]
    shards: list[Any] = table(output[True], "shard")
    assert [row["shard"] for row in shards] == [str(shard) for shard in range(100)]


def test_a_count_of_attempts_without_a_cause_has_no_colon(tmp_path: Path) -> None:
    from rich.console import Console

    from jobs.report.text import print_run_report
    from tests.jobs.report.test_page import history

    with (tmp_path / "output").open("w") as file:
        print_run_report(history(3, 2, why=""), Console(file=file))
    assert "\n3 failed, 5.1 min\n" in (tmp_path / "output").read_text()
