"""Counts what the messages of a data set have, for the warnings of a plan."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

from embedkit.data import LEFT_OUT_COLUMN, MESSAGES_COLUMN

MOST_ROLES = 50
"""How many roles a part lists. A column that is no role may have millions of values."""


@dataclass
class MessageCounts:
    """roles: how many messages have which role. left_out: how many pieces of messages are of which kind, not text."""

    roles: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, rows: pl.DataFrame) -> None:
        """Count the messages of a reader's frame."""
        if MESSAGES_COLUMN not in rows.columns:
            return
        role = pl.element().struct.field("role")
        self.roles.update(_counts(rows.select(pl.col(MESSAGES_COLUMN).list.eval(role).explode()).to_series()))
        if LEFT_OUT_COLUMN in rows.columns:
            self.left_out.update(_counts(rows[LEFT_OUT_COLUMN].explode()))

    def most_common_roles(self) -> dict[str, int]:
        """The roles that are most common, in sorted order."""
        most = sorted(self.roles.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_ROLES]
        return dict(sorted(most))


def _counts(values: pl.Series) -> Mapping[str, int]:
    return dict(values.drop_nulls().value_counts().iter_rows())
