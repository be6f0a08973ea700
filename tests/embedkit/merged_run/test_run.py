"""A merged run opened by `embedkit.open_run`, compared with its files as polars and safetensors read them."""

import pickle
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import embedkit
from embedkit.analysis.merged import open_merged
from embedkit.documents.matrix_file import matrix_header
from embedkit.embed import embed_shards
from embedkit.errors import EmbedkitError, UsageError
from embedkit.merge import merge
from embedkit.merged_run import MergedRun
from embedkit.prepare import prepare
from embedkit.request import Options, create_run, make_config
from embedkit.run import RunFolder
from tests.conftest import chat, made_once, write_chats
from tests.support.checkout import python_path
from tests.support.models import make_tokenizer

ODD = "größe / <b>&'\""
CHATS = [
    chat("What is a river?", "<think>Water flows.</think>A stream of water."),
    [{"role": "user", "content": "no answer"}],
    chat("Name a colour.", "Blue."),
    chat("long " * 300, "long"),
    chat("Say nothing.", "<think>Nothing.</think>"),
    chat("漢字?", "Han."),
    chat(" ", "\n"),
]
SOURCES = ["..", "..", ODD, ODD, ODD, "..", ".."]
KEPT = [0, 2, 4, 5, 6]


def make_odd_run(folder: Path, texts: str = "all") -> RunFolder:
    """Seven chats, two of them dropped, of two sources with odd names, in two shards and three views."""
    folder.mkdir(exist_ok=True)
    data = write_chats(folder / "chats.parquet", CHATS, SOURCES)  # type: ignore[arg-type]
    make_tokenizer(folder / "model")
    options = Options(
        dataset=(str(data),),
        model=str(folder / "model"),
        engine="hash",
        max_length=256,
        views=("combined", "response", "ask"),
        templates={"ask": "{user_prompt} ({dataset_source})"},
        sample_size=None,
        shards=2,
        texts=texts,  # type: ignore[arg-type]
    )
    run = RunFolder(folder / "run")
    create_run(run, make_config(options, ["embedkit", "run"]))
    prepare(run, workers=1)
    embed_shards(run, [0, 1])
    merge(run)
    return run


def make_odd_runs(folder: Path) -> None:
    make_odd_run(folder / "all")
    make_odd_run(folder / "none", "none")


@pytest.fixture(scope="session", params=["all", "none"])
def odd_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of seven chats with `--texts all` and with `--texts none`. Read only."""
    return RunFolder(made_once(tmp_path_factory, "odd-runs", make_odd_runs) / request.param / "run")


def test_importing_embedkit_imports_nothing_heavy() -> None:
    code = (
        "import sys, embedkit; assert callable(embedkit.open_run) and 'open_run' in dir(embedkit);"
        "print([name for name in ('polars', 'numpy', 'pyarrow', 'torch', 'msgspec') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=True, text=True, capture_output=True, env=python_path()).stdout == "[]\n"


def test_rows_and_vectors_are_those_of_the_files(hash_run: RunFolder) -> None:
    run = embedkit.open_run(hash_run.path)
    metadata = pl.read_parquet(hash_run.metadata)
    assert run.rows.columns == ["id", "row", "dataset_source", "num_turns", "num_tokens"]
    assert run.rows.equals(metadata.select(run.rows.columns))
    matrix = load_file(hash_run.view_matrix("combined"))["embeddings"]
    assert np.array_equal(run.vectors, matrix)
    assert (len(run), run.dim, run.vectors.dtype) == (8970, matrix.shape[1], np.float32)
    assert run.scan().select("user_prompt").collect().equals(metadata.select("user_prompt"))
    assert run.has_text().all()


def test_the_dropped_rows_are_those_of_the_data(odd_run: RunFolder) -> None:
    dropped = embedkit.open_run(odd_run.path).dropped
    assert dropped.select("row", "dataset_source", "reason").rows() == [(1, "..", "no_assistant"), (3, ODD, "too_long")]


def test_blocks_give_every_row_once_in_order(hash_run: RunFolder) -> None:
    run = embedkit.open_run(hash_run.path)
    blocks = list(run.blocks(rows=4000))
    assert [len(ids) for ids, _ in blocks] == [4000, 4000, 970]
    assert np.array_equal(np.concatenate([ids for ids, _ in blocks]), np.arange(8970))
    assert np.array_equal(np.concatenate([vectors for _, vectors in blocks]), run.vectors)


def test_blocks_of_ids_keep_the_order_given(hash_run: RunFolder) -> None:
    run = embedkit.open_run(hash_run.path)
    wanted = pl.Series([8969, 0, 17, 17, 18])
    blocks = list(run.blocks(ids=wanted, rows=2))
    assert [ids.tolist() for ids, _ in blocks] == [[8969, 0], [17, 17], [18]]
    assert np.array_equal(np.concatenate([vectors for _, vectors in blocks]), run.vectors[wanted.to_list()])
    assert list(run.blocks(ids=[])) == []


def test_each_view_has_its_vectors(odd_run: RunFolder) -> None:
    run = embedkit.open_run(odd_run.path)
    assert (run.views, run.view) == (("combined", "response", "ask"), "combined")
    for view in run.views:
        matrix = load_file(odd_run.view_matrix(view))["embeddings"]
        assert np.array_equal(run.vectors_of(view), matrix)
        assert np.array_equal(np.concatenate([vectors for _, vectors in run.blocks(view, rows=3)]), matrix)
    assert not np.array_equal(run.vectors_of("combined"), run.vectors_of("ask"))


def test_rows_without_a_text_in_a_view_are_known(odd_run: RunFolder) -> None:
    """Also in `combined`: a row is kept if one of its views has a text. The analysis says the same."""
    run = embedkit.open_run(odd_run.path)
    expected = {
        "combined": [True, True, True, True, False],
        "response": [True, True, False, True, False],
        "ask": [True] * 5,
    }
    for view, are_there in expected.items():
        assert run.has_text(view).tolist() == are_there
        assert run.vectors_of(view).any(axis=1).tolist() == are_there
        assert open_merged(odd_run, view).has_text.tolist() == are_there
    assert run.has_text().tolist() == expected["combined"]
    assert run.source(ODD).has_text("response").tolist() == [True, False]


def test_texts_come_in_the_order_given(odd_run: RunFolder) -> None:
    run = embedkit.open_run(odd_run.path)
    assert run.texts([2, 0, 2]).rows() == [
        (2, "Say nothing.", "Nothing.", ""),
        (0, "What is a river?", "Water flows.", "A stream of water."),
        (2, "Say nothing.", "Nothing.", ""),
    ]
    assert run.texts(3).columns == ["id", "user_prompt", "think_text", "response_text"]
    assert run.texts([]).columns == run.texts(3).columns


@pytest.mark.parametrize(
    ("view", "texts"),
    [
        ("combined", ["Name a colour.\n\n\n\nBlue.", "漢字?\n\n\n\nHan."]),
        ("response", ["Blue.", "Han."]),
        ("ask", [f"Name a colour. ({ODD})", "漢字? (..)"]),
    ],
)
def test_a_views_text_is_what_was_embedded(odd_run: RunFolder, view: str, texts: list[str]) -> None:
    found = embedkit.open_run(odd_run.path).texts([1, 3], view)
    assert found["text"].to_list() == texts


def test_texts_are_those_of_the_file(hash_run: RunFolder) -> None:
    """Ids in several row groups and parts, against metadata.parquet and against the parts."""
    run = embedkit.open_run(hash_run.path)
    columns = ["id", "user_prompt", "think_text", "response_text"]
    whole = pl.read_parquet(hash_run.metadata, columns=columns)
    wanted = [8969, 3, 4100, 3, 5000, 0]
    assert run.texts(wanted).equals(whole[wanted])
    assert len(run.plan.parts) > 1
    without = msgspec.structs.replace(run.config.request, texts="none")
    config = msgspec.structs.replace(run.config, request=without)
    assert MergedRun(run.folder, config, run.plan, run.success).texts(wanted).equals(whole[wanted])


def test_rows_of_the_data_set_have_ids(odd_run: RunFolder) -> None:
    run = embedkit.open_run(odd_run.path)
    assert run.rows["row"].to_list() == KEPT
    assert run.ids([5, 0, 5]).tolist() == [3, 0, 3]
    assert run.ids(np.array([], np.int64)).tolist() == []
    assert run.ids(4).tolist() == [2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (1, r"row 1: dropped as no_assistant (source '..'), so it has no vector"),
        (3, f"row 3: dropped as too_long, N tokens (source {ODD!r}), so it has no vector"),
        (7, "row 7: the data set has rows 0 to 6"),
        (-1, "row -1: the data set has rows 0 to 6"),
    ],
)
def test_a_row_without_an_id_says_why(odd_run: RunFolder, row: int, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        embedkit.open_run(odd_run.path).ids([0, row])
    assert re.sub(r"[\d,]+ tokens", "N tokens", str(refused.value)) == message


def test_a_source_with_an_odd_name_has_its_rows(odd_run: RunFolder) -> None:
    run = embedkit.open_run(odd_run.path)
    assert run.sources == {"..": 3, ODD: 2}
    source = run.source(ODD)
    assert source.rows.equals(run.rows[[1, 2]])
    assert len(source) == 2
    for view in run.views:
        assert np.array_equal(source.vectors_of(view), run.vectors_of(view)[[1, 2]])
    assert np.array_equal(source.vectors, run.vectors[[1, 2]])
    assert [(ids.tolist(), len(vectors)) for ids, vectors in source.blocks(rows=1)] == [([1], 1), ([2], 1)]
    assert repr(run.source("..")) == "<source '..' of embedkit run 'run': 3 rows>"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda run: run.vectors_of("think"), "view 'think': the run has combined, response, ask"),
        (lambda run: run.blocks("think"), "view 'think': the run has combined, response, ask"),
        (lambda run: run.texts([0], "think"), "view 'think': the run has combined, response, ask"),
        (lambda run: run.has_text("think"), "view 'think': the run has combined, response, ask"),
        (lambda run: run.source("x"), f"source 'x': the run has .., {ODD}"),
        (lambda run: run.texts([0, 5]), "id 5: the run has ids 0 to 4"),
        (lambda run: run.blocks(ids=[-1]), "id -1: the run has ids 0 to 4"),
        (lambda run: run.blocks(rows=0), "rows=0: a block has at least 1 row"),
        (lambda run: run.texts([0.5]), "ids must be integers, not float64"),
        (lambda run: run.texts("0"), "ids must be integers, not <U1"),
        (lambda run: run.texts(run.has_text()), "ids must be integers, not bool"),
        (lambda run: run.ids([[0]]), "rows must be integers, one or a list of them"),
    ],
)
def test_what_the_run_does_not_have_is_refused(odd_run: RunFolder, ask: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        ask(embedkit.open_run(odd_run.path))


def test_many_sources_are_not_all_listed(hash_run: RunFolder) -> None:
    run = embedkit.open_run(hash_run.path)
    record = run.success.sources["a/b"]
    success = msgspec.structs.replace(run.success, sources={f"s{i:04d}": record for i in range(1023)})
    with pytest.raises(UsageError, match=r"source 'x': the run has s0000, .*, s0019 and 1,003 more$"):
        MergedRun(run.folder, run.config, run.plan, success).source("x")


def test_a_moved_run_opens(odd_run: RunFolder, tmp_path: Path) -> None:
    """Its data and model are not there any more, and nothing of it is needed."""
    shutil.copytree(odd_run.path, tmp_path / "elsewhere")
    run = embedkit.open_run(str(tmp_path / "elsewhere"))
    assert (run.name, run.path) == ("elsewhere", (tmp_path / "elsewhere").resolve())
    assert run.texts([1], "ask")["text"].to_list() == [f"Name a colour. ({ODD})"]


def test_a_path_without_a_run_names_those_beside_it(hash_run: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"no run named .*none at that path; there are: run$"):
        embedkit.open_run(hash_run.path.parent / "rum")


def test_a_run_that_is_not_merged_is_refused(small_embedded_run: RunFolder) -> None:
    with pytest.raises(EmbedkitError, match="the run to open is not merged; finish it first: embedkit run --resume"):
        embedkit.open_run(small_embedded_run.path)


@pytest.mark.parametrize("name", ["run_config.json", "plan.json", "embeddings/_SUCCESS.json"])
def test_a_damaged_document_is_refused(odd_run: RunFolder, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(odd_run.path, copy)
    (copy / name).write_bytes((copy / name).read_bytes().replace(b'"format": 2', b'"format":  2'))
    message = f"{copy}/{name}: its bytes are not those .*; embedkit verify {copy} says how to fix it"
    with pytest.raises(EmbedkitError, match=message):
        embedkit.open_run(copy)


def test_damaged_tables_and_matrices_are_refused(odd_run: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(odd_run.path, tmp_path / "run")
    run = embedkit.open_run(tmp_path / "run")
    for path in (run.folder.metadata, run.folder.dropped, run.folder.view_matrix("response")):
        path.write_bytes(path.read_bytes()[:-7])
    for path in run.folder.extracted.iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    run.folder.view_matrix("ask").unlink()
    with pytest.raises(EmbedkitError, match=r"metadata\.parquet: cannot be read: .*; run `embedkit verify`"):
        run.rows  # noqa: B018
    with pytest.raises(EmbedkitError, match=r"dropped_rows\.parquet: cannot be read: .*; run `embedkit verify`"):
        run.dropped  # noqa: B018
    with pytest.raises(EmbedkitError, match=r"\.parquet: .*; run `embedkit verify`"):
        run.texts([0])
    with pytest.raises(EmbedkitError, match=r"all_response\.safetensors: not a whole matrix of 5 x "):
        run.vectors_of("response")
    with pytest.raises(EmbedkitError, match=r"all_ask\.safetensors: missing, though the run is merged"):
        run.vectors_of("ask")


def test_the_matrix_is_mapped_and_read_only(hash_run: RunFolder) -> None:
    run = embedkit.open_run(hash_run.path)
    assert isinstance(run.vectors, np.memmap)
    assert run.vectors is run.vectors
    with pytest.raises(ValueError, match="read-only"):
        run.vectors[0, 0] = 1


def test_blocks_keep_memory_flat(odd_run: RunFolder, tmp_path: Path) -> None:
    """A matrix of 400 MB of zeros, in blocks of 16 MB in order and of scattered rows."""
    shutil.copytree(odd_run.path, tmp_path / "run")
    opened = embedkit.open_run(tmp_path / "run")
    rows, dim = 100_000, 1024
    with opened.folder.view_matrix("combined").open("wb") as file:
        file.write(matrix_header(rows, dim))
        file.truncate(file.tell() + rows * dim * 4)
    success = msgspec.structs.replace(opened.success, rows=rows, dim=dim)
    run = MergedRun(opened.folder, opened.config, opened.plan, success)
    before = mapped_megabytes()
    assert run.vectors.shape == (rows, dim)
    assert mapped_megabytes() - before < 10
    for ids in (None, np.arange(0, rows, 7)):
        peak = 0.0
        for _, vectors in run.blocks(ids=ids, rows=4096):
            assert not vectors.any()
            peak = max(peak, mapped_megabytes() - before)
        assert peak < 100


def mapped_megabytes() -> float:
    """Memory of this process that mapped files take."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssFile:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1000


def test_two_threads_read_one_run(hash_run: RunFolder) -> None:
    run = embedkit.open_run(hash_run.path)
    without = msgspec.structs.replace(run.config.request, texts="none")
    from_parts = MergedRun(run.folder, msgspec.structs.replace(run.config, request=without), run.plan, run.success)
    wanted = list(range(0, 8970, 61))
    whole = pl.read_parquet(hash_run.metadata, columns=["id", "user_prompt", "think_text", "response_text"])[wanted]

    def read(turn: int) -> bool:
        opened = from_parts if turn % 2 else run
        vectors = np.concatenate([block for _, block in opened.blocks(ids=wanted, rows=50)])
        return opened.texts(wanted).equals(whole) and np.array_equal(vectors, run.vectors[wanted])

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(read, range(8)))


def test_a_run_is_sent_to_a_process_as_its_path(odd_run: RunFolder) -> None:
    run = embedkit.open_run(odd_run.path)
    run.vectors.sum()
    data = pickle.dumps(run)
    assert len(data) < 1000
    assert np.array_equal(pickle.loads(data).vectors, run.vectors)
    source = run.source(ODD)
    source.vectors.sum()
    assert source.rows.height == 2
    assert len(pickle.dumps(source)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(source)).vectors, source.vectors)


def test_a_notebook_shows_a_short_table(odd_run: RunFolder) -> None:
    run = embedkit.open_run(odd_run.path)
    size = sum(file.bytes for file in run.success.files) / 1000
    facts = f"5 x 64 float32, views combined, response, ask, 2 sources, model, hash on cpu, {size:.1f} kB"
    assert repr(run) == f"<embedkit run 'run': {facts}>"
    table = run._repr_html_()
    assert table.startswith("<table><tr><th>run</th><td>run</td></tr><tr><th>vectors</th><td>5 x 64 float32</td></tr>")
    named = MergedRun(RunFolder(odd_run.path.parent / "<i>"), run.config, run.plan, run.success)
    assert "<td>&lt;i&gt;</td>" in named._repr_html_()
