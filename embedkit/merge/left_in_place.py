"""The vectors of the sharded layout: they stay in the files of the shards, whose every byte is compared."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from embedkit.documents import ShardManifest, View
from embedkit.embed import matrix_problem
from embedkit.errors import EmbedkitError
from embedkit.log_progress import LogProgress
from embedkit.run import RunFolder
from embedkit.storage import available_cpus

log = logging.getLogger(__name__)


def check_vectors(run: RunFolder, manifests: Sequence[ShardManifest], view: View) -> dict[int, str]:
    """Compare each shard's matrix of a view with its manifest, chunk by chunk. Returns the problems by shard."""
    progress = LogProgress(log, f"check vectors ({view})", manifests[-1].stop, "rows")

    def check(manifest: ShardManifest) -> str | None:
        path = run.shard(manifest.shard) / manifest.matrices[view].file.name
        try:
            return matrix_problem(path, manifest, view)
        except (EmbedkitError, OSError) as error:
            return str(error)

    problems: dict[int, str] = {}
    with ThreadPoolExecutor(available_cpus(), "check") as pool:
        for manifest, problem in zip(manifests, pool.map(check, manifests), strict=True):
            if problem is not None:
                problems[manifest.shard] = problem
            progress.add(manifest.stop - manifest.start)
    return problems
