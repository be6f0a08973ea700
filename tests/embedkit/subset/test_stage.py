"""The files of a subset: rows, texts and numbers as naive code has them, for every rule and kind of run."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from embedkit.analysis.merged import open_merged
from embedkit.data import row_hash
from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import SELECTING, RunFolder, folder_lock
from embedkit.storage import lock, run_lock
from embedkit.subset import RULES, Rule, Subset, SubsetOptions, files, select_subset
from tests.embedkit.subset.fake_merged import naive_cosines
from tests.embedkit.subset.test_coverage import clustered, naive_traversal
from tests.support.chosen_run import DIM, Row, chosen_run, run_of_file
from tests.support.merged_runs import run_of
from tests.support.planted import plant

SOURCES = ["abcde"[i * 7 % 13 % 5] for i in range(120)]
EMPTY = [3, 50]


def vectors() -> np.ndarray:
    found = clustered(120, seed=8)
    found[EMPTY] = 0
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """120 rows of five sources; the rows 3 and 50 have no text. Read only: subsets go elsewhere."""
    return run_of(tmp_path_factory.mktemp("subset"), vectors(), SOURCES)


def with_text() -> list[int]:
    return [id_ for id_ in range(120) if id_ not in EMPTY]


def naive_distances(selected: list[int]) -> tuple[list[float], list[int]]:
    """1 - cosine of every row with a text to the nearest selected id, and the rank of that, by loops."""
    cosines, ids = naive_cosines(vectors()), with_text()
    near = [[row[ids.index(id_)] for id_ in selected] for row in cosines]
    return [1 - max(row) for row in near], [row.index(max(row)) for row in near]


def select(run: RunFolder, out: Path, **options: Any) -> Subset:
    return select_subset(run, SubsetOptions(out=out, **({"k": 12} | options)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("by", RULES)
def test_numbers_are_those_of_loops(by: Rule, run: RunFolder, tmp_path: Path) -> None:
    done = select(run, tmp_path / "s", by=by)
    selected = done.rows["id"].to_list()
    distances, nearest = naive_distances(selected)
    at_random = sorted(with_text(), key=lambda id_: int(row_hash(0, np.array([id_]))[0]))[:12]
    for found, wanted, ids in (
        (done.record.selected, distances, selected),
        (done.record.random, naive_distances(at_random)[0], at_random),
    ):
        assert found.distances is not None
        assert (found.rows, found.sources) == (12, len({SOURCES[id_] for id_ in ids}))
        assert found.distances.farthest == pytest.approx(max(wanted), abs=1e-6)
        assert found.distances.mean == pytest.approx(sum(wanted) / len(wanted), abs=1e-6)
        assert found.distances.quantiles["0.9"] == pytest.approx(float(np.quantile(wanted, 0.9)), abs=1e-6)
    assert done.rows["rows_nearest"].to_list() == [nearest.count(number) for number in range(12)]
    assert done.rows["rank"].to_list() == list(range(1, 13))
    assert (done.record.rows, done.record.empty, done.record.sources) == (118, 2, 5)
    assert done.record.notes == ("2 rows have no text in the view combined, and take no part",)


def test_coverage_is_the_naive_traversal(run: RunFolder, tmp_path: Path) -> None:
    done = select(run, tmp_path / "s", k=40)
    positions, radii = naive_traversal(vectors(), 41)
    assert done.rows["id"].to_list() == [with_text()[at] for at in positions[:40]]
    assert done.rows["distance"][0] is None
    assert done.rows["distance"].to_list()[1:] == pytest.approx(radii[1:40], abs=2e-6)
    assert [(one.k, pytest.approx(one.farthest, abs=2e-6)) for one in done.record.farthest_by_k] == [
        (10, radii[10]),
        (30, radii[30]),
        (40, radii[40]),
    ]
    assert done.record.selected.distances is not None
    assert done.record.random.distances is not None
    assert done.record.selected.distances.farthest < done.record.random.distances.farthest


def test_sources_have_equal_shares(run: RunFolder, tmp_path: Path) -> None:
    done = select(run, tmp_path / "s", k=15, by="source")
    assert sorted(done.rows["dataset_source"].to_list()) == sorted("abcde" * 3)


def test_densities_are_written(run: RunFolder, tmp_path: Path) -> None:
    done = select(run, tmp_path / "s", by="density", k=500)
    assert done.record.density is not None
    assert done.record.density.sampled_rows == 118
    assert done.record.density.bandwidth > 0
    assert done.rows["density"].is_between(1 / 118 - 1e-9, 1).all()
    assert done.rows.height == 118
    assert done.record.notes[0] == "there are only 118 rows with a text, so all are selected"


@pytest.mark.parametrize("by", RULES)
def test_the_files_have_rows_and_texts(by: Rule, run: RunFolder, tmp_path: Path) -> None:
    done = select(run, tmp_path / "s", by=by)
    merged = open_merged(run)
    table = pl.read_parquet(tmp_path / "s" / "selected.parquet")
    measure = {"coverage": ["distance"], "density": ["density"], "source": []}[by]
    columns = ["rank", "id", "row", "dataset_source", "num_tokens", "num_turns", *measure, "rows_nearest"]
    texts = ["user_prompt", "think_text", "response_text"]
    assert table.columns == [*columns, *texts]
    assert table["id"].is_sorted()
    assert table.sort("rank").select(columns).equals(done.rows)
    assert table.select("id", *texts).equals(merged.texts(table["id"].to_list()))
    assert table["row"].to_list() == merged.rows["row"].gather(table["id"]).to_list()
    first = done.rows.row(0, named=True)
    text = (tmp_path / "s" / "selected.txt").read_text(encoding="utf-8")
    assert text.startswith("The first 12 of 12 selected rows, in the order of selection.\n\n  1. ")
    assert f"id {first['id']}  row {first['row']}  {first['dataset_source']}  " in text
    written = json.loads((tmp_path / "s" / "select.json").read_text(encoding="utf-8"))
    assert written == json.loads(msgspec.json.encode(done.record))


def test_texts_are_written_in_batches(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = select(run, tmp_path / "whole").folder
    monkeypatch.setattr(files, "BATCH_ROWS", 5)
    parts = select(run, tmp_path / "parts").folder
    assert pl.read_parquet(parts / "selected.parquet").equals(pl.read_parquet(whole / "selected.parquet"))


def test_no_texts_are_written_if_none_are_wanted(run: RunFolder, tmp_path: Path) -> None:
    done = select(run, tmp_path / "s", texts=False)
    assert sorted(contents(done.folder)) == ["select.json", "selected.parquet"]
    assert pl.read_parquet(done.folder / "selected.parquet").sort("rank").equals(done.rows)


@pytest.mark.parametrize("by", RULES)
def test_the_same_request_gives_the_same_bytes(by: Rule, run: RunFolder, tmp_path: Path) -> None:
    first = contents(select(run, tmp_path / "a", by=by).folder)
    assert contents(select(run, tmp_path / "a", by=by).folder) == first
    assert contents(select(run, tmp_path / "b", by=by).folder) == first


@pytest.mark.parametrize("by", RULES)
def test_the_first_ranks_are_the_smaller_subset(by: Rule, run: RunFolder, tmp_path: Path) -> None:
    small, large = (select(run, tmp_path / str(k), by=by, k=k).rows["id"].to_list() for k in (7, 30))
    assert small == large[:7]


def test_another_seed_draws_other_rows(run: RunFolder, tmp_path: Path) -> None:
    for by in ("density", "source"):
        one, two = (set(select(run, tmp_path / f"{by}{seed}", by=by, seed=seed).rows["id"]) for seed in (0, 1))
        assert one != two


def test_only_the_sources_that_are_named(run: RunFolder, tmp_path: Path) -> None:
    for by in RULES:
        done = select(run, tmp_path / by, by=by, sources=("B", "d"), k=9)
        assert set(done.rows["dataset_source"]) == {"b", "d"}
        assert [SOURCES[id_] for id_ in done.rows["id"]] == done.rows["dataset_source"].to_list()
        assert done.record.settings.sources == ("b", "d")
        assert done.record.rows == sum(SOURCES[id_] in "bd" for id_ in with_text())


def test_usual_folders_differ_by_request(small: RunFolder) -> None:
    wanted = {
        "coverage-5": {},
        "density-5-response": {"by": "density", "view": "response"},
        "source-5-seed3": {"by": "source", "seed": 3},
        "coverage-5-no-texts-only-source_one+zz": {"texts": False, "sources": ("zz", "Source one")},
    }
    for name, options in wanted.items():
        done = select_subset(small, SubsetOptions(**({"k": 5} | options)))  # type: ignore[arg-type]
        assert done.folder == small.subsets / name
    assert sorted(path.name for path in small.subsets.iterdir()) == sorted(wanted)


def test_a_folder_with_something_else_is_refused(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"has other files, such as thesis\.tex; type another path"):
        select(run, tmp_path / "mine")
    with pytest.raises(UsageError, match=r"thesis\.tex: is no folder; type another path"):
        select(run, tmp_path / "mine" / "thesis.tex")
    select(run, tmp_path / "s", by="source")
    with pytest.raises(UsageError, match=r"has the result of another request \(by\); type another --out"):
        select(run, tmp_path / "s", by="density")
    with pytest.raises(UsageError, match=r"in the run's own folder; only .*subsets has such folders"):
        select(run, run.path / "logs")
    assert not (run.path / "logs" / "select.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "-k 0: expected 1 row or more"),
        ({"view": "think"}, "--view think: the run has combined"),
        ({"sources": ("nowhere",)}, "--sources nowhere: no source has that in its name"),
        ({"sources": ("a", " ")}, "--sources: expected names"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str, run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        select(run, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_one_process_at_a_time(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0)
    with run_lock(folder_lock(tmp_path / "s"), SELECTING):
        with pytest.raises(EmbedkitError, match="selecting this subset"):
            select(run, tmp_path / "s")


def test_locks_of_subsets_are_those_of_the_run(small: RunFolder) -> None:
    path = folder_lock(small.subsets / "coverage-5")
    path.parent.mkdir()
    with run_lock(path, SELECTING):
        assert small.locks()[path] == SELECTING


def test_an_error_leaves_no_record(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier record goes first, because the other files are replaced one after the other."""
    select(run, tmp_path / "s")

    def fail(*arguments: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("embedkit.subset.stage.write_first_rows", fail)
    with pytest.raises(OSError, match="the disk is full"):
        select(run, tmp_path / "s")
    assert sorted(contents(tmp_path / "s")) == ["selected.parquet", "selected.txt"]
    monkeypatch.undo()
    assert sorted(contents(select(run, tmp_path / "s").folder)) == ["select.json", "selected.parquet", "selected.txt"]


@pytest.mark.parametrize("by", RULES)
def test_progress_is_shown_and_logged(
    by: Rule, run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step ends with all its rows."""
    shown: dict[str, list[int]] = {}

    @contextmanager
    def steps(what: str, rows: int) -> Iterator[Callable[[int], None]]:
        shown[what] = [rows, 0]

        def advance(done: int) -> None:
            shown[what][1] += done

        yield advance

    with caplog.at_level("INFO", "embedkit.subset"):
        select_subset(run, SubsetOptions(k=12, by=by, out=tmp_path / "s"), steps)
    assert (
        list(shown)
        == {
            "coverage": ["select by coverage", "compare with a random subset"],
            "density": ["estimate densities", "compare with the selected rows", "compare with a random subset"],
            "source": ["compare with the selected rows", "compare with a random subset"],
        }[by]
    )
    assert all(done == rows > 0 for rows, done in shown.values())
    assert "compare with a random subset: 118 of 118 rows" in caplog.text


# Odd runs.


@pytest.mark.parametrize("rows", [1, 2])
def test_runs_of_one_and_two_rows(rows: int, tmp_path: Path) -> None:
    run = chosen_run(tmp_path, [Row("What is it?", "So."), Row("又是 🙂 مرحبا", "لا.")][:rows])
    for by in RULES:
        done = select(run, tmp_path / by, by=by)
        assert sorted(done.rows["id"].to_list()) == list(range(rows))
        assert done.rows["rows_nearest"].to_list() == [1] * rows
        assert done.record.selected == done.record.random


def test_a_view_without_any_text(tmp_path: Path) -> None:
    run = chosen_run(tmp_path, [Row("What is it?", "So.")], views=("combined", "think"))
    for by in RULES:
        done = select(run, tmp_path / by, by=by, view="think")
        table = pl.read_parquet(tmp_path / by / "selected.parquet")
        assert done.rows.height == table.height == 0
        assert table.schema["user_prompt"] == pl.String
        assert done.record.selected.distances is None
        assert done.record.notes == (
            "no row has a text in the view think",
            "1 row has no text in the view think, and takes no part",
        )


def test_equal_vectors_are_selected_once_by_coverage(tmp_path: Path) -> None:
    run = chosen_run(tmp_path, [Row(f"What is the number {i}?", f"It is {i}.", source=f"s{i}") for i in range(25)])
    plant(run, np.full((25, DIM), 1 / 8))
    done = select(run, tmp_path / "s")
    assert done.rows["rows_nearest"].to_list() == [25]
    assert done.record.notes == ("only 1 vector is distinct: every other row has the vector of a selected row",)
    for by in ("density", "source"):
        assert select(run, tmp_path / by, by=by).rows.height == 12


def test_plain_text_has_only_prompts(tmp_path: Path) -> None:
    data = tmp_path / "texts.parquet"
    pl.DataFrame({"body": ["one text", "two texts", "又是 🙂 مرحبا"]}).write_parquet(data)
    run = run_of_file(tmp_path, data, text_columns=("body",))
    done = select(run, tmp_path / "s", k=3)
    table = pl.read_parquet(tmp_path / "s" / "selected.parquet")
    assert table["user_prompt"].to_list() == ["one text", "two texts", "又是 🙂 مرحبا"]
    assert "text: 又是 🙂 مرحبا\n" in (done.folder / "selected.txt").read_text(encoding="utf-8")


def test_a_view_of_the_user_has_its_text(tmp_path: Path) -> None:
    rows = [Row("What is the first?", "One."), Row("What is the second?", "Two.")]
    run = chosen_run(tmp_path, rows, views=("combined", "bold"), templates={"bold": "*{response_text}*"})
    select(run, tmp_path / "s", view="bold")
    table = pl.read_parquet(tmp_path / "s" / "selected.parquet")
    assert table["view.bold"].to_list() == ["*One.*", "*Two.*"]
    assert "view bold: *One.*" in (tmp_path / "s" / "selected.txt").read_text(encoding="utf-8")


def test_texts_of_the_parts_are_read_too(tmp_path: Path) -> None:
    run = chosen_run(tmp_path, [Row("What is it?", "So it is."), Row("Where is it?", "Never.")], texts="none")
    select(run, tmp_path / "s")
    table = pl.read_parquet(tmp_path / "s" / "selected.parquet")
    assert table["response_text"].to_list() == ["So it is.", "Never."]


@pytest.mark.parametrize("by", RULES)
def test_both_layouts_have_the_same_subset(by: Rule, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    one, two = (
        contents(select(request.getfixturevalue(name), tmp_path / name, by=by, view="response").folder)
        for name in ("small_run", "small_sharded_run")
    )
    assert one["selected.parquet"] == two["selected.parquet"]
    assert one["selected.txt"] == two["selected.txt"]
