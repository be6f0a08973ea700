"""Names that come from data or from documents never become paths outside the run."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.check.verify import verify
from embedkit.data.source_folders import source_folders
from embedkit.documents.codec import decode_line, encode_line, read
from embedkit.documents.schema import JournalHeader, ShardManifest, Success
from embedkit.embed.journal import JOURNAL, journals
from embedkit.errors import EmbedkitError
from embedkit.merge.stage import merge
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, snapshot, write_chats
from tests.end_to_end.test_damage import edit

NASTY = [
    *("", ".", "..", "../..", "../../etc/passwd", "/etc/passwd", "a/../..", "~root", "-rf", "..\\..", "C:\\x"),
    *("nul\0byte", "line\nbreak", "\x1b[31m", "bidi\u202etxt", "zero\u200bwidth", "x" * 300, "é" * 150),
    *("Case", "case", "CASE", "é", "e\u0301", "CON", "nul", "aux.txt", "trailing.", "trailing ", " leading", ".hidden"),
    *("a/b", "a_b", "a b", "%2e%2e", "🙂", "$(touch x)", "*", "embeddings.safetensors", "metadata.parquet"),
]


@given(st.lists(st.sampled_from(NASTY) | st.text(st.characters(codec="utf-8"), max_size=300), max_size=30))
@settings(max_examples=200, deadline=None)
def test_sources_get_folders_of_their_own_below_one(sources: list[str]) -> None:
    folders = source_folders(sources)
    below = Path("/run/by_source")
    for name in folders.values():
        assert Path(os.path.normpath(below / name)).parent == below
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in name)
        assert len(name.encode()) <= 255
        assert not name.endswith((".", " "))
        assert name.split(".")[0].casefold() not in ("con", "nul", "aux", "prn", "com1", "lpt1")
    assert len({name.casefold() for name in folders.values()}) == len(set(sources))


def test_a_run_with_nasty_sources_stays_in_its_folder(tokenizer_only: Path, tmp_path: Path) -> None:
    data = write_chats(tmp_path / "d.parquet", [chat(f"{i}", "a") for i in range(len(NASTY))], list(NASTY))
    outside = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path), "--shards", 1)
    run = RunFolder(tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()} == outside
    success = read(run.success, Success)
    assert set(success.sources) == set(NASTY)
    assert sorted(path.name for path in run.by_source.iterdir()) == sorted(s.folder for s in success.sources.values())
    assert {path.name for path in run.by_source.rglob("*") if path.is_file()} == {
        "embeddings.safetensors",
        "metadata.parquet",
    }
    assert verify(run).ok


Edit = Callable[[dict[str, Any], str], object]

LED_OUT: dict[str, tuple[str, Edit]] = {
    "a part of the plan": ("plan", lambda plan, name: plan["parts"][0]["file"].update(name=name)),
    "the plan's dropped rows": ("plan", lambda plan, name: plan["dropped_rows"].update(name=name)),
    "a shard's file": ("shard", lambda manifest, name: manifest["matrices"]["combined"]["file"].update(name=name)),
    "a merged file": ("success", lambda success, name: success["files"][0].update(name=name)),
    "a source's folder": ("success", lambda success, name: success["sources"]["a/b"].update(folder=name)),
}


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "..", "x/../../y"])
@pytest.mark.parametrize("what", LED_OUT)
def test_a_name_that_leads_out_of_the_run_is_refused(what: str, name: str, damaged_run: RunFolder) -> None:
    document, change = LED_OUT[what]
    path = {"plan": damaged_run.plan, "shard": damaged_run.shard_manifest(1), "success": damaged_run.success}[document]
    content = json.loads(path.read_bytes())
    change(content, name)
    edit(path, **content)
    problems = verify(damaged_run).problems
    assert any(f"'{name}' is a f" in p.what and "outside" in p.what for p in problems), problems
    if document != "success":
        with pytest.raises(EmbedkitError, match="is a file outside its folder"):
            merge(damaged_run)


@pytest.mark.parametrize("attempt", ["*", "../*", "../../../x", "/x"])
def test_an_attempts_name_in_a_journal_removes_nothing_else(attempt: str, damaged_run: RunFolder) -> None:
    """Files of useless attempts are removed by the name in their journal."""
    before = snapshot(damaged_run)
    folder = damaged_run.shard(1)
    manifest = read(damaged_run.shard_manifest(1), ShardManifest)
    journal = folder / f"{manifest.attempt}{JOURNAL}"
    header, _, rest = journal.read_bytes().partition(b"\n")
    edited = msgspec.structs.replace(
        decode_line(header + b"\n", JournalHeader, journal), attempt=attempt, plan_sha256="0" * 64, started=0.0
    )
    (folder / f"old{JOURNAL}").write_bytes(encode_line(edited) + rest)
    assert [found.header.attempt for found in journals(folder)] == [manifest.attempt]
    damaged_run.shard_manifest(1).unlink()
    embedkit("embed", damaged_run.path)
    assert read(damaged_run.shard_manifest(1), ShardManifest).chunks_adopted == len(manifest.chunks)
    merge(damaged_run)
    assert snapshot(damaged_run) == before
    assert verify(damaged_run).ok


ASCII_STREAM = {"PYTHONIOENCODING": "ascii"}
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.slow  # every command is a new interpreter
def test_an_ascii_locale_ends_no_command_in_a_traceback(tokenizer_only: Path, tmp_path: Path) -> None:
    """Sources, run and rows in UTF-8: the files have UTF-8 names, and no command that did its work fails."""
    data = write_chats(tmp_path / "é.parquet", [chat(f"ü {i}", f"漢 {i}") for i in range(20)], ["漢", "zzz é"] * 10)
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path, "rün"), "--shards", 1, **ASCII_LOCALE)
    run = RunFolder(tmp_path / "rün")
    assert sorted(path.name for path in run.by_source.iterdir()) == ["zzz_é", "漢"]
    run.success.unlink()
    assert "rows kept" in embedkit("merge", run.path, **ASCII_STREAM).stdout
    shown = embedkit("neighbors", run.path, "--row", 3, **ASCII_STREAM).stdout
    assert "漢" in shown or r"\u6f22" in shown
    assert json.loads(embedkit("verify", run.path, "--json", **ASCII_STREAM).stdout)["run"] == str(run.path)
