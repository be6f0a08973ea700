"""Compares the files of the sharded layout: the index with the plan and the manifests, each table with its parts.

The vectors are those of the shards, which are compared with their manifests where they are.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from msgspec import structs

from embedkit.documents import FileRecord, MergedIndex, NewerFormat, ReadBack, ahead, read
from embedkit.errors import EmbedkitError
from embedkit.merge.comparison import Comparison, MergedProblem, MergeInputs, PartRows
from embedkit.merge.index import make_index
from embedkit.merge.tables import parts_of_tables


class ShardedComparison(Comparison):
    """Compares `index.json` and the tables in `metadata/`, each with its parts as soon as these were added."""

    def __init__(self, merge: MergeInputs, read_back: ReadBack) -> None:
        """Start to read the first tables."""
        groups = parts_of_tables(merge.plan)
        super().__init__(merge, groups, read_back)
        self._tables = [merge.run.table(number) for number in range(len(groups))]
        self._records = {merge.run.embeddings / record.name: record for record in merge.success.files}
        self._in_order = ahead(self._tables, self._submit)
        self._found: list[MergedProblem] = []

    def _submit(self, path: Path) -> None:
        if path in self._records:
            self._read_back.submit_table(path, self._records[path], self.hashed, ["id"])

    def _add_group(self, group: int, rows: PartRows | None) -> None:
        path = next(self._in_order)
        if rows is not None:
            self._found += self._rows(path, rows, rows.ids)
        self._read_back.forget(path)

    def _differences(self, damaged: set[Path]) -> Iterator[MergedProblem]:
        run = self._merge.run
        if self._has_all_parts:
            yield from self._of_sources()
        yield from self._unnamed([run.index, *self._tables])
        if run.index in self._records and run.index not in damaged:
            yield from self._index_problems()
        yield from self._found

    def _index_problems(self) -> Iterator[MergedProblem]:
        path = self._merge.run.index
        try:
            index = read(path, MergedIndex)
        except NewerFormat:
            raise
        except EmbedkitError as error:
            yield MergedProblem(path, str(error))
            return
        tables = [self._records[table] for table in self._tables if table in self._records]
        if self._merge.has_all_shards and len(tables) == len(self._tables):  # else that is reported
            yield from self._index_differences(index, tables)

    def _index_differences(self, index: MergedIndex, tables: list[FileRecord]) -> Iterator[MergedProblem]:
        """Compare the index with what it should be."""
        path = self._merge.run.index
        wanted = make_index(self._merge.plan, self._merge.manifests, tables, self._merge.request.store)
        for name, value in structs.asdict(wanted).items():
            found = getattr(index, name)
            if found == value:
                continue
            if name in ("shards", "tables"):
                pairs = enumerate(zip_longest(found, value))
                at = next(number for number, (one, other) in pairs if one != other)
                whose = "the shard's manifest" if name == "shards" else "_SUCCESS.json and the plan"
                yield MergedProblem(path, f"its {name.removesuffix('s')} {at} is not that of {whose}")
            else:
                yield MergedProblem(path, f"its {name} is not that of the plan and the shards")
