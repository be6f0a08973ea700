"""The data of the tabs that a script fills: their blocks, and the rows whose texts the page must carry for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedkit.analysis.findings import Findings
from embedkit.analysis.page import pairs, reading
from embedkit.analysis.page.view_results import ViewResults


@dataclass(frozen=True)
class TabData:
    """Blocks by name, and ids of rows."""

    blocks: dict[str, str]
    ids: list[int]

    @property
    def bytes(self) -> int:
        """Characters of all blocks."""
        return sum(map(len, self.blocks.values()))


def pack_tabs(
    results: Sequence[ViewResults], findings: Sequence[Findings], beginnings: Sequence[Mapping[str, str]]
) -> TabData:
    """Pack findings and near-duplicates, as far as they were computed.

    findings: of each view, or none. beginnings: of each view, as `shared_beginnings` returns them.
    """
    views = [result.merged for result in results]
    near = pairs.pack_pairs(views, [result.neighborhood.duplicates for result in results], beginnings)
    blocks = {pairs.PLACE: near.block} if near.has_pairs else {}
    if findings:
        blocks[reading.PLACE] = reading.pack_reading(views, findings, beginnings)
    return TabData(blocks, sorted({*near.ids, *reading.rows_to_read(findings)}))
