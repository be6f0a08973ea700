"""Places, groups and nearest rows that `embedkit analyze` found, as columns for tools that draw maps.

Embedding Atlas reads x, y and neighbors (struct of ids and distances; ids are positions of rows, from 0).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from embedkit.documents import View
from embedkit.errors import EmbedkitError, UsageError
from embedkit.run import RunFolder

FIELDS = (
    pa.field("x", pa.float32()),
    pa.field("y", pa.float32()),
    pa.field("group", pa.string()),
    pa.field("neighbors", pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float32()))])),
)
"""The columns that are added. Rows without a text have none of them, and group is null for rows in no group."""
HOW = "run `embedkit analyze` first, with a map, groups and neighbours"


@dataclass(frozen=True)
class MapFiles:
    """The files of an analysis that the columns come from."""

    places: Path
    groups: Path
    names: Path
    nearest: Path

    @property
    def sha256(self) -> str:
        """Digest of all of them: another analysis gives another export."""
        found = hashlib.sha256()
        for path in self.all:
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return found.hexdigest()

    @property
    def all(self) -> Sequence[Path]:
        """Each of them."""
        return (self.places, self.groups, self.names, self.nearest)

    def lines(self, start: int, stop: int) -> pa.Table:
        """The columns of the rows with ids from start to before stop, in order.

        Raises EmbedkitError if a file cannot be read.
        """
        is_here = pl.col("id").is_between(start, stop, closed="left")
        try:
            places = pl.scan_parquet(self.places, glob=False).filter(is_here).select("id", "x", "y").collect()
            groups = pl.scan_parquet(self.groups, glob=False).filter(is_here).select("id", "fine").collect()
            nearest = pl.scan_parquet(self.nearest, glob=False).filter(is_here).collect()
            fine = json.loads(self.names.read_bytes())["levels"]["fine"]
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
            raise EmbedkitError(f"the analysis in {self.places.parent} cannot be read: {error}; {HOW}") from None
        names = pl.DataFrame(
            {"fine": np.arange(len(fine), dtype=np.int32), "group": [one["name"] for one in fine]},
            schema_overrides={"group": pl.String},
        )
        found = (
            pl.DataFrame({"id": np.arange(start, stop)})
            .join(places, on="id", how="left", maintain_order="left")
            .join(groups.join(names, on="fine", how="left"), on="id", how="left", maintain_order="left")
            .join(nearest.select("id", _neighbors()), on="id", how="left", maintain_order="left")
        )
        return pa.table(found.select(field.name for field in FIELDS).to_arrow()).cast(pa.schema(FIELDS))


def _neighbors() -> pl.Expr:
    """Ids and distances (1 - cosine) as a struct, without the places where there are fewer rows."""
    ids = pl.col("neighbors").arr.to_list().list.drop_nulls()
    distances = 1 - pl.col("cosines").arr.to_list().list.drop_nulls()
    return pl.struct(ids=ids, distances=distances).alias("neighbors")


def find_map_files(run: RunFolder, view: View) -> MapFiles:
    """The analysis of a view. Raises UsageError if it lacks a file."""
    suffix = "" if view == "combined" else f"_{view}"
    files = MapFiles(
        run.analysis / f"map{suffix}.parquet",
        run.analysis / f"groups{suffix}.parquet",
        run.analysis / f"group_names{suffix}.json",
        run.analysis / f"neighbors{suffix}.parquet",
    )
    missing = [path.name for path in files.all if not path.exists()]
    if missing:
        raise UsageError(f"--map: {run.analysis} has no {', '.join(missing)}; {HOW}")
    return files
