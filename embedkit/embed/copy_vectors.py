"""Copies vectors of earlier runs, each compared with the key that prepare recorded."""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedkit.documents import Matrix, RunConfig, View
from embedkit.embed.inputs import ChunkInput
from embedkit.errors import EmbedkitError
from embedkit.row_keys import CopiedRows, EarlierRun, open_earlier, vector_keys


class VectorCopier:
    """Reads vectors of the runs that a run reuses. They are opened when the first vector is copied."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._matrices: dict[tuple[int, View], Matrix] = {}

    @cached_property
    def _earlier(self) -> list[EarlierRun]:
        pairs = zip(self._config.locations.reuse, self._config.request.reuse, strict=True)
        return [open_earlier(folder, reused) for folder, reused in pairs]

    def fill(self, chunk: ChunkInput, vectors: dict[View, npt.NDArray[np.float32]]) -> None:
        """Put copied vectors into their places of a chunk's vectors, float32 (n, dim) per view.

        Raises EmbedkitError naming the run and the id of a vector that is not the one that prepare found.
        """
        are_copied = chunk.copies.are_copied
        for place, view in enumerate(chunk.token_ids):
            for run in np.unique(chunk.copies.runs[are_copied[:, place], place]).tolist():
                copied = chunk.copies.of_run(run, place)
                vectors[view][copied.rows] = self._read(run, view, copied)

    def _read(self, run: int, view: View, copied: CopiedRows) -> npt.NDArray[np.float32]:
        """The vectors of some rows of a view of a reused run, in the order of their ids, float32 (n, dim)."""
        vectors = np.array(self._matrix(run, view).take(copied.ids))
        changed = np.flatnonzero((vector_keys(vectors) != copied.vectors).any(axis=1))
        if len(changed):
            earlier = self._earlier[run].run
            id_ = int(copied.ids[changed[0]])
            raise EmbedkitError(
                f"{self._matrix(run, view).path_of(id_)}: the vector of id {id_} changed since this run was "
                f"prepared ({len(changed)} such vectors here). `embedkit verify {earlier.path}` says what is "
                "damaged and how to repair it; then resume this run"
            )
        return vectors

    def _matrix(self, run: int, view: View) -> Matrix:
        """The vectors of a view of a reused run."""
        if (run, view) not in self._matrices:
            self._matrices[run, view] = self._earlier[run].files.matrix(view)
        return self._matrices[run, view]
