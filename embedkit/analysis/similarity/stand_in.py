"""transformers in place of vLLM for queries on a CPU, where it gives the run's vectors: it starts much sooner.

Every manifest has the vectors of the canary's texts. transformers embeds the same texts here, and may answer only if
its vectors are as near to them as those of two shards of a run must be. With all-MiniLM-L6-v2 they are 9e-7 apart,
and 1e-5 is allowed.
"""

from dataclasses import dataclass
from pathlib import Path

from embedkit.analysis.merged import Merged
from embedkit.documents import ITEM_BYTES, Request, ShardManifest
from embedkit.embed import ShardStates, canary_bytes, canary_distance, canary_inputs, canary_tolerance, embed_canary
from embedkit.engines import Engine, start_engine
from embedkit.errors import EmbedkitError
from embedkit.model import load_tokenizer

MAX_TOKENS = 256
"""Tokens of the longest text of the canary that is compared. On two cores a longer one would take a large model longer
than vLLM's start."""


@dataclass(frozen=True)
class StandIn:
    """An engine that answers in place of the run's own.

    tokens: of the longest text that was compared. furthest, allowed: the largest distance from the run's vectors of the
    canary, relative to their length, and its limit.
    """

    engine: Engine
    tokens: int
    furthest: float
    allowed: float


class NoStandIn(EmbedkitError):
    """Why the run's own engine must answer."""


def may_stand_in(request: Request) -> bool:
    """Whether transformers may be faster: for vLLM on a CPU."""
    return request.engine == "vllm" and request.device == "cpu"


def start_stand_in(merged: Merged, model: Path) -> StandIn:
    """Start transformers, and compare its vectors with the run's.

    Args:
        merged: the run.
        model: the model's folder.

    Raises:
        NoStandIn: it does not start here, its vectors are not those of the run, or nothing says so.
    """
    manifests, problems = ShardStates(merged.run, merged.plan, rejected={}).read_all("manifest")
    if problems or not manifests:
        raise NoStandIn("the run has no manifests to compare transformers with")
    try:
        engine = start_engine("transformers", model, merged.plan.settings)
    except Exception as error:  # the run's own engine may still know the model
        raise NoStandIn(f"transformers does not start here: {error}") from error
    try:
        return _compared(merged, model, engine, manifests)
    except BaseException:
        engine.close()
        raise


def _compared(merged: Merged, model: Path, engine: Engine, manifests: list[ShardManifest]) -> StandIn:
    inputs = canary_inputs(load_tokenizer(model, merged.config.request.prefix), merged.plan.settings)
    lengths = tuple(map(len, inputs))
    if any(manifest.canary.tokens != lengths for manifest in manifests):
        raise NoStandIn("the run's canary has different texts")
    compared = [ids for ids in inputs if len(ids) <= MAX_TOKENS]
    here = canary_bytes(embed_canary(engine, compared))
    part = len(compared) * engine.record.dim * ITEM_BYTES
    furthest = max(canary_distance(here, one.canary.before[:part], one.engine) for one in manifests)
    allowed = min(canary_tolerance(one.engine) for one in manifests)
    if not furthest <= allowed:
        raise NoStandIn(
            f"vectors of transformers are {furthest:.2g} from the run's for the canary's texts, "
            f"{allowed:.0e} is allowed"
        )
    return StandIn(engine, max(map(len, compared)), furthest, allowed)
