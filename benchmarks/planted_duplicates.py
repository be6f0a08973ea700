"""Rows with planted near-duplicates, for benchmarks of what removes them: the right decision is known.

Half of the rows are noise and near no other. The others are, in a scattered order:

- copies: groups of 2 to 9 rows around a direction, each with cosine COPY to it, so that two have about COPY squared;
- a template: one such group with a twentieth of all rows;
- chains of CHAIN rows: the cosine of neighbours is STEP, and of rows further apart less than the threshold.

At THRESHOLD, a row of each group stays, and of a chain every second row, if rows are preferred by id.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

THRESHOLD = 0.98
COPY, STEP = 0.995, 0.986
CHAIN = 9
LARGEST = 9
TEMPLATE_SHARE, CHAIN_SHARE, NOISE_SHARE = 0.05, 0.05, 0.5

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlantedDuplicates:
    """The groups of a run. Arrays hold 24 bytes per row. Each id has the same vector for the same seed."""

    rows: int
    dim: int
    seed: int = 0

    @cached_property
    def place(self) -> Ids:
        """Place of each id among the rows in the order of groups, int64 (rows,)."""
        return np.random.default_rng((self.seed, 0)).permutation(self.rows)

    @cached_property
    def borders(self) -> Ids:
        """Where groups begin, by place, int64: the template, chains, copies; the rest is noise, a row each."""
        template, chained = int(TEMPLATE_SHARE * self.rows), int(CHAIN_SHARE * self.rows) // CHAIN
        sizes = [template, *[CHAIN] * chained]
        left = self.rows - int(NOISE_SHARE * self.rows) - sum(sizes)
        copies = np.random.default_rng((self.seed, 1)).integers(2, LARGEST + 1, left)
        copies = copies[: int(np.searchsorted(np.cumsum(copies), left, side="right"))]
        noise = self.rows - sum(sizes) - int(copies.sum())
        return np.cumsum([0, *sizes, *copies.tolist(), *[1] * noise])[:-1]

    @cached_property
    def group(self) -> npt.NDArray[np.int32]:
        """Group of each id, int32 (rows,)."""
        found: npt.NDArray[np.int32] = (np.searchsorted(self.borders, self.place, side="right") - 1).astype(np.int32)
        return found

    @property
    def chains(self) -> range:
        """The groups that are chains."""
        return range(1, 1 + int(CHAIN_SHARE * self.rows) // CHAIN)

    @cached_property
    def stays(self) -> npt.NDArray[np.bool_]:
        """Whether each id stays if lower ids are preferred, bool (rows,). A chain is decided in a loop."""
        found = np.zeros(self.rows, bool)
        found[np.unique(self.group, return_index=True)[1]] = True
        at = np.flatnonzero((self.group >= self.chains.start) & (self.group < self.chains.stop))
        found[at] = False
        steps = self.place[at] - self.borders[self.group[at]]
        kept: set[tuple[int, int]] = set()
        for id_, group, step in zip(at.tolist(), self.group[at].tolist(), steps.tolist(), strict=True):
            if (group, step - 1) not in kept and (group, step + 1) not in kept:
                kept.add((group, step))
                found[id_] = True
        return found

    def vectors(self, start: int, stop: int) -> Floats:
        """Vectors of ids [start, stop), norm 1, float32 (n, dim)."""
        groups, places = self.group[start:stop], self.place[start:stop]
        made = np.empty((len(groups), self.dim), np.float32)
        for at, (group, place) in enumerate(zip(groups.tolist(), places.tolist(), strict=True)):
            made[at] = self._vector(group, place - int(self.borders[group]), place)
        return made

    def _vector(self, group: int, step: int, place: int) -> Floats:
        one = self._direction(2, group)
        if group in self.chains:
            other = self._direction(3, group)
            other -= (other @ one) * one
            angle = step * np.arccos(STEP)
            return np.cos(angle, dtype=np.float32) * one + np.sin(angle, dtype=np.float32) * _unit(other)
        own = self._direction(4, place)
        own = _unit(own - (own @ one) * one)
        return np.float32(COPY) * one + np.float32(np.sqrt(1 - COPY**2)) * own

    def _direction(self, *purpose: int) -> Floats:
        rng = np.random.Generator(np.random.SFC64((self.seed, *purpose)))
        return _unit(rng.standard_normal(self.dim, np.float32))


def _unit(vector: Floats) -> Floats:
    scaled: Floats = vector / np.linalg.norm(vector)
    return scaled
