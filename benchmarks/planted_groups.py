"""Rows with structure, for benchmarks of what finds it: groups within groups, each with a few words of its own.

Vectors of noise have no groups, and their neighbours mean nothing. Here a vector is the sum of the direction of its
group, that of its subgroup, a place within the subgroup, which has PLACE_DIMS dimensions, and a little noise. Near
rows are rows of near places. A source has the rows of one subgroup, except one in ten, which is of any subgroup.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

SUBGROUPS = 8
"""Subgroups of each group."""
PLACE_DIMS = 16
GROUP, SUBGROUP, PLACE, NOISE = 0.6, 0.5, 0.5, 0.15
"""Lengths of the parts of a vector, before it gets norm 1."""
STRANGERS = 0.1
"""Share of a source's rows that are of any subgroup."""
WORDS_EACH = 3
"""Words that each subgroup has of its own."""

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlantedGroups:
    """The groups of a run. Arrays hold 76 bytes per row. Each id has the same row for the same seed."""

    rows: int
    sources: int
    groups: int
    dim: int
    seed: int

    @cached_property
    def source(self) -> Ids:
        """Source of each row, int64 (rows,)."""
        return self._rng(0).integers(0, self.sources, self.rows)

    @cached_property
    def subgroup(self) -> npt.NDArray[np.int32]:
        """Subgroup of each row, int32 (rows,); its group is this divided by SUBGROUPS."""
        rng, count = self._rng(1), self.groups * SUBGROUPS
        is_stranger = rng.random(self.rows) < STRANGERS
        return np.where(is_stranger, rng.integers(0, count, self.rows), self.source % count).astype(np.int32)

    def vectors(self, start: int, stop: int, noise: Floats) -> Floats:
        """Vectors of ids [start, stop), norm 1, float32 (n, dim). noise: unit vectors, which are used in turn."""
        subgroup = self.subgroup[start:stop]
        made = self._places[start:stop] @ self._basis
        made += self._means[subgroup]
        made += np.float32(NOISE) * noise[np.arange(start, stop) % len(noise)]
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made

    def words(self, texts: str) -> list[str]:
        """The words of each subgroup, joined by spaces: those of the beginning of some texts, drawn without return."""
        found = sorted({word for word in texts[: 1 << 20].split() if word.isalpha() and len(word) > 3})
        drawn = self._rng(4).permutation(len(found))[: self.groups * SUBGROUPS * WORDS_EACH]
        return [
            " ".join(found[i] for i in drawn[at * WORDS_EACH : (at + 1) * WORDS_EACH])
            for at in range(self.groups * SUBGROUPS)
        ]

    @cached_property
    def _means(self) -> Floats:
        """Mean of each subgroup, float32 (groups * SUBGROUPS, dim)."""
        rng = self._rng(2)
        groups = _unit(rng.standard_normal((self.groups, self.dim), np.float32))
        own = _unit(rng.standard_normal((self.groups * SUBGROUPS, self.dim), np.float32))
        means: Floats = np.float32(GROUP) * np.repeat(groups, SUBGROUPS, axis=0) + np.float32(SUBGROUP) * own
        return means

    @cached_property
    def _basis(self) -> Floats:
        """Directions of the places, float32 (PLACE_DIMS, dim)."""
        return _unit(self._rng(2, 1).standard_normal((PLACE_DIMS, self.dim), np.float32))

    @cached_property
    def _places(self) -> Floats:
        """Place of each row within its subgroup, float32 (rows, PLACE_DIMS), of length PLACE in the mean."""
        places = self._rng(3).standard_normal((self.rows, PLACE_DIMS), np.float32)
        places *= np.float32(PLACE / np.sqrt(PLACE_DIMS))
        return places

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, *purpose))


def _unit(vectors: Floats) -> Floats:
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
