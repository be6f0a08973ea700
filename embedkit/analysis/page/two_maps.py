"""The page with two maps side by side: two pages as frames, linked by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedkit.analysis.components.extremes import printable
from embedkit.analysis.page.inline import json_inside_script, policy_hash, script_of
from embedkit.analysis.page.pack import Packed
from embedkit.page_shell import page_environment

TEMPLATE = "two_maps.html.jinja"
SIDES = ("left", "right")
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Half:
    """One of two maps.

    title: what it shows. link: the fragment of the page's address. page: the page's address from that of the page with
    both, quoted as a URL.
    """

    title: str
    link: str
    page: str = "index.html"


def render_two_maps(title: str, halves: tuple[Half, Half], ids: tuple[Ids, Ids] | None = None) -> str:
    """Render two maps as HTML.

    Args:
        title: of the page.
        halves: the left and the right map.
        ids: ids of the rows that are on both, int64 (n,) each; those of the left side ascend. None if both sides have
            the same ids.
    """
    script, packed = script_of("two_maps"), Packed()
    for side, of_side in zip(SIDES, ids or (), strict=False):
        packed.add(side, np.diff(of_side, prepend=0).astype(np.uint32))  # modulo 2^32, so that any order comes back
    return (
        page_environment("embedkit.analysis.page", "static")
        .get_template(TEMPLATE)
        .render(
            title=printable(title),
            halves=dict(zip(SIDES, halves, strict=True)),
            meta=json_inside_script({"types": packed.types}),
            blocks=packed.blocks,
            script=script,
            policy_hash=policy_hash(script),
        )
        .encode("utf-8", "replace")
        .decode()
    )


def halves_of_run(views: Sequence[str], has_umap: bool) -> tuple[Half, Half]:
    """The first two views of a page; of a single view the UMAP and the components, or four components."""
    if len(views) > 1:
        return Half(views[0], link_of_view(views[0])), Half(views[1], link_of_view(views[1]))
    if has_umap:
        return Half("UMAP", "map=umap&intro=false"), Half("principal components", "map=pc&intro=false")
    return Half("components 1 and 2", "intro=false"), Half("components 3 and 4", "x=3&y=4&intro=false")


def link_of_view(view: str) -> str:
    """The fragment of the map of a view."""
    return f"view={view}&intro=false"
