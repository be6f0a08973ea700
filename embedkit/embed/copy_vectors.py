"""Copies vectors of earlier runs, each compared with the key that prepare recorded."""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from embedkit.documents import RunConfig, View, open_matrix
from embedkit.embed.inputs import ChunkInput
from embedkit.errors import EmbedkitError
from embedkit.row_keys import Copies, EarlierRun, open_earlier, vector_keys


class VectorCopier:
    """Reads vectors of the runs that a run reuses. They are opened when the first vector is copied."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._matrices: dict[tuple[int, View], npt.NDArray[np.float32]] = {}

    @cached_property
    def _earlier(self) -> list[EarlierRun]:
        pairs = zip(self._config.locations.reuse, self._config.request.reuse, strict=True)
        return [open_earlier(folder, reused) for folder, reused in pairs]

    def fill(self, chunk: ChunkInput, vectors: dict[View, npt.NDArray[np.float32]]) -> None:
        """Put copied vectors into their places of a chunk's vectors, float32 (n, dim) per view.

        Raises EmbedkitError naming the run and the id of a vector that is not the one that prepare found.
        """
        for place, view in enumerate(chunk.token_ids):
            runs = chunk.copies.runs[:, place]
            for run in np.unique(runs[chunk.copies.are_copied[:, place]]).tolist():
                rows = np.flatnonzero(runs == run)
                vectors[view][rows] = self._copied(run, view, chunk.copies.ids[rows, place], chunk.copies, rows, place)

    def _copied(
        self,
        run: int,
        view: View,
        ids: npt.NDArray[np.int64],
        copies: Copies,
        rows: npt.NDArray[np.int64],
        place: int,
    ) -> npt.NDArray[np.float32]:
        earlier = self._earlier[run]
        vectors = np.array(self._matrix(run, view)[ids], np.float32)
        changed = np.flatnonzero((vector_keys(vectors) != copies.vectors[rows, place]).any(axis=1))
        if len(changed):
            raise EmbedkitError(
                f"{earlier.run.view_matrix(view)}: the vector of id {ids[changed[0]]} changed since this run was "
                f"prepared ({len(changed)} such vectors here). `embedkit verify {earlier.run.path}` says what is "
                "damaged and how to repair it; then resume this run"
            )
        return vectors

    def _matrix(self, run: int, view: View) -> npt.NDArray[np.float32]:
        """The matrix of a view of a reused run, mapped into memory."""
        if (run, view) not in self._matrices:
            earlier = self._earlier[run]
            path = earlier.run.view_matrix(view)
            self._matrices[run, view] = open_matrix(path, earlier.success.rows, earlier.success.dim)
        return self._matrices[run, view]
