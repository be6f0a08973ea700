"""merge's checks before it writes: one engine, one canary. Refused shards are recorded, and embed makes them again."""

from collections.abc import Sequence
from itertools import combinations

from embedkit.certificates import Certified
from embedkit.documents import FORMAT, EngineRecord, Rejected, RejectedShard, ShardManifest, digest, write
from embedkit.embed import DIFFERENT_ENGINE, canary_problems, refused_fields
from embedkit.errors import EmbedkitError
from embedkit.run import RunFolder, program
from embedkit.terminal import command_line


def engine_groups(manifests: Sequence[ShardManifest]) -> dict[EngineRecord, list[int]]:
    """Shards by the engine record they were embedded with."""
    groups: dict[EngineRecord, list[int]] = {}
    for manifest in manifests:
        groups.setdefault(manifest.engine, []).append(manifest.shard)
    return groups


def unproven_pairs(
    run: RunFolder, engines: Sequence[EngineRecord], allow_mixed: bool = False, is_exact: bool = False
) -> tuple[list[tuple[EngineRecord, EngineRecord]], tuple[str, ...]]:
    """Pairs of engines that differ without a certificate, and the digests of the certificates of the other pairs.

    is_exact: no certificate counts.

    Raises EmbedkitError naming a damaged certificate.
    """
    differing = [pair for pair in combinations(engines, 2) if refused_fields(*pair, allow_mixed)]
    if not differing or is_exact:
        return differing, ()
    certified = Certified.of_run(run)
    proofs = [certified.proof(*pair) for pair in differing]
    unproven = [pair for pair, proof in zip(differing, proofs, strict=True) if proof is None]
    return unproven, tuple(sorted({digest(proof) for proof in proofs if proof is not None}))


def check_engines(
    run: RunFolder, manifests: Sequence[ShardManifest], allow_mixed: bool, is_exact: bool = False
) -> tuple[str, ...]:
    """The digests of the certificates by which shards of different engines are accepted.

    is_exact: no certificate counts.

    Raises EmbedkitError if the shards were made on different engines and that is neither certified nor allowed.
    """
    groups = engine_groups(manifests)
    unproven, certificates = unproven_pairs(run, tuple(groups), allow_mixed, is_exact)
    if not unproven:
        return certificates
    lines = [f"  shards {', '.join(map(str, shards))}: {record}" for record, shards in groups.items()]
    largest = max(groups.values(), key=len)
    others = {shard: DIFFERENT_ENGINE for group in groups.values() if group is not largest for shard in group}
    reject(run, others, manifests, remake=True)
    raise EmbedkitError(
        "the shards were made on different engines, whose vectors differ slightly:\n"
        + "\n".join([*lines, *([] if is_exact else _ways_to_accept(run))])
        + f"\nto make shards {', '.join(map(str, sorted(others)))} again, on the engine of the others: "
        f"{run.resume_command}"
    )


def _ways_to_accept(run: RunFolder) -> list[str]:
    return [
        f"to find out whether the engine here gives the same vectors as the shards: {run.certify_command}",
        f"to accept this: {command_line([program(), 'merge', str(run.path), '--allow-mixed'])}",
    ]


def check_canaries(run: RunFolder, manifests: Sequence[ShardManifest]) -> None:
    """Raise EmbedkitError naming the shards whose canary differs from the others' on the same engine."""
    problems = canary_problems(manifests)
    if not problems:
        return
    lines = [f"  shard {shard}: {problem}" for shard, problem in sorted(problems.items())]
    reject(run, problems, manifests, remake=True)
    raise EmbedkitError(
        "the canary (the same texts in every task) has different vectors in these shards, although the engine is the "
        "same. The cause may be a bad GPU or a different model:\n" + "\n".join(lines) + f"\nto make them again: "
        f"{run.resume_command}"
    )


def reject(run: RunFolder, problems: dict[int, str], manifests: Sequence[ShardManifest], *, remake: bool) -> None:
    """Write `rejected.json`: which shards' manifests are refused and why. embed then makes those shards again.

    Args:
        run: the run.
        problems: what is wrong, by shard.
        manifests: manifests that were read; those of other shards are ignored.
        remake: whether to make the shards again even if their bytes are those that were written.
    """
    refused = {
        str(m.shard): RejectedShard(manifest_sha256=digest(m), what=problems[m.shard], remake=remake)
        for m in manifests
        if m.shard in problems
    }
    write(run.rejected, Rejected(format=FORMAT, shards=refused))


def shards_error(run: RunFolder, problems: dict[int, str], total: int) -> EmbedkitError:
    """The error that names the shards that do not count, and the command that makes them again."""
    lines = [f"  shard {shard}: {problem}" for shard, problem in sorted(problems.items())]
    return EmbedkitError(
        f"{len(problems)} of {total} shards are missing or damaged:\n"
        + "\n".join(lines)
        + f"\nto make them again: {run.resume_command}"
    )
