"""`export --map`: places, groups and nearest rows of an analysis beside the vectors. The analysis is made by hand."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from embedkit.errors import EmbedkitError, UsageError
from embedkit.export import ExportOptions, export
from embedkit.run import RunFolder
from tests.embedkit.export.conftest import SOURCES, VECTORS, exact_run

ROWS = len(VECTORS)
WITH_TEXT = [i for i in range(ROWS) if i not in (3, 7)]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = exact_run(tmp_path / "run", VECTORS, SOURCES)
    made.analysis.mkdir()
    ids = pl.Series("id", WITH_TEXT)
    places = pl.DataFrame([ids, (ids / 2).cast(pl.Float32).alias("x"), (-ids).cast(pl.Float32).alias("y")])
    places.write_parquet(made.analysis / "map.parquet")
    fine = pl.Series("fine", [i % 3 - 1 for i in WITH_TEXT], dtype=pl.Int32)
    pl.DataFrame([ids, fine]).write_parquet(made.analysis / "groups.parquet")
    names = {"levels": {"fine": [{"name": "river, mill"}, {"name": "stone"}]}}
    (made.analysis / "group_names.json").write_text(json.dumps(names))
    near = pl.DataFrame(
        [
            ids,
            pl.Series("neighbors", [[0, None if i < 2 else 1] for i in WITH_TEXT], dtype=pl.Array(pl.Int64, 2)),
            pl.Series("cosines", [[0.75, None if i < 2 else 0.5] for i in WITH_TEXT], dtype=pl.Array(pl.Float32, 2)),
        ]
    )
    near.write_parquet(made.analysis / "neighbors.parquet")
    return made


def options(tmp_path: Path, **changes: object) -> ExportOptions:
    chosen = {"to": "parquet", "out": tmp_path / "x", "with_map": True, "queries": 0} | changes
    return ExportOptions(**chosen)  # type: ignore[arg-type]


def test_every_row_has_what_the_analysis_found(run: RunFolder, tmp_path: Path) -> None:
    done = export(run, options(tmp_path))
    rows = pl.read_parquet(done.folder / "data/*.parquet")
    assert rows.columns[-5:] == ["x", "y", "group", "neighbors", "embedding"]
    assert rows.height == ROWS
    for i, row in enumerate(rows.select("x", "y", "group", "neighbors").iter_rows(named=True)):
        if i not in WITH_TEXT:
            assert list(row.values()) == [None] * 4
            continue
        group = (None, "river, mill", "stone")[i % 3]
        nearest = {"ids": [0], "distances": [0.25]} if i < 2 else {"ids": [0, 1], "distances": [0.25, 0.5]}
        assert row == {"x": i / 2, "y": -i, "group": group, "neighbors": nearest}
    assert np.array_equal(rows["embedding"].to_numpy(), VECTORS)
    assert done.how_to_read[-1].endswith("data/*.parquet --x x --y y --neighbors neighbors")


def test_another_analysis_is_another_export(run: RunFolder, tmp_path: Path) -> None:
    export(run, options(tmp_path))
    names = {"levels": {"fine": [{"name": "water"}, {"name": "stone"}]}}
    (run.analysis / "group_names.json").write_text(json.dumps(names))
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        export(run, options(tmp_path))
    done = export(run, options(tmp_path, overwrite=True))
    assert "water" in pl.read_parquet(done.folder / "data/*.parquet")["group"].to_list()


@pytest.mark.parametrize("name", ["map.parquet", "groups.parquet", "group_names.json", "neighbors.parquet"])
def test_a_missing_or_damaged_analysis_says_what_to_run(run: RunFolder, tmp_path: Path, name: str) -> None:
    (run.analysis / name).write_text("{}")
    with pytest.raises(EmbedkitError, match=r"cannot be read: .*; run `embedkit analyze` first"):
        export(run, options(tmp_path))
    (run.analysis / name).unlink()
    with pytest.raises(UsageError, match=f"has no {name}; run `embedkit analyze` first"):
        export(run, options(tmp_path))


def test_what_has_no_map_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="npy files have no room for it"):
        export(run, options(tmp_path, to="npy"))
    with pytest.raises(UsageError, match="leave out --by-source"):
        export(run, options(tmp_path, by_source=True))
