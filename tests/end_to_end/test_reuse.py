"""Runs that copy vectors of an earlier run: they end as runs from scratch do, and every damage is named."""

import json
import random
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from msgspec import structs

from embedkit.check.verify import verify
from embedkit.documents.codec import read, write
from embedkit.documents.matrix_file import matrix_header
from embedkit.documents.schema import DataIndex, Plan, RunConfig, ShardManifest, View
from embedkit.run import RunFolder
from tests.conftest import chat, embedkit, hash_request, snapshot, write_chats
from tests.support.signalled import killed

VIEWS: list[object] = ["--view", "combined", "--view", "think"]
NAMES: tuple[View, ...] = ("combined", "think")
ROWS = 600


def row(i: int, answer: str = "stone") -> list[dict[str, str]]:
    """A chat whose texts no other number has; every third has no reasoning."""
    think = f"<think>{i} lamp</think>" if i % 3 else ""
    return chat(f"{i} river π", f"{think}{i} {answer} " * (1 + i % 4))


NOTHING = "the run has row keys already: nothing to do"
OLD = [row(i) for i in range(ROWS)]


def new_rows() -> list[Any]:
    """The earlier rows in a different order: 6 removed, 6 changed in their answer, 12 added."""
    rows: list[Any] = [row(i, "pebble" if i % 100 == 50 else "stone") for i in range(ROWS) if i % 100 != 7]
    rows += [row(i) for i in range(ROWS, ROWS + 12)]
    random.Random(1).shuffle(rows)
    return rows


def write_data(path: Path, rows: list[Any]) -> Path:
    return write_chats(path, rows, ["ab"[len(chat[0]["content"]) % 2] for chat in rows])


@pytest.fixture(scope="module")
def folder(tokenizer_only: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with old.parquet and new.parquet, and a finished run of each: `old`, `scratch`. Read only."""
    folder = tmp_path_factory.mktemp("reuse")
    for name, data, rows in (("old", "old", OLD), ("scratch", "new", new_rows())):
        path = write_data(folder / f"{data}.parquet", rows)
        embedkit("run", *hash_request(path, tokenizer_only, folder, name), *VIEWS)
    return folder


@pytest.fixture
def old(folder: Path, tmp_path: Path) -> RunFolder:
    """A copy of the earlier run, to be damaged."""
    shutil.copytree(folder / "old", tmp_path / "old")
    return RunFolder(tmp_path / "old")


def request(folder: Path, model: Path, output: Path, *more: object) -> list[object]:
    return [*hash_request(folder / "new.parquet", model, output), *VIEWS, *more]


def merged(run: RunFolder) -> dict[str, bytes]:
    """The merged files and the rows: all that must be as in a run from scratch."""
    files = snapshot(run, *NAMES)
    del files["plan.json"]
    return files


def manifests(run: RunFolder) -> list[ShardManifest]:
    return [read(path, ShardManifest) for path in sorted(run.embeddings.glob("shards/*/manifest.json"))]


def flip(path: Path, row: int, dim: int = 64) -> None:
    """Change a bit of a row of a matrix file."""
    header = len(matrix_header(0, dim))
    with path.open("r+b") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
        file.seek(header + row * dim * 4 + 5)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))


def test_reuse_gives_the_files_of_a_run_from_scratch(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """Rows in another order, some gone, changed and new; shards cut for what is left."""
    embedkit("run", *request(folder, tokenizer_only, tmp_path, "--reuse", folder / "old", "--shards", 4))
    run = RunFolder(tmp_path / "run")
    assert merged(run) == merged(RunFolder(folder / "scratch"))
    plan = read(run.plan, Plan)
    new = {f"{i} " for i in (*range(50, ROWS, 100), *range(ROWS, ROWS + 12))}
    metadata = pl.read_parquet(run.metadata)
    is_new = pl.col("user_prompt").str.extract(r"^(\d+ )").is_in(list(new))
    counts = metadata.filter(is_new).select("num_tokens", "num_tokens_think").sum()
    # A changed answer leaves the reasoning as it was.
    changed = metadata.filter(is_new & pl.col("user_prompt").str.extract(r"^(\d+)").cast(pl.Int64).lt(ROWS))
    wanted = sum(counts.row(0)) - changed["num_tokens_think"].sum()
    assert plan.tokens_to_embed == wanted == sum(manifest.tokens for manifest in manifests(run))
    assert plan.tokens == metadata["num_tokens"].sum() + metadata["num_tokens_think"].sum()
    cost = [shard.cost_seconds for shard in plan.shards]
    assert max(cost) < 1.5 * min(cost)
    report = verify(run)
    assert report.ok, report.problems
    assert report.copied == sum(shard.copied for shard in plan.shards) > 900


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [("--max-length", 40, "--shards", 1), ("--sample-size", 100), ("--view", "response")],
    ids=["limit and shards", "sample", "views"],
)
def test_a_different_request_reuses_what_it_has(
    more: tuple[object, ...], folder: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Another limit, sample, views: each equals its run from scratch."""
    asked = [*hash_request(folder / "new.parquet", tokenizer_only, tmp_path)]
    if "--sample-size" in more:
        asked.remove("--full")
    embedkit("run", *asked, *VIEWS, *more)
    embedkit("run", *asked, *VIEWS, *more, "--run-name", "reused", "--reuse", folder / "old")
    run = RunFolder(tmp_path / "reused")
    views: tuple[View, ...] = (*NAMES, "response") if "response" in more else NAMES
    one, other = snapshot(run, *views), snapshot(RunFolder(tmp_path / "run"), *views)
    assert one.pop("plan.json") != other.pop("plan.json")
    assert one == other
    assert read(run.plan, Plan).tokens_copied > 0


def test_update_says_which_rows_changed_and_what_to_type(folder: Path, tmp_path: Path) -> None:
    """All settings are those of the earlier run. Typed again, it goes on; nothing is embedded by it."""
    shutil.copytree(folder / "old", tmp_path / "old")
    asked = ("update", "old", "--output-dir", tmp_path, "--dataset", folder / "new.parquet", "--run-name", "next")
    said = embedkit(*asked, "--shards", 2).stdout
    assert "since old: 588 rows kept, 6 changed, 12 added, 6 removed\n" in said
    run = RunFolder(tmp_path / "next")
    plan = read(run.plan, Plan)
    share = 100 * plan.tokens_copied / plan.tokens
    assert f"{plan.tokens_to_embed:,} of {plan.tokens:,} tokens to embed; {share:.1f} % copied from old\n" in said
    next_command = re.search(r"Next: embedkit (.*)\n", said)
    assert next_command
    assert not run.embeddings.exists()
    again = embedkit("update", *asked[1:], "--shards", 2, new_interpreter=True).stdout
    assert again.endswith(said[said.index("since old") :])
    refused = embedkit(*asked, "--shards", 3, code=2).stderr
    assert "shards  2  ->  3" in refused
    assert "type the command that made it, with --overwrite" in refused
    embedkit(*asked, "--shards", 3, "--overwrite")
    assert len(read(run.plan, Plan).shards) == 3
    embedkit(*shlex.split(next_command[1]))
    assert merged(run) == merged(RunFolder(folder / "scratch"))
    assert read(run.config, RunConfig).request.views == NAMES


def test_update_typed_again_records_what_was_moved(old: RunFolder, folder: Path, tmp_path: Path) -> None:
    """The data, the earlier run and the new one have other places now; the requests are the same."""
    before, moved = tmp_path / "before", tmp_path / "moved"
    before.mkdir()
    old.path.rename(before / "old")
    shutil.copy(folder / "new.parquet", before)
    embedkit("update", before / "old", "--dataset", before / "new.parquet", "--run-name", "next")
    before.rename(moved)
    embedkit("update", moved / "old", "--dataset", moved / "new.parquet", "--run-name", "next")
    where = read(RunFolder(moved / "next").config, RunConfig).locations
    assert (where.reuse, where.data) == ((str(moved / "old"),), (str(moved / "new.parquet"),))
    embedkit("run", "--resume", "--run-name", "next", "--output-dir", moved)
    assert merged(RunFolder(moved / "next")) == merged(RunFolder(folder / "scratch"))


def test_update_of_a_run_whose_model_was_moved(
    old: RunFolder, folder: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """The error names --model, which takes the new place, and refuses a model with other files."""
    config = read(old.config, RunConfig)
    write(old.config, structs.replace(config, locations=structs.replace(config.locations, model="/gone")))
    asked = ("update", old.path, "--dataset", folder / "new.parquet", "--run-name", "next")
    assert "embedkit: --model /gone: no such folder with a model's files" in embedkit(*asked, code=2).stderr
    other = shutil.copytree(tokenizer_only, tmp_path / "other")
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    refused = embedkit(*asked, "--model", other, code=2).stderr
    assert "--reuse old: its model is not this one (there -> here):\n  model file  tokenizer.json" in refused
    assert not (tmp_path / "next").exists()
    assert "since old: 588 rows kept" in embedkit(*asked, "--model", tokenizer_only).stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../next", "--run-name '../next': a run's name is one folder name"),
        ("old", "--run-name old: this is RUN itself; the new run needs a name of its own"),
    ],
)
def test_update_refuses_a_name_that_is_none(name: str, said: str, folder: Path) -> None:
    asked = ("update", folder / "old", "--dataset", folder / "new.parquet", "--run-name", name, "--overwrite")
    assert said in embedkit(*asked, code=2).stderr
    assert (folder / "old" / "run_config.json").exists()
    assert not (folder.parent / "next").exists()


def test_update_of_files_needs_the_new_ones(folder: Path) -> None:
    asked = ("update", "old", "--output-dir", folder, "--run-name", "next")
    assert "--dataset is needed: the run's data are files, so name the new ones" in embedkit(*asked, code=2).stderr
    assert not (folder / "next").exists()


def test_only_canaries_are_embedded_if_nothing_changed(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    data = folder / "old.parquet"
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path), *VIEWS, "--reuse", folder / "old")
    run = RunFolder(tmp_path / "run")
    assert [(m.tokens, all(chunk.tokens == 0 for chunk in m.chunks)) for m in manifests(run)] == [(0, True)] * 3
    assert merged(run) == merged(RunFolder(folder / "old"))
    shown = json.loads(embedkit("status", run.path, "--json").stdout)
    assert (shown["stage"], shown["tokens"]) == ("done", 0)
    assert verify(run, reembed=4).ok


@pytest.mark.slow
def test_kills_lose_nothing_of_a_run_that_reuses(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """In prepare, when the tables of the earlier run are there, and in embed, between copied chunks."""
    asked = request(folder, tokenizer_only, tmp_path, "--reuse", folder / "old", "--shards", 1)
    run = RunFolder(tmp_path / "run")
    steps = (1, 3, 6, 9, 12, 16)
    assert sum(killed("prepare", *asked, "--resume", "--workers", 1, at=at) for at in steps) >= 4
    embedkit("prepare", *asked, "--resume")
    assert not run.lookups.exists()
    assert sum(killed("embed", run.path, at=at) for at in (1, 4, 7, 10)) >= 3
    embedkit("run", *asked, "--resume")
    assert merged(run) == merged(RunFolder(folder / "scratch"))
    assert verify(run).ok


@pytest.mark.slow
def test_several_runs_are_reused_in_the_order_typed(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """The first has few rows; what it lacks comes from the second."""
    few = write_data(tmp_path / "few.parquet", OLD[:30])
    embedkit("run", *hash_request(few, tokenizer_only, tmp_path, "few"), *VIEWS)
    reuse = ["--reuse", tmp_path / "few", "--reuse", folder / "old"]
    embedkit("run", *request(folder, tokenizer_only, tmp_path, *reuse))
    run = RunFolder(tmp_path / "run")
    assert merged(run) == merged(RunFolder(folder / "scratch"))
    config = read(run.config, RunConfig)
    assert config.locations.reused_names == ("few", "old")
    reused = config.request.reuse
    copied: dict[str, int] = {}
    for manifest in manifests(run):
        for digest, views in manifest.copied.items():
            copied[digest] = copied.get(digest, 0) + views["combined"]
    # Of the first 30 rows, number 7 is gone; number 50 is not among them.
    assert copied == {reused[0].success_sha256: 29, reused[1].success_sha256: ROWS - 6 - 6 - 29}


def test_a_byte_changed_in_the_earlier_run_is_named(
    old: RunFolder, folder: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """Before prepare its matrix is named, after it the vector, and after the merge verify names both."""
    asked = request(folder, tokenizer_only, tmp_path, "--reuse", old.path)
    matrix = old.view_matrix("combined")
    flip(matrix, 0)
    refused = embedkit("prepare", *asked, code=1).stderr
    assert f"{matrix}: its bytes are not those that were written" in refused
    assert not RunFolder(tmp_path / "run").lookups.exists()
    flip(matrix, 0)
    embedkit("prepare", *asked, "--resume")
    flip(matrix, 0)
    run = RunFolder(tmp_path / "run")
    refused = embedkit("embed", run.path, code=1).stderr
    assert f"{matrix}: the vector of id 0 changed since this run was prepared" in refused
    assert f"verify {old.path}" in refused
    flip(matrix, 0)
    embedkit("run", *asked, "--resume")
    flip(matrix, 3)
    (problem,) = verify(run).problems
    assert problem.file == str(matrix)
    assert problem.what.startswith("the vector of id 3 changed since it was copied to id ")


def test_a_byte_changed_in_a_copy_is_named(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    """By the digest of its chunk; and, if a wrong copy were sealed, by the key of the vector."""
    embedkit("run", *request(folder, tokenizer_only, tmp_path, "--reuse", folder / "old"))
    run = RunFolder(tmp_path / "run")
    copies = run.part_copies(0)
    data = bytearray(copies.read_bytes())
    data[-1] ^= 1
    copies.write_bytes(data)
    found = [problem.file for problem in verify(run).problems]
    assert "parts/copies-00000.safetensors" in found
    embedkit("prepare", "--resume", "--run-name", "run", "--output-dir", tmp_path)
    assert verify(run).ok


@pytest.mark.slow
def test_the_earlier_run_may_go_once_the_new_one_is_done(
    old: RunFolder, folder: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    asked = request(folder, tokenizer_only, tmp_path)
    embedkit("prepare", *asked, "--reuse", old.path)
    moved = old.path.rename(tmp_path / "moved")
    refused = embedkit("run", *asked, "--resume", code=1).stderr
    assert f"{old.path}: the run to reuse is missing. If it was moved, name its place with --reuse" in refused
    embedkit("run", *asked, "--resume", "--reuse", moved)
    shutil.rmtree(moved)
    run = RunFolder(tmp_path / "run")
    assert verify(run).ok
    embedkit("run", "--resume", "--run-name", "run", "--output-dir", tmp_path)
    assert merged(run) == merged(RunFolder(folder / "scratch"))


@pytest.mark.slow
def test_a_repaired_run_is_reused_and_one_with_other_rows_is_not(
    old: RunFolder, folder: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """By the commands that are printed. A shard that is embedded again has the same vectors, and so has the merge."""
    asked = request(folder, tokenizer_only, tmp_path)
    embedkit("prepare", *asked, "--reuse", old.path)
    flip(old.view_matrix("combined"), 0)
    old.shard_manifest(1).unlink()
    embedkit("embed", tmp_path / "run", code=1)
    old.success.unlink()
    refused = embedkit("embed", tmp_path / "run", code=1).stderr
    assert f"{old.path}: the run to reuse is not merged; finish it first: " in refused
    embedkit("run", "--resume", "--run-name", "old", "--output-dir", tmp_path)
    embedkit("embed", tmp_path / "run")
    data = write_data(tmp_path / "other.parquet", OLD[:50])
    embedkit("run", *hash_request(data, tokenizer_only, tmp_path, "old"), *VIEWS, "--overwrite")
    shutil.rmtree(tmp_path / "run" / "embeddings")
    refused = embedkit("embed", tmp_path / "run", code=1).stderr
    assert f"{old.success}: not the one that this run was to reuse: it has other rows or vectors now" in refused


def test_engines_are_decided_with_the_reused_run(folder: Path) -> None:
    asked = ("prepare", "--resume", "--run-name", "scratch", "--output-dir", folder, "--reuse-across-engines")
    assert "--reuse-across-engines needs --reuse: the engines of a" in embedkit(*asked, code=2).stderr


def test_overwrite_does_not_delete_the_reused_run(old: RunFolder, folder: Path, tokenizer_only: Path) -> None:
    before = old.success.read_bytes()
    asked = hash_request(folder / "new.parquet", tokenizer_only, old.path.parent, "old")
    refused = embedkit("run", *asked, *VIEWS, "--reuse", old.path, "--overwrite", code=2).stderr
    assert f"--overwrite would delete {old.path}, which --reuse names; choose a new --run-name" in refused
    assert old.success.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--engine", "transformers"), "--reuse old: its engine is hash, here it is transformers; type --engine hash"),
        (("--view", "response"), "--reuse old: it has no view of this run; it has combined, think"),
    ],
    ids=["engine", "view"],
)
def test_what_cannot_be_reused_is_refused(
    more: tuple[object, ...], said: str, folder: Path, tiny_qwen: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    model = tiny_qwen if "transformers" in more else tokenizer_only
    if model == tiny_qwen:
        embedkit("run", *hash_request(folder / "old.parquet", model, tmp_path, "old"), *VIEWS)
    reuse = tmp_path / "old" if model == tiny_qwen else folder / "old"
    asked = hash_request(folder / "new.parquet", model, tmp_path)
    assert said in embedkit("prepare", *asked, *more, "--reuse", reuse, code=2).stderr
    assert not (tmp_path / "run").exists()


def test_a_different_model_is_refused_by_its_files(folder: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    asked = hash_request(folder / "new.parquet", tiny_qwen, tmp_path)
    refused = embedkit("prepare", *asked, "--reuse", folder / "old", code=2).stderr
    assert "--reuse old: its model is not this one (there -> here):" in refused
    assert "model.safetensors" in refused


def without_keys(folder: Path, data: Path, model: Path) -> RunFolder:
    """A finished run as earlier versions made it: prepare keeps the index that it finds, which has no row keys."""
    embedkit("prepare", *hash_request(data, model, folder, "keyless"), *VIEWS)
    run = RunFolder(folder / "keyless")
    index = read(run.data_index, DataIndex)
    for made in (run.parts, run.extracted):
        shutil.rmtree(made)
    run.plan.unlink()
    run.parts.mkdir()
    write(run.data_index, structs.replace(index, row_keys=False))
    embedkit("run", "--resume", "--run-name", "keyless", "--output-dir", folder)
    assert not list(run.parts.glob("keys*"))
    return run


@pytest.mark.slow
def test_index_adds_the_keys_that_prepare_would_have_made(folder: Path, tokenizer_only: Path, tmp_path: Path) -> None:
    run = without_keys(tmp_path, folder / "old.parquet", tokenizer_only)
    refused = embedkit("prepare", *request(folder, tokenizer_only, tmp_path, "--reuse", run.path), code=1).stderr
    assert f"{run.path}: it has no row keys yet: an earlier version made it. Type " in refused
    assert f"index {run.path}" in refused
    assert f"{ROWS} rows have keys now" in embedkit("index", run.path).stdout
    assert run.part_keys(0).read_bytes() == RunFolder(folder / "old").part_keys(0).read_bytes()
    assert NOTHING in embedkit("index", folder / "old", new_interpreter=True).stdout
    embedkit("run", *request(folder, tokenizer_only, tmp_path, "--reuse", run.path))
    assert merged(RunFolder(tmp_path / "run")) == merged(RunFolder(folder / "scratch"))
    assert verify(run).ok


@pytest.mark.slow
def test_index_makes_only_damaged_keys_again(tokenizer_only: Path, tmp_path: Path) -> None:
    """Two parts of 4096 and 904 rows, whose border lies within a chunk."""
    data = write_data(tmp_path / "data.parquet", [row(i) for i in range(5000)])
    run = without_keys(tmp_path, data, tokenizer_only)
    assert "5,000 rows have keys now" in embedkit("index", run.path).stdout
    first, second = run.part_keys(0), run.part_keys(1)
    made = [path.read_bytes() for path in (first, second, run.key_index)]
    embedkit("prepare", *hash_request(data, tokenizer_only, tmp_path, "with keys"), *VIEWS)
    assert made[:2] == [RunFolder(tmp_path / "with keys").part_keys(part).read_bytes() for part in (0, 1)]
    assert NOTHING in embedkit("index", run.path).stdout
    flip(second, 3, dim=1)
    before = first.stat().st_mtime_ns
    done = embedkit("index", run.path)
    assert f"made again: {second}: its bytes are not those that were written" in done.stderr
    assert "904 rows have keys now" in done.stdout
    assert first.stat().st_mtime_ns == before
    first.unlink()
    assert "4,096 rows have keys now" in embedkit("index", run.path).stdout
    run.key_index.write_bytes(b"{}")
    assert "5,000 rows have keys now" in embedkit("index", run.path).stdout
    assert [path.read_bytes() for path in (first, second, run.key_index)] == made
    assert NOTHING in embedkit("index", run.path).stdout


def test_index_names_what_makes_keys_of_prepare_again(old: RunFolder) -> None:
    flip(old.part_keys(0), 3, dim=1)
    refused = embedkit("index", old.path, code=1).stderr
    assert (
        f"{old.part_keys(0)}: its bytes are not those that were written (sha256 differs); to make it again: " in refused
    )
    embedkit("prepare", "--resume", "--run-name", "old", "--output-dir", old.path.parent)
    assert NOTHING in embedkit("index", old.path).stdout


@pytest.mark.slow
@pytest.mark.parametrize("lost", [(), ("plan.json",)], ids=["index", "index and plan"])
def test_a_lost_index_of_an_earlier_version_is_made_again(
    lost: tuple[str, ...], folder: Path, tokenizer_only: Path, tmp_path: Path
) -> None:
    """As it was, without row keys: no part and no shard is made again."""
    run = without_keys(tmp_path, folder / "old.parquet", tokenizer_only)
    index = run.data_index.read_bytes()
    before = {path: path.stat().st_mtime_ns for path in sorted(run.embeddings.rglob("*.safetensors"))}
    for path in (run.data_index, *(run.path / name for name in lost)):
        path.unlink()
    embedkit("run", "--resume", "--run-name", "keyless", "--output-dir", tmp_path)
    assert run.data_index.read_bytes() == index
    assert {path: path.stat().st_mtime_ns for path in sorted(run.embeddings.rglob("*.safetensors"))} == before
    assert verify(run).ok


def test_keys_take_less_than_a_twentieth_of_the_vectors(demo_chats: Path, minilm: Path, tmp_path: Path) -> None:
    """With 384 numbers per vector, and at least a few hundred rows."""
    asked = ("--engine", "hash", "--sample-size", 4, "--shards", 1, "--run-name", "run", "--output-dir", tmp_path)
    embedkit("prepare", "--dataset", demo_chats, "--model", minilm, *asked)
    run = RunFolder(tmp_path / "run")
    size = sum(path.stat().st_size for path in run.parts.glob("keys-*"))
    assert size < 0.05 * read(run.plan, Plan).rows_kept * 384 * np.dtype(np.float32).itemsize
