"""Which engines made the vectors of a run that copied some of them."""

import pytest
from msgspec import structs

from embedkit.documents import EngineRecord, ReusedRun, ShardManifest
from embedkit.errors import UsageError
from embedkit.row_keys import EarlierRun, open_earlier
from embedkit.row_keys.vector_engines import require_one_engine, vector_engines
from embedkit.run import RunFolder
from tests.support.reseal import reseal


def copying(run: RunFolder, tokens: int, *reused: ReusedRun) -> EarlierRun:
    """A run, opened, as if it had copied texts of so many tokens from other runs."""
    earlier = open_earlier(str(run.path))
    request = structs.replace(earlier.config.request, reuse=reused)
    return EarlierRun(
        run,
        structs.replace(earlier.config, request=request),
        structs.replace(earlier.plan, tokens_copied=tokens),
        earlier.success,
    )


def with_gpu(record: EngineRecord, gpu: str) -> EngineRecord:
    return structs.replace(record, gpu=gpu)


def test_engines_are_those_of_the_shards_and_of_what_was_copied(small: RunFolder) -> None:
    """Engines that were only certified made nothing. A run that is named, and gave nothing, does not count."""
    (own,) = open_earlier(str(small.path)).success.engines
    a, b, c, d = (with_gpu(own, name) for name in "abcd")
    used = ReusedRun(success_sha256="1" * 64, eager=True, engines=(a, own, b), certified=(c,))
    unused = ReusedRun(success_sha256="2" * 64, eager=True, engines=(d,))
    reseal(small.shard_manifest(1), ShardManifest, copied={"1" * 64: {"combined": 3}})
    assert vector_engines(copying(small, 5, used, unused)) == (own, a, b)
    assert vector_engines(copying(small, 0, used, unused)) == (own,)


def test_engines_that_differ_are_refused_by_their_fields(small: RunFolder) -> None:
    """The token budget decides only which texts are embedded together."""
    (own,) = open_earlier(str(small.path)).success.engines
    require_one_engine("old", [own])
    require_one_engine("old", [own, structs.replace(own, token_budget=1)])
    said = r"--reuse old: some of its vectors were made with GPU \(none\), others with GPU x, in its shards or in a run"
    with pytest.raises(UsageError, match=said):
        require_one_engine("old", [own, own, with_gpu(own, "x")])
